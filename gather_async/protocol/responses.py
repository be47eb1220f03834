"""From the body of a 2xx answer to models; both envelopes. Source: /getting-started/overview."""

import json
from collections.abc import Mapping
from typing import Any, AnyStr, TypeVar

from attrs import field, frozen

from gather_async.errors import ResponseDecodeError
from gather_async.protocol.codec import MismatchError, decode, decode_all, wire_names

__all__ = [
    "Response",
    "decode_item",
    "decode_items",
    "find_list",
    "find_object",
    "parse_json",
    "redact",
    "truncate",
]

T = TypeVar("T")
_KEPT_BODY = 65_536
_STRUCK = "[redacted]"
_SHORTEST_SECRET = 8  # a shorter one is nobody's key, and may be a part of any word


@frozen
class Response:
    """What the server sent. Its ``repr`` shows neither headers nor body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """By name, in whatever case."""
    body: bytes = field(repr=False)


def redact(text: AnyStr, secret: AnyStr) -> AnyStr:
    """Return what a server sent without the API key, should it repeat it: errors keep it."""
    if len(secret) < _SHORTEST_SECRET:
        return text
    if isinstance(text, str):
        return text.replace(secret, _STRUCK)
    return text.replace(secret, _STRUCK.encode())


def parse_json(body: bytes, *, is_write: bool) -> Any:
    """Return the JSON of a 2xx body; None if the body is empty.

    Raises:
        ResponseDecodeError: It is not JSON, at ``$``.
    """
    if not body.strip():
        return None
    try:
        return json.loads(str(body, "utf-8"))  # RFC 8259, section 8.1: always UTF-8
    except (ValueError, RecursionError) as error:
        problem = "it is nested too deep" if isinstance(error, RecursionError) else "it is not JSON"
        raise _decode_error("$", problem, body, is_write=is_write) from None


def find_object(payload: Any, singular: str, model: type) -> tuple[Any, str]:
    """Return the object in an answer and its path, nested or flat.

    Edition A puts it at ``data``, edition B and some resources at ``data.<singular>``.
    """
    data, path = _data(payload)
    if not isinstance(data, dict) or singular not in data:
        return data, path
    inner = data[singular]
    # A flat object may happen to have a field of that name: then it is `data` that
    # has the model's own fields.
    if len(data) > 1 and _fit(inner, model) < _fit(data, model):
        return data, path
    return inner, f"{path}.{singular}"


def _fit(value: Any, model: type) -> int:
    """Return how many of the model's fields a value has."""
    return len(wire_names(model) & value.keys()) if isinstance(value, dict) else 0


def _data(payload: Any) -> tuple[Any, str]:
    """Return what an envelope holds; what is no envelope is returned as it is."""
    return (payload.get("data"), "$.data") if isinstance(payload, dict) else (payload, "$")


def find_list(payload: Any, plural: str) -> tuple[Any, str]:
    """Return the array in an answer and its path: ``data``, or ``data.<plural>``."""
    data, path = _data(payload)
    if path == "$":
        return None, path
    if isinstance(data, dict):
        return data.get(plural), f"$.data.{plural}"
    return data, "$.data"


def decode_item(payload: Any, singular: str, model: type[T], *, is_write: bool = False) -> T:
    """Return the one model in an answer.

    Raises:
        ResponseDecodeError: There is none, or it doesn't fit.
    """
    value, path = find_object(payload, singular, model)
    try:
        return decode(value, model)
    except MismatchError as failure:
        raise _decode_error(path + failure.path, str(failure), payload, is_write=is_write) from None


def decode_items(
    payload: Any, plural: str, model: type[T], *, is_write: bool = False
) -> tuple[T, ...]:
    """Return the models in a list answer.

    Raises:
        ResponseDecodeError: There is no array, or one of its items doesn't fit.
    """
    values, path = find_list(payload, plural)
    if not isinstance(values, list):
        raise _decode_error(path, "an array was expected", payload, is_write=is_write)
    try:
        return decode_all(values, model)
    except MismatchError as failure:
        raise _decode_error(path + failure.path, str(failure), payload, is_write=is_write) from None


def truncate(body: bytes) -> str:
    """Return as much of a body as an error keeps: its first 64 KiB, as text."""
    return body[:_KEPT_BODY].decode("utf-8", "replace")


def _decode_error(path: str, problem: str, body: Any, *, is_write: bool) -> ResponseDecodeError:
    """Build the error; a body that was parsed already is written out again."""
    raw = body if isinstance(body, bytes) else _reencode(body)
    return ResponseDecodeError(
        f"The server said that it succeeded, but its answer makes no sense at {path}: {problem}. "
        "See `.body`; report it to the vendor if it persists.",
        body=truncate(raw),
        path=path,
        maybe_processed=is_write,
    )


def _reencode(payload: Any) -> bytes:
    """Return JSON again; nothing if it is nested too deep for that, though it could be read."""
    try:
        return json.dumps(payload).encode()
    except RecursionError:
        return b""
