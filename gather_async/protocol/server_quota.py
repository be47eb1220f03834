"""Quota headers of a response.

Source: /getting-started/rate-limits (names; reset in Unix seconds; sent with
every response). Which of the windows they describe is stated nowhere.
"""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from multidict import istr

__all__ = [
    "ServerQuota",
    "read_hints",
    "read_number",
    "read_rate_headers",
    "read_reset",
    "read_reset_after",
]

_COUNT = re.compile(r"\s*(-?[0-9]{1,15})\s*(?:[,;].*)?", re.DOTALL)
_SECONDS = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*")
_HINT = re.compile(
    r'"?\+?([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(?:s|sec|secs|seconds?)?"?', re.IGNORECASE
)
_JOINED = re.compile(r"[\s0-9.,]+")
_POLICY_RESET = re.compile(r"\bt=([0-9]{1,15})")
_RESETS = ("X-RateLimit-Reset", "X-RateLimit-Reset-After", "RateLimit-Reset")
# Names that aiohttp's mapping needn't fold at each look-up.
_LIMIT, _REMAINING = istr("X-RateLimit-Limit"), istr("X-RateLimit-Remaining")
_RESET = istr("X-RateLimit-Reset")
_LONGEST_COUNT = 16
_SMALLEST_UNIX = 1e9  # 2001; a smaller number isn't Unix seconds, and what it means is unknown
_SMALLEST_MILLIS = 1e11  # the year 5138 in seconds, 1973 in milliseconds


class ServerQuota(NamedTuple):
    """One window as the server sees it, for one response.

    Attributes:
        limit: Requests the window allows, from 1.
        remaining: Requests left in it, 0 to ``limit``.
        reset_at: When there is room again, Unix seconds; None if not said or senseless.
    """

    limit: int
    remaining: int
    reset_at: float | None = None


def read_rate_headers(headers: Mapping[str, str]) -> ServerQuota | None:
    """Return what ``X-RateLimit-*`` say, or None if they say nothing usable.

    Names are found in any case. A negative remainder counts as 0, one above the
    limit as the limit: headers can never make the quota look larger than it is.
    Never raises, whatever the values are.

    >>> read_rate_headers({"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "7"})
    ServerQuota(limit=100, remaining=7, reset_at=None)
    """
    limit = _known_count(_find(headers, _LIMIT))
    remaining = _count(_find(headers, _REMAINING))
    if limit is None or remaining is None or limit < 1:
        return None
    if not 0 <= remaining <= limit:
        remaining = 0 if remaining < 0 else limit
    return ServerQuota(limit, remaining, read_reset(headers))


def read_reset(headers: Mapping[str, str]) -> float | None:
    """Return ``X-RateLimit-Reset`` in Unix seconds; None if it is absent or senseless."""
    return _known_reset(_find(headers, _RESET))


def read_hints(headers: Mapping[str, str], *, is_refused: bool) -> list[tuple[str, float]]:
    """Return the texts that say when to come back, each with the seconds of its unit.

    ``Retry-After`` and ``retry-after-ms`` may come from a gateway, on any status. A
    header may come several times, also joined by commas. Source: RFC 9110, 10.2.3

    Args:
        headers: The response's.
        is_refused: Whether the quota is used up, so that its reset counts as well: the
            documented header, and those of gateways and of the IETF's drafts.
    """
    hints = [(text, 1.0) for text in _find_all(headers, "Retry-After")]
    hints += [(text, 0.001) for text in _find_all(headers, "retry-after-ms")]
    for name in _RESETS if is_refused else ():
        hints += [(text, 1.0) for text in _find_all(headers, name)]
    for text in _find_all(headers, "RateLimit") if is_refused else ():
        hints += [(seconds, 1.0) for seconds in _POLICY_RESET.findall(text)]
    parted = [
        (part.strip(), unit)
        for text, unit in hints
        for part in (text.split(",") if _JOINED.fullmatch(text) else [text])
    ]
    return [(text, unit) for text, unit in parted if text]


def read_number(text: str) -> float | None:
    """Return a hint's number, with or without a word for seconds; None if it is none."""
    match = _HINT.fullmatch(text)
    return float(match[1]) if match else None


def read_reset_after(headers: Mapping[str, str]) -> float | None:
    """Return ``X-RateLimit-Reset`` in seconds from now, if it is too small for a date.

    The documented one is a date, but gateways' own limits are commonly relative.
    """
    seconds = read_number((_find(headers, _RESET) or "").strip())
    return seconds if seconds is not None and seconds < _SMALLEST_UNIX else None


def _find(headers: Mapping[str, str], name: str) -> str | None:
    """Return a header; aiohttp's mapping ignores case, a plain dict doesn't."""
    value = headers.get(name)
    if value is not None:
        return value
    value = headers.get(name.lower())
    if value is None and type(headers) is dict:
        lower = name.lower()
        value = next((each for key, each in headers.items() if key.lower() == lower), None)
    return value


def _find_all(headers: Mapping[str, str], name: str) -> list[str]:
    """Return a header each time that it came; only some mappings know of more than one."""
    getall = getattr(headers, "getall", None)
    if getall is not None:
        return list(getall(name, ()))
    value = _find(headers, name)
    return [] if value is None else [value]


def _count(value: str | None) -> int | None:
    if value is None:
        return None
    if len(value) < _LONGEST_COUNT and value.isascii() and value.isdigit():
        return int(value)  # as documented, and so nearly always
    match = _COUNT.fullmatch(value)
    return int(match[1]) if match else None


def _unix_seconds(value: str | None) -> float | None:
    if value is None:
        return None
    if len(value) < _LONGEST_COUNT and value.isascii() and value.isdigit():
        seconds = float(value)  # as documented, and so nearly always
    else:
        match = _SECONDS.fullmatch(value)
        if match is None:
            return None
        seconds = float(match[1])
    if seconds >= _SMALLEST_MILLIS:
        seconds /= 1000
    return seconds if _SMALLEST_UNIX <= seconds < math.inf else None


# A server names few limits, and one reset for many requests; what is left differs with each.
_known_count = lru_cache(maxsize=8)(_count)
_known_reset = lru_cache(maxsize=8)(_unix_seconds)
