"""From a response's body to models, or to what its error says; both envelopes.

Source: /getting-started/overview, /guides/error-handling
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any, AnyStr, TypeVar

from attrs import define, field, frozen

from gather_async.errors import ResponseDecodeError
from gather_async.models.fields import Model
from gather_async.protocol.codec import MismatchError, decode, decode_all, wire_names

# The extra ``speed``; without it the standard library does all the work.
_fast: Any = import_module("orjson").loads if find_spec("orjson") else None

__all__ = [
    "ErrorBody",
    "Response",
    "decode_item",
    "decode_items",
    "find_list",
    "find_object",
    "is_error_envelope",
    "parse_json",
    "read_error",
    "redact",
    "request_id_of",
    "truncate",
]

T = TypeVar("T")
_KEPT_BODY = 65_536
_STRUCK = "[redacted]"
_SHORTEST_SECRET = 8  # a shorter one is no key, and may be a part of any word


@define  # a frozen one takes three times as long to make
class Response:
    """A response of the server. Its ``repr`` shows neither headers nor body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """By name, in whatever case."""
    body: bytes = field(repr=False)

    @property
    def request_id(self) -> str | None:
        """``meta.requestId`` of a JSON body, for the vendor's support; None if it has none."""
        try:
            return request_id_of(_loads(self.body))
        except (ValueError, RecursionError):
            return None


def request_id_of(payload: Any) -> str | None:
    """Return the request id that JSON names; None if there is none."""
    if not isinstance(payload, dict):
        return None
    meta = payload.get("meta")
    if type(meta) is dict and type(found := meta.get("requestId")) is str and found.strip():
        return found  # as documented, and so nearly always
    found = _first_text(_member(payload, "meta"), _REQUEST_IDS)
    return found or _first_text(payload, _REQUEST_IDS) or None


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
        return _loads(body)
    except (ValueError, RecursionError) as error:
        problem = "it is nested too deep" if isinstance(error, RecursionError) else "it is not JSON"
        raise _decode_error("$", problem, body, is_write=is_write) from None


_DECODER = json.JSONDecoder()
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def _loads(body: bytes) -> Any:
    if _fast is not None:
        try:
            return _fast(body)
        except ValueError:
            pass  # it refuses what a JavaScript server may send, such as lone surrogates
    # RFC 8259, section 8.1: always UTF-8. A parser may ignore a byte order mark, and some
    # servers write one; only then does the standard library detect the encoding.
    if body.startswith(_MARKS):
        return json.loads(body)
    text = str(body, "utf-8")
    try:
        payload, end = _DECODER.raw_decode(text)
    except ValueError:
        payload, end = None, -1
    # White space before or after it is rare: `loads` looks for it in any case.
    return payload if end == len(text) else json.loads(text)


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


def find_list(payload: Any, plural: str, *, null_is_empty: bool = True) -> tuple[Any, str]:
    """Return the array in an answer and its path: ``data``, or ``data.<plural>``.

    Null at either place is an empty list, as some languages write one; it is None for a
    caller who takes emptiness for a proof.
    """
    data, path = _data(payload)
    if path == "$":
        return None, path
    place, key = (data, plural) if isinstance(data, dict) else (payload, "data")
    value = _none_as_empty(place, key) if null_is_empty else place.get(key)
    return value, f"$.data.{plural}" if place is data else "$.data"


def _none_as_empty(place: Mapping[str, Any], key: str) -> Any:
    """Return what a place has under a key; an empty list if that is null, None if nothing."""
    value = place.get(key)
    return [] if value is None and key in place else value


def decode_item(payload: Any, singular: str, model: type[T], *, is_write: bool = False) -> T:
    """Return the one model in an answer.

    Raises:
        ResponseDecodeError: There is none, or it doesn't fit.
    """
    value, path = find_object(payload, singular, model)
    try:
        return _with_request_id(decode(value, model), request_id_of(payload))
    except MismatchError as failure:
        raise _decode_error(path + failure.path, str(failure), payload, is_write=is_write) from None


def _with_request_id(model: T, request_id: str | None) -> T:
    """Return the model, which remembers the id of the request that returned it."""
    if request_id is not None and isinstance(model, Model):
        object.__setattr__(model, "_request_id", request_id)
    return model


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


@frozen
class ErrorBody:
    """The content of an error body, of the API, a gateway or a framework."""

    code: str | None = None
    message: str = field(default="", repr=False)
    """The server's own words; empty if it said nothing."""
    details: Mapping[str, Any] = field(factory=dict, repr=False)
    request_id: str | None = None
    status: int | None = None
    """The HTTP status that the body names; None if it names none."""


def is_error_envelope(payload: Any) -> bool:
    """Return whether JSON is an error envelope, under whatever status.

    Beside the documented one, that is what frameworks write in place of a result:
    ``success: false``, a list of ``errors``, or a ``status`` that is a word for failure, or
    the number of one, beside null or a message. Who took its null for an empty list would
    miss everyone there is.
    """
    if not isinstance(payload, dict) or payload.get("data"):
        return False
    is_refused = payload.get("success") is False
    if is_refused or (payload.get("errors") and isinstance(payload["errors"], list | dict)):
        return True
    error, status = payload.get("error"), payload.get("status")
    if payload.get("data") is not None:
        return False
    if error and isinstance(error, dict | str):
        return True
    is_failed = (isinstance(status, str) and status.lower() in _FAILED) or any(
        _is_failure(payload.get(key)) for key in ("status", "statusCode")
    )
    # Alone, it may be the state of what a caller asked for by a request of their own.
    return is_failed and ("data" in payload or bool(_message(payload)))


_FAILED = frozenset({"error", "fail", "failed", "failure"})

# Where gateways, frameworks and the standards put their words, the most telling first:
# RFC 9457 (title, detail), RFC 6749 (error_description), FastAPI and Django (detail), AWS
# (message, Message), Spring and Nest (message, error), JSON:API and ASP.NET (errors).
_MESSAGES = ("message", "Message", "error_description", "errorMessage", "detail", "reason")
_LISTS = ("errors", "detail", "message", "details")
_CODES = ("code", "errorCode", "error_code")
_STATUSES = ("status", "statusCode", "code")
_REQUEST_IDS = ("requestId", "request_id")
_READ = frozenset({*_MESSAGES, *_CODES, *_STATUSES, *_REQUEST_IDS, "title", "error", "meta"})
_CODE = re.compile(r"[A-Za-z][\w.-]{0,63}")
_MOST_FAULTS = 5  # of a list that are put into words; all of them are in `details`
_READ_PAGE, _SHOWN_PAGE = 4096, 200  # characters of what is no JSON


def read_error(body: bytes) -> ErrorBody:
    """Return what an error's body says; empty where it says nothing that can be read."""
    try:
        payload = _loads(body)
    except (ValueError, RecursionError):
        return ErrorBody(message=_page_text(truncate(body)))
    if not isinstance(payload, dict):
        listed = {"errors": payload} if payload and isinstance(payload, list) else {}
        return ErrorBody(message=_in_words(payload), details=listed)
    inner = payload.get("error")
    error = inner if isinstance(inner, dict) else payload
    message, details = _message(error), _details(error)
    if isinstance(inner, str):
        message = message or _first_text(payload, ("error",))
    if not message and all(isinstance(each, list) for each in details.values()):
        message = _in_words(details)  # a form's fields, each with its faults
    return ErrorBody(
        code=_code({"code": inner, **error} if isinstance(inner, str) else error),
        message=message,
        details=details,
        request_id=request_id_of(payload),
        status=next((error[key] for key in _STATUSES if _is_failure(error.get(key))), None),
    )


def _member(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}


def _first_text(mapping: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return the first text that isn't blank; empty if there is none."""
    texts = (value for key in keys if isinstance(value := mapping.get(key), str) and value.strip())
    return next(texts, "")


def _is_failure(status: Any) -> bool:
    return type(status) is int and 300 <= status <= 599


def _code(error: Mapping[str, Any]) -> str | None:
    """Return a word that is a code; Google's is in ``status``, where others have a number."""
    words = [word for key in _CODES if _CODE.fullmatch(word := _first_text(error, (key,)))]
    status, number = _first_text(error, ("status",)), error.get("code")
    if status.isupper():
        words.append(status)
    return next(iter(words), str(number) if type(number) is int else None)


def _message(error: Mapping[str, Any]) -> str:
    """Return title, text and list of faults, as far as there are any, as one text."""
    lists = (value for key in _LISTS if isinstance(value := error.get(key), list))
    faults = next(lists, None) or _member(error, "errors")
    parts = (_first_text(error, ("title",)), _first_text(error, _MESSAGES), _in_words(faults))
    return ": ".join(dict.fromkeys(part for part in parts if part))


def _details(error: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the documented ``details``, or else all that has no place of its own."""
    return _member(error, "details") or {
        key: value
        for key, value in error.items()
        if value and (key not in _READ or (key in _LISTS and isinstance(value, list | dict)))
    }


def _in_words(faults: Any) -> str:
    """Return faults as one text, such as ``body.email: field required; ...``."""
    return "; ".join(islice(_faults(faults, ""), _MOST_FAULTS))


def _faults(faults: Any, place: str) -> Iterator[str]:
    """Give each fault, led by where it is; never the value that was sent."""
    if isinstance(faults, str) and faults.strip():
        yield f"{place}: {faults}" if place else faults
    elif isinstance(faults, dict):
        for name, inner in faults.items():
            if isinstance(inner, str | list):
                yield from _faults(inner, name)
    elif isinstance(faults, list):
        for fault in faults:
            if isinstance(fault, dict):
                text = _first_text(fault, ("msg", *_MESSAGES, "title", "code"))
                yield from _faults(text, _where(fault) or place)
            elif isinstance(fault, str):
                yield from _faults(fault, place)


def _where(fault: Mapping[str, Any]) -> str:
    """Return which part of the request a fault is about; empty if it doesn't say."""
    steps = next((loc for key in ("loc", "path") if isinstance(loc := fault.get(key), list)), None)
    if steps is not None:
        return ".".join([str(step) for step in steps])
    source = _member(fault, "source")
    return _first_text(fault, ("field", "path")) or _first_text(source, ("pointer", "parameter"))


def _page_text(page: str) -> str:
    """Return the title of an HTML page, or the start of another text, on one line."""
    if page.lstrip().startswith(("{", "[")):
        return ""  # JSON that was cut
    if "<" in page:
        from html import unescape  # noqa: PLC0415 - a fiftieth of the import, for few servers

        lowered = page.lower()
        start = lowered.find(">", lowered.find("<title")) + 1 if "<title" in lowered else 0
        end = lowered.find("</title", start)
        page = page[start:end] if 0 < start < end else page
        page = unescape(re.sub(r"<[^<>]*>?", " ", page[:_READ_PAGE]))
    text = " ".join(page[:_READ_PAGE].split())[:_SHOWN_PAGE].rstrip()
    return text if any(character.isalpha() for character in text) else ""
