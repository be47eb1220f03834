"""The one converter between JSON and models: wire names, strict scalars, nothing lost.

An optional field whose value can't be read is None, and its raw value stays in
``extra``, beside the fields that the model doesn't name: one odd date must not cost a
list. Only an id is indispensable.
"""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import attrs

from gather_async.models.enums import InterviewStatus, OpenEnum
from gather_async.models.fields import WIRE_NAME

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["MismatchError", "decode", "decode_all", "wire_names"]

T = TypeVar("T")
# Fields that a model has and the wire doesn't.
_EXTRA = "extra"
_OURS = frozenset({_EXTRA, "status_code"})


class MismatchError(Exception):
    """A value isn't what the model needs; never leaves the package.

    Attributes:
        path: Where, relative to the decoded value: the value itself or its ``.id``.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(problem)
        self.path = path


def decode(value: Any, model: type[T]) -> T:
    """Return the model that a JSON value describes.

    Raises:
        MismatchError: It is no object, or has no id; the error says which.
    """
    decoded: T = _READERS[model](value, model)
    return decoded


def decode_all(values: list[Any], model: type[T]) -> tuple[T, ...]:
    """Return the models that JSON values describe.

    Raises:
        MismatchError: One of them is none; which one, the path begins with.
    """
    read = _READERS[model]
    found: list[T] = []
    try:
        for value in values:
            found.append(read(value, model))  # noqa: PERF401 - its length names the odd one
    except MismatchError as error:
        raise MismatchError(f"[{len(found)}]{error.path}", str(error)) from None
    return tuple(found)


def wire_names(model: type) -> frozenset[str]:
    """Return the names that a model's fields have on the wire."""
    return frozenset(
        _wire_name(model, field.name) for field in attrs.fields(model) if field.name not in _OURS
    )


def _wire_name(cls: type, attribute: str) -> str:
    """Return how a model's field is spelled on the wire."""
    return str(getattr(attrs.fields(cls), attribute).metadata.get(WIRE_NAME, attribute))


def _expected(kind: str, value: object, path: str = "") -> MismatchError:
    found = _JSON_NAMES.get(type(value), "something else")
    return MismatchError(path, f"{kind} was expected, not {found}")


_JSON_NAMES = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "text",
    list: "an array",
    dict: "an object",
}


def _text(value: Any, _: Any) -> str:
    if type(value) is str:
        return value
    raise _expected("text", value)


def _boolean(value: Any, _: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise _expected("a boolean", value)


def _whole_number(value: Any, _: Any) -> int:
    if type(value) is int:
        return value
    raise _expected("a whole number", value)


def _instant(value: Any, _: Any) -> datetime:
    """Read ISO 8601, with or without a fraction; without an offset it is UTC."""
    if type(value) is not str:
        raise _expected("a date", value)
    try:
        return _in_utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        raise MismatchError("", "an ISO 8601 date was expected") from None


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _enum_member(value: Any, cls: type[OpenEnum]) -> OpenEnum:
    return cls(_text(value, str))


def _interview_status(value: Any, _: Any) -> InterviewStatus:
    """Read edition A's word or edition B's number. Source: /api-reference/interviews."""
    if type(value) is int:
        return InterviewStatus.of_code(value)
    return InterviewStatus(_text(value, str))


def _object(value: Any, _: Any) -> Mapping[str, Any]:
    if type(value) is dict:
        return value
    raise _expected("an object", value)


def _readable(values: list[Any], read: Callable[[Any, Any], Any]) -> tuple[Any, ...]:
    """Return those items of an array that can be read."""
    kept = []
    for value in values:
        with suppress(MismatchError):
            kept.append(read(value, None))
    return tuple(kept)


def _model_hook(cls: type[Any], converter: "Converter") -> Callable[[Any, Any], Any]:
    """Return a reader of one model, generated as source, as attrs does a class' own methods.

    A page of 100 is read in the time that its JSON takes (benchmarks/decode.py). That needs
    straight lines, and no call of ``__init__``, which on a frozen class is a call for each
    field: the object is filled as an instance of a twin, a class with the same slots that
    isn't frozen, and then becomes one of its own class. An object that has every field is
    read without asking whether it has them; any other by the second half.
    """
    scope: dict[str, Any] = {
        "cls": cls,
        "expected": _expected,
        "fromisoformat": datetime.fromisoformat,
        "in_utc": _in_utc,
        "known": wire_names(cls),
        "left_over": _left_over,
        "readable": _readable,
        "required": _required,
        "twin": type(cls.__name__, cls.__bases__, {"__slots__": cls.__slots__}),
        "unreadable": (MismatchError, TypeError, ValueError, OverflowError),
        "UTC": UTC,
    }
    whole, sparse, count = [], [], 0
    for field in attrs.fields(cls):
        if field.name not in _OURS:
            count += 1
            name = repr(_wire_name(cls, field.name))
            lines = [f"v = value[{name}]", *_field_lines(field, name, converter, scope)]
            whole += lines
            if field.default is attrs.NOTHING:
                sparse += [f"if {name} not in value: raise required({name}, value)", *lines]
            else:
                sparse += [f"if {name} in value:", *[f" {line}" for line in lines]]
                sparse += [f"else: {_absent(field)}; absent += 1"]
    source = [
        "def read(value, _):",
        " if value.__class__ is not dict: raise expected('an object', value)",
        " size, odd = len(value), ()",
        f" if size >= {count}:",
        "  try:",
        *[f"   {line}" for line in ["model = twin()", *whole, *_last_lines(f"{count}")]],
        "  except KeyError: odd = ()",
        " model, absent = twin(), 0",
        *[f" {line}" for line in [*sparse, *_last_lines(f"{count} - absent")]],
    ]
    exec(compile("\n".join(source), f"<reader of {cls.__name__}>", "exec"), scope)  # noqa: S102
    read: Callable[[Any, Any], Any] = scope["read"]
    return read


def _last_lines(found: str) -> list[str]:
    """Return the lines that keep what is odd or unknown, given how many known fields came."""
    return [
        f"model.extra = {{}} if size == {found} and not odd else left_over(value, known, odd)",
        "model.__class__ = cls",
        "return model",
    ]


def _absent(field: Any) -> str:
    """Return the statement for a field that the object doesn't have."""
    if _without_none(field.type) is InterviewStatus:
        return "model.status = model.status_code = None"
    return f"model.{field.name} = {() if _is_array(field.type) else None}"


def _field_lines(
    field: Any, wire_name: str, converter: "Converter", scope: dict[str, Any]
) -> Iterator[str]:
    """Give the lines that make of the raw value ``v`` the field, or what stands for it.

    Args:
        field: The model's field.
        wire_name: Its name on the wire, quoted.
        converter: Where the readers of other types come from.
        scope: Where what the lines call is put.
    """
    name, kind = field.name, _without_none(field.type)
    odd = f"odd += ({wire_name},); v = None"
    if kind is InterviewStatus:
        yield "model.status_code = v if v.__class__ is int else None"
    if field.default is attrs.NOTHING:
        yield f"if v.__class__ is not str: raise required({wire_name}, value)"
    elif kind is str or kind is int:
        yield f"if v.__class__ is not {kind.__name__} and v is not None: {odd}"
    elif kind is bool:
        yield f"if v is not True and v is not False and v is not None: {odd}"
    elif _is_array(kind):
        scope[f"read_{name}"] = converter.get_structure_hook(get_args(kind)[0])
        yield "if v.__class__ is list:"
        yield f" try: v = tuple([read_{name}(item, None) for item in v])"
        yield f" except unreadable: odd += ({wire_name},); v = readable(v, read_{name})"
        yield "else:"
        yield f" if v is not None: odd += ({wire_name},)"
        yield " v = ()"
    elif kind is not Any:
        yield "if v is not None:"
        yield " try:"
        yield from _reading_lines(name, kind, converter, scope)
        yield f" except unreadable: {odd}"
    yield f"model.{name} = v"


def _reading_lines(
    name: str, kind: Any, converter: "Converter", scope: dict[str, Any]
) -> Iterator[str]:
    """Give the lines that turn ``v`` into what it means, or raise; the frequent ones inline."""
    if kind is datetime:
        yield "  v = fromisoformat(v)"
        yield "  if v.tzinfo is not UTC: v = in_utc(v)"
    elif isinstance(kind, type) and issubclass(kind, OpenEnum):
        scope[f"word_{name}"] = {word.value: word for word in kind}.get
        scope[f"read_{name}"] = partial(converter.structure, cl=kind)
        yield f"  v = word_{name}(v) or read_{name}(v)"
    else:
        scope[f"read_{name}"] = partial(converter.structure, cl=kind)
        yield f"  v = read_{name}(v)"


def _left_over(
    value: Mapping[str, Any], known: AbstractSet[str], odd: tuple[str, ...]
) -> dict[str, Any]:
    """Return what a model doesn't name, and what it couldn't read."""
    return {name: item for name, item in value.items() if name not in known or name in odd}


def _required(name: str, value: Mapping[str, Any]) -> MismatchError:
    """Make the error of a field that must be text."""
    if name not in value:
        return MismatchError(f".{name}", "it is missing")
    return _expected("text", value[name], f".{name}")


def _without_none(kind: Any) -> Any:
    """Return the type of an optional field's value where it has one."""
    if isinstance(kind, UnionType):
        (kind,) = (each for each in kind.__args__ if each is not type(None))
    return kind


def _is_array(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is tuple


@cache
def _converter() -> "Converter":
    """Build the converter; by default cattrs would turn null into "None" and "no" into True."""
    from cattrs import Converter  # noqa: PLC0415 - a tenth of the import, for the first response

    converter = Converter(detailed_validation=False)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(int, _whole_number)
    converter.register_structure_hook(datetime, _instant)
    # By class: cattrs takes the hook of str, the base, before any predicate's.
    converter.register_structure_hook(OpenEnum, _enum_member)
    converter.register_structure_hook(InterviewStatus, _interview_status)
    converter.register_structure_hook_func(lambda cls: cls == Mapping[str, Any], _object)
    converter.register_structure_hook_factory(attrs.has, partial(_model_hook, converter=converter))
    return converter


class _Readers(dict[Any, Callable[[Any, Any], Any]]):
    """The converter's hooks, each looked up once."""

    def __missing__(self, model: Any) -> Callable[[Any, Any], Any]:
        hook = self[model] = _converter().get_structure_hook(model)
        return hook


_READERS = _Readers()
