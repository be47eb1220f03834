"""The one converter between JSON and models: wire names, strict scalars, unknown fields kept."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import GenericAlias, UnionType
from typing import Any, TypeVar

import attrs
from cattrs import Converter
from cattrs.errors import ClassValidationError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from gather_async.models.enums import InterviewStatus, OpenEnum
from gather_async.models.fields import WIRE_NAME
from gather_async.models.interview import Interview

__all__ = ["MismatchError", "decode", "wire_names"]

T = TypeVar("T")
# Fields that a model has and the wire doesn't.
_EXTRA = "extra"
_OURS = frozenset({_EXTRA, "status_code"})


class MismatchError(Exception):
    """A value isn't what the model needs; never leaves the package.

    Attributes:
        path: Where, relative to the decoded value, such as ``.questions[2].id``.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(problem)
        self.path = path


def decode(value: Any, model: type[T]) -> T:
    """Return the model that a JSON value describes.

    Raises:
        MismatchError: The value doesn't fit; the error says where.
    """
    try:
        return _FAST.structure(value, model)
    except Exception:
        try:
            return _EXACT.structure(value, model)
        except Exception as error:
            path, problem = _locate(error)
            raise MismatchError(path, problem) from None


def wire_names(model: type) -> frozenset[str]:
    """Return the names that a model's fields have on the wire."""
    return frozenset(
        _wire_name(model, field.name) for field in attrs.fields(model) if field.name not in _OURS
    )


def _locate(error: BaseException) -> tuple[str, str]:
    """Follow cattrs' nested groups down to the first fault: its path and what it is."""
    if isinstance(error, ClassValidationError):
        inner, field = error.group_exceptions()[0][0]
        path, problem = _locate(inner)
        return f".{_wire_name(error.cl, field.name)}{path}", problem
    if isinstance(error, IterableValidationError):
        inner, place = error.group_exceptions()[0][0]
        path, problem = _locate(inner)
        return f"[{place.index}]{path}", problem
    if isinstance(error, KeyError):
        return "", "it is missing"
    return "", str(error)


def _wire_name(cls: type, attribute: str) -> str:
    """Return how a model's field is spelled on the wire."""
    return str(getattr(attrs.fields(cls), attribute).metadata.get(WIRE_NAME, attribute))


def _expected(kind: str, value: object) -> TypeError:
    return TypeError(f"{kind} was expected, not {_JSON_NAMES.get(type(value), 'something else')}")


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


def _optional_text(value: Any, _: Any) -> str | None:
    if value is None or type(value) is str:
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
        parsed = datetime.fromisoformat(value)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise TypeError("an ISO 8601 date was expected") from None


def _enum_member(value: Any, cls: type[OpenEnum]) -> OpenEnum:
    if type(value) is str:
        return cls(value)
    raise _expected("text", value)


def _interview_status(value: Any, _: Any) -> InterviewStatus:
    """Read edition A's word or edition B's number. Source: /api-reference/interviews."""
    if type(value) is int:
        words = tuple(InterviewStatus)
        return words[value] if 0 <= value < len(words) else InterviewStatus(str(value))
    return InterviewStatus(_text(value, str))


def _model_hook(cls: type[Any], converter: Converter) -> Callable[[Any, Any], Any]:
    """Return a reader of one model that keeps in ``extra`` what the model doesn't name."""
    # Any, because cattrs takes overrides and flags of its own in one mapping.
    overrides: dict[str, Any] = {
        field.name: override(omit=True)
        if field.name in _OURS
        else override(rename=_wire_name(cls, field.name))
        for field in attrs.fields(cls)
    }
    read = make_dict_structure_fn(
        cls, converter, _cattrs_detailed_validation=converter.detailed_validation, **overrides
    )
    known = wire_names(cls)

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not dict:
            raise _expected("an object", value)
        model = read(value, cls)
        if value.keys() <= known:
            return model
        unknown = {name: item for name, item in value.items() if name not in known}
        return attrs.evolve(model, **{_EXTRA: unknown})

    return structure


def _interview_hook(cls: type[Any], converter: Converter) -> Callable[[Any, Any], Any]:
    read = _model_hook(cls, converter)

    def structure(value: Any, _: Any) -> Any:
        interview = read(value, cls)
        status = value.get("status")
        return attrs.evolve(interview, status_code=status) if type(status) is int else interview

    return structure


def _array_hook(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    """Return a reader of arrays; null is an empty one."""
    items = GenericAlias(list, cls.__args__[:1])
    read = converter.get_structure_hook(items)

    def structure(value: Any, _: Any) -> Any:
        if value is None:
            return ()
        if type(value) is not list:
            raise _expected("an array", value)
        return tuple(read(value, items))

    return structure


def _object(value: Any, _: Any) -> Mapping[str, Any]:
    if type(value) is dict:
        return value
    raise _expected("an object", value)


def _optional_hook(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    """Return a reader of what may be null; cattrs' own looks its inner hook up each time."""
    (inner,) = (each for each in cls.__args__ if each is not type(None))
    if inner is str:
        return _optional_text
    read = converter.get_structure_hook(inner)

    def structure(value: Any, _: Any) -> Any:
        return None if value is None else read(value, inner)

    return structure


def _is_optional(cls: Any) -> bool:
    return isinstance(cls, UnionType) and len(cls.__args__) == 2 and type(None) in cls.__args__


def _converter(*, detailed_validation: bool) -> Converter:
    """Build the converter; by default cattrs would turn null into "None" and "no" into True."""
    converter = Converter(detailed_validation=detailed_validation)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(int, _whole_number)
    converter.register_structure_hook(datetime, _instant)
    # By class: cattrs takes the hook of str, the base, before any predicate's.
    converter.register_structure_hook(OpenEnum, _enum_member)
    converter.register_structure_hook(InterviewStatus, _interview_status)
    converter.register_structure_hook_func(lambda cls: cls == Mapping[str, Any], _object)
    converter.register_structure_hook_factory(
        lambda cls: getattr(cls, "__origin__", None) is tuple,
        partial(_array_hook, converter=converter),
    )
    converter.register_structure_hook_factory(
        _is_optional, partial(_optional_hook, converter=converter)
    )
    converter.register_structure_hook_factory(attrs.has, partial(_model_hook, converter=converter))
    converter.register_structure_hook_factory(
        lambda cls: cls is Interview, partial(_interview_hook, converter=converter)
    )
    return converter


# Finding where a fault is costs time, so it is only done once there is one.
_FAST = _converter(detailed_validation=False)
_EXACT = _converter(detailed_validation=True)
