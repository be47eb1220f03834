"""From a response that says no to the right error. Source: /guides/error-handling."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from gather_async.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    GatherAPIError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
)
from gather_async.protocol.codec import MismatchError, decode
from gather_async.protocol.responses import ErrorBody, Response, read_error, redact, truncate
from gather_async.protocol.server_quota import read_hints, read_number
from gather_async.validators import is_number

__all__ = ["api_error", "publishable", "seconds_until_reset", "server_time"]

_SHOWN = 300
_DEEPEST = 4  # levels of an error's details that a pickle holds
_LONGEST_CREDIBLE = 3660.0  # seconds: the longest documented window, and skewed clocks
_SMALLEST_UNIX, _SMALLEST_MILLIS = 1e9, 1e11  # 2001, and 1973 in milliseconds
_LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 86_400
_ERRORS: Mapping[int, type[GatherAPIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitedError,
}
# Which status each documented code comes with, for envelopes that come under 2xx.
_STATUS_OF: Mapping[str | None, int] = {
    "VALIDATION_ERROR": 400,
    "UNAUTHORIZED": 401,
    "NOT_FOUND": 404,
    "RATE_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
}
_NEXT_STEPS: Mapping[int, str] = {
    401: "Check the API key (GATHER_API_KEY): it is missing, wrong or revoked.",
    403: "This API key may not do this: ask an administrator for its permissions.",
    404: "Check the id, and that it belongs to this API key's organization.",
    408: "Try again later.",
    409: "The object exists already or its state forbids the change: read it first.",
    429: "The key's quota is used up: see `.reset_at`.",
}
_LOOK_FIRST = "It may have been carried out: look before you send it again."
# A server may repeat what it refused: keys, addresses and phone numbers. An address is
# only looked for where a word starts: anywhere else would take quadratic time.
_PRIVATE = re.compile(
    r"qapi_[\w-]+"
    r"|(?<![^\s\"'<>])[^\s\"'<>]*?(?:@|%40)[^\s\"'<>]+"
    r"|\+?\d[\d\s()./\u2010-\u2015\u2212-]{5,}\d"
)
# What would break a log's line, hide in it, or stop it from being written.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def api_error(
    response: Response, call: str, *, is_write: bool, now: float, secret: str = ""
) -> GatherAPIError:
    """Return the error that a response means.

    Args:
        response: The response: outside 2xx, or an error envelope under 2xx.
        call: Method and path, for the message.
        is_write: Whether the request was a write, which a 5xx may have carried out.
        now: Wall time in Unix seconds.
        secret: The API key, which the error leaves out even if the server repeats it.
    """
    body = redact(response.body, secret.encode())
    said = read_error(body)
    status = _status(response.status, said)
    maybe_processed = is_write and (status >= 500 or status == 408)
    failure = _class_for(status)(
        _summary(
            response.status,
            call,
            said.code,
            _server_message(status, said.message, said.details),
            next_step=_LOOK_FIRST if maybe_processed else _next_step(status),
        ),
        status=status,
        code=said.code,
        message=said.message or _phrase(status),
        details=said.details,
        request_id=said.request_id,
        body=truncate(body),
        headers={name.lower(): redact(value, secret) for name, value in response.headers.items()},
    )
    failure.maybe_processed = maybe_processed
    failure.published = {
        "message": publishable(failure.message),
        "details": _published(failure.details),
    }
    if isinstance(failure, RateLimitedError):
        wait = seconds_until_reset(response.headers, said.details, now=now)
    else:
        # Each response names the quota's reset; only a refusal's means that one must wait for it.
        wait = _longest_credible(_hinted(response.headers, now=now, is_refused=False))
    failure.retry_after = wait
    if isinstance(failure, RateLimitedError) and wait is not None:
        failure.reset_at = datetime.fromtimestamp(min(now + wait, _LATEST), UTC)
    return failure


def _status(status: int, said: ErrorBody) -> int:
    """Return the response's status; for an envelope under 2xx, the one that it stands for."""
    if status >= 300:
        return status
    return said.status or _STATUS_OF.get(said.code, 400)


def seconds_until_reset(
    headers: Mapping[str, str], details: Mapping[str, Any], *, now: float
) -> float | None:
    """Return how long a 429 asks to wait, in seconds, at least 0; None if it doesn't say.

    Of the headers that name a reset, ``details.resetAt`` and its like, and ``Retry-After``,
    the one that names the longest wait within reason: to come back too early is to be
    refused again. Source: /getting-started/rate-limits
    """
    hints = _hinted(headers, now=now, is_refused=True)
    reset_at: Any = details.get("resetAt")
    with suppress(MismatchError):
        hints.append(decode(reset_at, datetime).timestamp() - now)
    if is_number(reset_at) and _SMALLEST_UNIX <= reset_at < _LATEST * 1000:
        hints += _wait_for(f"{reset_at:.3f}", now=now)
    waits: list[Any] = [details.get(key) for key in ("retryAfter", "retry_after")]
    hints += [float(wait) for wait in waits if is_number(wait) and 0 <= wait < _SMALLEST_UNIX]
    return _longest_credible(hints)


def _longest_credible(hints: Sequence[float]) -> float | None:
    """Return the longest hint that can be meant; if none can, the shortest."""
    waits = [max(0.0, hint) for hint in hints]
    credible = [wait for wait in waits if wait <= _LONGEST_CREDIBLE]
    return max(credible) if credible else min(waits, default=None)


def server_time(headers: Mapping[str, str]) -> float | None:
    """Return the server's clock by its ``Date`` header, in Unix seconds; None if it has none."""
    date = headers.get("date")
    return None if date is None else _http_date(date)


@lru_cache(maxsize=8)
def _http_date(date: str) -> float | None:
    """Read an HTTP date; cached, since a busy client sees each second's many times."""
    try:
        parsed = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    # "-0000" is UTC too, but Python leaves it naive, which would be this machine's zone.
    return (parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed).timestamp()


def _hinted(headers: Mapping[str, str], *, now: float, is_refused: bool) -> list[float]:
    """Return what ``Retry-After`` and its like ask for, in seconds; empty if nothing."""
    hints: list[float] = []
    for text, unit in read_hints(headers, is_refused=is_refused):
        hints += [unit * wait for wait in _wait_for(text, now=now)]
    return hints


def _wait_for(text: str, *, now: float) -> list[float]:
    """Return the seconds that a text means, which may be an instant; empty if nothing.

    A small number is no date in 1970, but seconds; a large one is Unix seconds or
    milliseconds.
    """
    number = read_number(text)
    if number is not None and number < _SMALLEST_UNIX:
        return [number]
    if number is not None:
        return [(number if number < _SMALLEST_MILLIS else number / 1000) - now]
    with suppress(MismatchError):
        return [decode(text, datetime).timestamp() - now]
    date = _http_date(text)
    return [] if date is None else [date - now]


def _text_in(mapping: Mapping[str, Any], key: str) -> str | None:
    value = mapping.get(key)
    return value if isinstance(value, str) else None


def _class_for(status: int) -> type[GatherAPIError]:
    """Return the error class; a status that the documentation doesn't list goes by its class."""
    return _ERRORS.get(status, ServerError if status >= 500 else GatherAPIError)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown status"


def _server_message(status: int, message: str, details: Mapping[str, Any]) -> str:
    """Return what the server says went wrong."""
    parts = [message or _phrase(status)]
    for key in ("field", "reason"):
        text = _text_in(details, key)
        if text and not re.search(rf"\b{re.escape(text)}", parts[0]):
            parts.append(f"{key}: {text}")
    return "; ".join(parts)


def _summary(status: int, call: str, code: str | None, message: str, *, next_step: str) -> str:
    """Write the message that `str` shows: what, why, and what to do."""
    said = publishable(message)
    if not said.endswith((".", "!", "?")):
        said += "."
    kind = publishable(code or _phrase(status))
    return f"{call}: {status} {kind}: {said} {next_step}"


def publishable(text: str) -> str:
    """Return as much of the server's words as may be published."""
    return _PRIVATE.sub("[redacted]", _UNPRINTABLE.sub(" ", text))[:_SHOWN]


def _published(value: Any, depth: int = 0) -> Any:
    """Return as much of JSON as may be published; what is nested deep is left out."""
    if isinstance(value, str):
        return publishable(value)
    if isinstance(value, dict | list) and depth == _DEEPEST:
        return None
    if isinstance(value, dict):
        return {publishable(key): _published(each, depth + 1) for key, each in value.items()}
    return [_published(each, depth + 1) for each in value] if isinstance(value, list) else value


def _next_step(status: int) -> str:
    if status in _NEXT_STEPS:
        return _NEXT_STEPS[status]
    if status >= 500:
        return "The server failed: try again later."
    if status < 400:
        return "Redirects are not followed: check base_url."
    return "Correct the request: `.details` may name the field."
