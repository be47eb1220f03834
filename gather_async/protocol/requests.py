"""A request and its body as values, and the look-up that settles a lost one's fate."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from attrs import define, field, frozen

from gather_async.errors import InvalidRequestError
from gather_async.validators import is_number

__all__ = [
    "Lookup",
    "PREFIX",
    "Private",
    "QueryValue",
    "Request",
    "encode_body",
    "path_below",
    "path_to",
    "raw_path",
    "validate_id",
    "with_extra",
]

PREFIX = "/qsi/gather/"  # Source: /getting-started/overview
QueryValue = str | int | float | bool | UUID | None
"""A query parameter; None is not sent."""
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]+")
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_PLAIN = frozenset({str, bool, int, type(None)})
# The extra ``speed``; without it the standard library does all the work.
_fast: Any = import_module("orjson").dumps if find_spec("orjson") else None
_UNSAFE = frozenset("/\\?#%;")


@frozen(kw_only=True)
class Lookup:
    """The place in which the object of a lost write would be found.

    Its ``repr`` shows no personal data.
    """

    request: "Request"
    """A list request that would show it."""
    read: Callable[[str], "Request"] = field(repr=False)
    """Returns the request that reads one object by id."""
    plural: str
    """The list's key in ``data``, such as ``candidates``."""
    singular: str
    """The key of one object in ``data``, where it is nested."""
    model: type
    filter: Mapping[str, Any] = field(repr=False)
    """What the list was asked for, by wire name: any other object is not meant."""
    sent: Mapping[str, Any] = field(factory=dict, repr=False)
    """Values that show by themselves that an object is the one, by wire name; none where an
    older object may have the same, so that only time decides."""
    before: Collection[str] | None = field(default=None, repr=False)
    """Ids of all such objects before the attempt; None if that is unknown."""

    def contradicts(self, item: Mapping[str, Any]) -> bool:
        """Return whether a listed object shows that it is not what the list was asked for."""
        return any(
            item.get(name) is not None and item[name] != value
            for name, value in self.filter.items()
        )

    def shows_filter(self, item: Mapping[str, Any]) -> bool:
        """Return whether a listed object shows that it is what the list was asked for."""
        return all(item.get(name) == value for name, value in self.filter.items())


@define(kw_only=True, eq=False)  # a frozen one takes three times as long to make
class Request:
    """One call of the API. Its ``repr`` shows neither query nor body."""

    method: str
    path: str
    """Percent-encoded, starting with a slash."""
    query: Mapping[str, Any] = field(factory=dict, repr=False)
    """Unencoded; entries that are None are not sent."""
    body: Any = field(default=None, repr=False)
    """JSON; None sends no body."""
    lookup: Callable[[], Lookup] | None = field(default=None, repr=False)
    """How a write of unknown fate can be looked up; None if it can't. A function,
    since hardly any response is lost."""
    is_raw: bool = False
    """Whether the whole 2xx `Response` is returned, not its JSON."""
    needs_body: bool = True
    """Whether a 2xx without a readable body is a lost response too."""

    @property
    def is_write(self) -> bool:
        """Whether sending it twice could do something twice."""
        return self.method not in {"GET", "HEAD", "OPTIONS"}

    @property
    def target(self) -> str:
        """The path with its query, percent-encoded.

        Raises:
            InvalidRequestError: A parameter is no single value, or can't be encoded.
        """
        if not self.query:
            return self.path
        query = {name: _text(value) for name, value in self.query.items() if value is not None}
        try:
            return f"{self.path}?{urlencode(query)}" if query else self.path
        except UnicodeEncodeError:
            raise InvalidRequestError("A query parameter holds a lone surrogate.") from None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Private(dict[str, Any]):
    """A body, or what one is made of; its ``repr`` shows the names alone."""

    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"


def with_extra(body: Mapping[str, Any], extra: Mapping[str, Any] | None) -> Private:
    """Return a body or query without what is None, and with the caller's extra as is.

    Raises:
        InvalidRequestError: What should be an id is no text.
    """
    given = Private()
    for name, value in body.items():
        if value is None:
            continue
        if type(value) is not str:  # text is a good id, and nearly always what there is
            if name.endswith("Id"):
                validate_id(name, value)
            elif name.endswith("Ids"):
                for each in value:
                    validate_id(f"Each of {name}", each)
        given[name] = value
    if extra is not None:
        if not isinstance(extra, Mapping):
            raise InvalidRequestError('extra must map names to values, as {"name": "value"} does.')
        given.update(extra)
    return given


def encode_body(body: Any) -> bytes | None:
    """Return a request's body as JSON; None if it has none.

    Raises:
        InvalidRequestError: It can't be JSON; the message says where.
    """
    if body is None:
        return None
    # What orjson would write that JSON has no word for, such as NaN, isn't among these.
    if _fast is not None and isinstance(body, dict) and _PLAIN.issuperset(map(type, body.values())):
        try:
            encoded: bytes = _fast(body)
            return encoded
        except TypeError:
            pass  # a lone surrogate, or a key that is no text: the error is made below
    try:
        return _JSON.encode(body).encode()
    except TypeError:
        what = _unfit_for_json(body)
    except (ValueError, RecursionError):
        what = "it holds NaN, an infinity, a lone surrogate or a cycle"
    del body  # error reporters print the locals of frames
    raise InvalidRequestError(f"The body can't be JSON: {what}.")


def path_to(*segments: str) -> str:
    """Return the API path of these segments, each percent-encoded.

    Raises:
        InvalidRequestError: A segment is empty, or could make the path mean
            something else: it holds a slash of either kind, ``?``, ``#``, ``%``, ``;``
            or a control character, or is ``.`` or ``..``.
    """
    return PREFIX + "/".join([_encoded(segment) for segment in segments])


def path_below(path: str, segment: str) -> str:
    """Return the path of one thing in a collection, given the collection's from `path_to`.

    Raises:
        InvalidRequestError: As for `path_to`.
    """
    return f"{path}/{_encoded(segment)}"


def _encoded(segment: str) -> str:
    """Return one checked segment; ids as the API makes them need nothing more."""
    if isinstance(segment, str) and _PLAIN_ID.fullmatch(segment):
        return segment
    validate_id("An id", segment)
    if not segment.strip() or segment in {".", ".."}:
        raise InvalidRequestError("An id must be non-empty text: pass the `id` of a model.")
    if not _UNSAFE.isdisjoint(segment) or not segment.isprintable():
        raise InvalidRequestError(
            "An id can't hold / \\ ? # % ; or control characters: pass the `id` of a model."
        )
    return quote(segment, safe="")


def raw_path(path: str) -> str:
    """Return a caller's own path, percent-encoded.

    Raises:
        InvalidRequestError: It doesn't start with one slash, climbs with ``..``, or
            has a query or fragment in it.
    """
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//"):
        raise InvalidRequestError("A path starts with one slash, such as /qsi/gather/questions.")
    if not _UNSAFE.difference("/").isdisjoint(path) or not path.isprintable():
        raise InvalidRequestError(
            "A path is unencoded and can't hold \\ ? # % ; or control characters: pass params=."
        )
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise InvalidRequestError("A path can't hold . or .. segments.")
    return quote(path)


def _text(value: Any) -> str:
    """Return a query value as JSON spells it: ``true``, not ``True``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # The text itself: `str()` of a member of an `(str, Enum)` class is its name.
        return str.__str__(value)
    if is_number(value) or isinstance(value, UUID):
        return str(value)
    raise InvalidRequestError(
        f"A query parameter is one value, not {_kind(value)}: text, a number or a boolean; "
        "of a model, pass its `.id`."
    )


def validate_id(name: str, value: Any) -> None:
    """Let only text be an id.

    Raises:
        InvalidRequestError: It is something else.
    """
    if not isinstance(value, str):
        advice = _advice(value, "pass the `id` of a model")
        raise InvalidRequestError(f"{name} must be text, not {_kind(value)}: {advice}.")


def _unfit_for_json(value: Any, place: str = "$") -> str:
    """Return what of a value can't be JSON and where, without showing it; empty if all can."""
    if value is None or isinstance(value, str | int | float):
        return ""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            return f"{place} has a key that is not text"
        inner = [(f"{place}.{key}", each) for key, each in value.items()]
    elif isinstance(value, list | tuple):
        inner = [(f"{place}[{index}]", each) for index, each in enumerate(value)]
    else:
        return f"{place} is {_kind(value)}: {_advice(value, 'pass text, such as `str()` of it')}"
    return next(filter(None, (_unfit_for_json(each, at) for at, each in inner)), "")


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"an {name}" if name[:1] in "AEIOaeiou" else f"a {name}"  # a UUID, an int


def _advice(value: Any, otherwise: str) -> str:
    """Return what to pass instead."""
    if isinstance(getattr(value, "id", None), str):
        return "pass its `.id`"
    if hasattr(value, "isoformat"):
        return "pass its `.isoformat()`"
    return otherwise
