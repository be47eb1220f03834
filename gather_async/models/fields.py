"""Fields of the models: wire names, each copied and never derived, and plain data."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from types import UnionType
from typing import Any, Self, get_args, get_origin

from attrs import NOTHING, Attribute, fields

from gather_async.models.enums import InterviewStatus, OpenEnum
from gather_async.validators import hide_arguments, is_number, is_whole

__all__ = [
    "Model",
    "WIRE_NAME",
    "wire",
]

WIRE_NAME = "gather_async.wire_name"


def wire(name: str) -> dict[str, Any]:
    """Return attrs metadata for a field whose wire name differs from its own."""
    return {WIRE_NAME: name}


class Model:
    """Base of what the API's responses are read into.

    It holds the place of weak references and of the request id, so that a model's other
    slots are its fields alone and the codec can make a twin of it.

    Models are types of pydantic, and so of FastAPI: ``response_model=Question``.
    """

    __slots__ = ("__weakref__", "_request_id")

    @property
    def request_id(self) -> str | None:
        """The id of the request that returned this object; None if none of its own did."""
        return getattr(self, "_request_id", None)

    def to_dict(self, *, by_alias: bool = False, secrets: bool = True) -> dict[str, Any]:
        """Return the fields as plain data that JSON can hold; ``extra`` is merged in.

        Dates are ISO 8601 text, enum members their words, tuples lists.

        Args:
            by_alias: Use the API's own names, such as ``audioURL``, instead of the
                attributes'.
            secrets: False leaves out what the ``repr`` hides: invite tokens, personal
                data, and ``extra``, whose content is not known.
        """
        found: dict[str, Any] = {}
        for field in _fields(type(self)):
            if field.name != "extra" and (secrets or field.repr):
                name = _wire_name(field) if by_alias else field.name
                found[name] = _plain(getattr(self, field.name), by_alias, secrets)
        if by_alias and "status_code" in found:  # the wire has either in one field
            code = found.pop("status_code")
            found["status"] = found["status"] if code is None else code
        extra: Mapping[str, Any] = getattr(self, "extra", {}) if secrets else {}
        raw = {_wire_name(each) for each in _fields(type(self))}
        for name, value in extra.items():
            # Under the name of a field it is that field's value as sent, which can't be read.
            if found.get(name) is None or name in raw:
                found[name] = _plain(value, by_alias, secrets)
        return found

    @classmethod
    @hide_arguments
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the object that `to_dict` described, under either spelling of its names.

        What the class doesn't name goes into ``extra``, and so does the value of an
        optional field that can't be read.

        Args:
            data: Such as ``to_dict()``, or an object as the API sends it.

        Raises:
            ValueError: It is no mapping, or a required field is missing or can't be read.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"{cls.__name__} needs a mapping.")  # noqa: TRY004 - as pydantic asks
        rest, values = dict(data), dict[str, Any]()
        odd: dict[str, Any] = {}
        for field in _fields(cls):
            name = field.name if field.name in rest else _wire_name(field)
            if field.name == "extra" or name not in rest:
                continue
            raw = rest.pop(name)
            value, is_read = _readable(raw, field.type)
            if is_read or value is not None:
                values[field.name] = value
            if not is_read:
                odd[_wire_name(field)] = raw
            if name == "status" and is_whole(raw) and hasattr(cls, "status_code"):
                values["status_code"] = raw
        missing = [each.name for each in _fields(cls) if _is_missing(each, values)]
        if missing:
            raise ValueError(f"{cls.__name__} needs a readable {', '.join(missing)}.")
        if rest.keys() | odd.keys() and "extra" in cls.__slots__:
            values["extra"] = rest | odd
        return cls(**values)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Return pydantic's schema: an instance as it is, or what `from_dict` takes."""
        from pydantic_core import core_schema as core  # noqa: PLC0415 - only pydantic calls this

        fields = [each for each in _fields(cls) if each.name != "extra"]
        shape = core.typed_dict_schema(
            {
                each.name: core.typed_dict_field(
                    _pydantic(each.type, core, handler), required=each.default is NOTHING
                )
                for each in fields
            },
            extra_behavior="allow",
            config=core.CoreConfig(title=cls.__name__),
        )
        named = core.no_info_before_validator_function(partial(_renamed, cls), shape)
        read = core.no_info_after_validator_function(cls.from_dict, named)
        return core.no_info_wrap_validator_function(
            lambda value, validate: value if isinstance(value, cls) else validate(value),
            read,
            serialization=core.plain_serializer_function_ser_schema(_shown, return_schema=shape),
            ref=f"{cls.__module__}.{cls.__qualname__}:{id(cls)}",
        )


def _fields(cls: type[Any]) -> "tuple[Attribute[Any], ...]":
    return tuple(fields(cls))


def _wire_name(field: "Attribute[Any]") -> str:
    return str(field.metadata.get(WIRE_NAME, field.name))


def _is_missing(field: "Attribute[Any]", values: Mapping[str, Any]) -> bool:
    return field.default is NOTHING and values.get(field.name) is None


def _renamed(cls: type[Model], data: Any) -> Any:
    """Return a mapping with the attributes' names instead of the API's."""
    if not isinstance(data, Mapping):
        return data
    names = {_wire_name(each): each.name for each in _fields(cls) if each.name not in data}
    renamed = {names.get(name, name): value for name, value in data.items()}
    if hasattr(cls, "status_code") and is_whole(number := renamed.get("status")):
        renamed |= {"status": _interview_status(number), "status_code": number}
    return renamed


def _shown(model: Model) -> dict[str, Any]:
    """Return a model's fields as they are, for pydantic to serialize."""
    shown = {each.name: getattr(model, each.name) for each in _fields(type(model))}
    lists = {name: [*value] for name, value in shown.items() if isinstance(value, tuple)}
    return {**shown.pop("extra", {}), **shown, **lists}


def _plain(value: Any, by_alias: bool, secrets: bool) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, Model):
        return value.to_dict(by_alias=by_alias, secrets=secrets)
    if isinstance(value, Mapping):
        return {str(name): _plain(item, by_alias, secrets) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, by_alias, secrets) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str.__str__(value) if isinstance(value, str) else value


def _readable(value: Any, kind: Any) -> tuple[Any, bool]:
    """Return what can be read of a field's value, None if nothing can, and whether all could."""
    if get_origin(kind) is not tuple or not isinstance(value, list | tuple):
        try:
            return _read(value, kind), True
        except ValueError:
            return None, False
    kept = []
    for each in value:
        with suppress(ValueError):
            kept.append(_read(each, get_args(kind)[0]))
    return tuple(kept), len(kept) == len(value)


def _read(value: Any, kind: Any) -> Any:
    """Return what plain data means as a field's type.

    Raises:
        ValueError: It means nothing.
    """
    if isinstance(kind, UnionType):
        (inner,) = (each for each in kind.__args__ if each is not type(None))
        return None if value is None else _read(value, inner)
    if kind is Any or (get_origin(kind) is Mapping and isinstance(value, Mapping)):
        return value
    read = _READERS.get(kind)
    if read is not None:
        return read(value)
    if isinstance(kind, type) and issubclass(kind, Model):
        return value if isinstance(value, kind) else kind.from_dict(value)
    if isinstance(kind, type) and issubclass(kind, OpenEnum) and isinstance(value, str):
        return kind(value)
    raise ValueError


def _only(fits: Callable[[Any], bool], value: Any) -> Any:
    if not fits(value):
        raise ValueError
    return value


def _instant(value: Any) -> datetime:
    """Return an aware instant; without an offset it is UTC."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        raise ValueError  # noqa: TRY004 - it is the value that is wrong, as with all readers
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the instant is of no year that Python has") from None


def _interview_status(value: Any) -> InterviewStatus:
    """Return the status of edition A's word or edition B's number."""
    if is_whole(value):
        return InterviewStatus.of_code(value)
    return InterviewStatus(_only(lambda each: isinstance(each, str), value))


_READERS: Mapping[Any, Callable[[Any], Any]] = {
    str: partial(_only, lambda value: isinstance(value, str)),
    bool: partial(_only, lambda value: isinstance(value, bool)),
    int: partial(_only, is_whole),
    float: partial(_only, is_number),
    datetime: _instant,
    InterviewStatus: _interview_status,
}


def _pydantic(kind: Any, core: Any, handler: Any) -> Any:
    """Return pydantic's schema of a field's type; an open enum is any text."""
    if isinstance(kind, UnionType):
        (inner,) = (each for each in kind.__args__ if each is not type(None))
        return core.nullable_schema(_pydantic(inner, core, handler))
    if get_origin(kind) is tuple:
        return core.list_schema(_pydantic(kind.__args__[0], core, handler))
    if get_origin(kind) is Mapping:
        return core.dict_schema(core.str_schema(), core.any_schema())
    if isinstance(kind, type) and issubclass(kind, OpenEnum):
        return core.str_schema(metadata={"pydantic_js_extra": {"examples": [*map(str, kind)]}})
    return handler.generate_schema(kind)
