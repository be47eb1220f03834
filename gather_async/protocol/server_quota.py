"""The server's view of the quota: its headers, and how they correct our own count.

Each response says how many requests the server counted when it stamped this one.
How many of them can have been ours is known within bounds; the rest is the
same key used elsewhere. That number of `Window.external` is moved only as far as
a response proves it wrong, so it never grows while the key is ours alone, and
it falls as soon as the other use ends.

Source: /getting-started/rate-limits (names; reset in Unix seconds; sent with
every response). Which of the windows they describe is stated nowhere.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import lru_cache

from attrs import define
from multidict import istr

from gather_async.protocol.rolling_windows import RollingWindows, Window

__all__ = [
    "Hold",
    "ServerQuota",
    "ServerQuotaTracker",
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


@define
class ServerQuota:
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

_SLACK = 60.0  # seconds by which a hold may exceed the longest window: skewed clocks
_JITTER = 1.0  # seconds


class Hold:
    """A number that only grows; a hold that could be lifted would be, by the wrong one.

    Args:
        longest: Seconds of the longest window; no hold needs to be much longer.
        draw: Returns a number from 0 to 1, by which up to a second of jitter is added, so that
            several processes don't start again together; None adds none.

    Attributes:
        until: The instant before which nothing starts; ``-inf`` at first.
    """

    __slots__ = ("_asked", "_draw", "_longest", "until")

    def __init__(self, longest: float, draw: Callable[[], float] | None) -> None:
        self.until: float = -math.inf
        self._asked = -math.inf
        self._longest = longest
        self._draw = draw

    def grow(self, seconds: float, now: float) -> bool:
        """Hold for at least that many seconds from now; return whether that changed anything.

        Many refusals at once name about the same instant: they draw jitter once.
        """
        at = now + min(seconds, self._longest + _SLACK)
        if not (seconds > 0.0 and at > self.until and at > self._asked):
            return False
        self.until = at
        if self._draw is not None:
            self.until += self._draw() * min(_JITTER, seconds)
            self._asked = at + min(_JITTER, seconds)
        return True


_ROUNDING = 1e-6  # seconds; far above a float's last bit, far below any latency
_RESET_SLACK = 2.0  # seconds; the reset comes in whole seconds, from another clock
_MOST_SPENT = 1024
_MOST_LEARNED = 4  # windows; a server that names a new limit each time must not fill memory


class ServerQuotaTracker:
    """Fits what the server says into the windows. Never lets a window grow.

    Args:
        windows: The windows to correct, and to add learned limits to.
    """

    __slots__ = ("_configured", "_learned", "_longest_latency", "_periods", "_spent", "_windows")

    def __init__(self, windows: RollingWindows) -> None:
        self._windows = windows
        self._periods = sorted({each.period for each in windows.windows})
        self._configured: dict[int, list[Window]] = {}
        for window in windows.windows:
            self._configured.setdefault(window.limit, []).append(window)
        self._learned: dict[int, Window] = {}  # the least recently named first
        self._longest_latency = 0.0
        self._spent: list[float] = []  # answers that said 0: refused, so perhaps not counted

    def observe(
        self, quota: ServerQuota, *, sent_at: float, now: float, reset_in: float | None
    ) -> None:
        """Record one response's headers, while its request still counts as in flight.

        Args:
            quota: What the headers said.
            sent_at: When the request was let go.
            now: When its response came.
            reset_in: Seconds from now until the reset; None if not said.
        """
        latency = now - sent_at
        self._longest_latency = max(latency, 0.9 * self._longest_latency + 0.1 * latency)
        counted = quota.limit - quota.remaining
        window = self._match(quota.limit, counted, now, reset_in)
        if self._learned:
            self._unlearn(window, quota, sent_at, now)
        ours_now = self._windows.used(window, now) - window.external
        if window.external or counted > ours_now:  # else no search is needed
            self._correct(window, counted, sent_at=sent_at, now=now, reset_in=reset_in)
        if not quota.remaining:
            self._spent.append(now)
            del self._spent[:-_MOST_SPENT]

    def _correct(
        self, window: Window, counted: int, *, sent_at: float, now: float, reset_in: float | None
    ) -> None:
        """Move the external use into the bounds that this response proves."""
        since = sent_at - window.period - _ROUNDING
        most_of_ours = self._windows.in_flight + self._windows.count(since)
        least_of_ours = self._certain(window, sent_at, now)
        least, most = counted - most_of_ours, counted - least_of_ours
        window.external = max(0, least, min(window.external, most))
        if window.external:
            window.external_until = now + window.period
            is_near = reset_in is not None and 0.0 < reset_in <= window.period
            window.probe_at = now + (reset_in if is_near and reset_in else window.period)

    def _certain(self, window: Window, sent_at: float, now: float) -> int:
        """Return how many of ours the server counted at the least, this one included."""
        since = now - window.period + self._longest_latency + _ROUNDING
        spent = self._spent
        doubtful = bisect_right(spent, sent_at) - bisect_right(spent, since)
        return 1 + self._windows.count(since, sent_at) - max(0, doubtful)

    def _match(self, limit: int, counted: int, now: float, reset_in: float | None) -> Window:
        """Return the window that the headers describe; learn it if it is not configured."""
        same = self._configured.get(limit)
        if same is None:
            return self._learn(limit, counted, now, reset_in)
        if len(same) == 1:
            return same[0]
        period = self._likeliest([each.period for each in same], counted, now, reset_in)
        return next(each for each in same if each.period == period)

    def _likeliest(
        self, periods: list[float], counted: int, now: float, reset_in: float | None
    ) -> float:
        """Return the period whose count of ours explains the server's best; the shortest wins."""
        horizon = (reset_in or 0.0) - _RESET_SLACK
        possible = [each for each in periods if each >= horizon] or periods[-1:]
        flying = self._windows.in_flight
        return min(
            possible, key=lambda each: abs(counted - flying - self._windows.count(now - each))
        )

    def _learn(self, limit: int, counted: int, now: float, reset_in: float | None) -> Window:
        period = self._likeliest(self._periods, counted, now, reset_in)
        window = self._learned.pop(limit, None)
        if window is None:
            window = self._windows.add_learned(limit, period)
        elif window.period != period:
            window.period, window.oldest = period, 0
        self._learned[limit] = window
        if len(self._learned) > _MOST_LEARNED:
            self._drop(next(iter(self._learned)))
        return window

    def _unlearn(self, named: Window, quota: ServerQuota, sent_at: float, now: float) -> None:
        """Drop a learned limit that must be full by now, while the server reports room.

        A server that still had it would have named it, being the tighter.
        """
        if not quota.remaining:
            return
        counted = quota.limit - quota.remaining
        for limit, window in list(self._learned.items()):
            if window is named:
                continue
            is_seen_full = named.period <= window.period and counted >= limit
            if is_seen_full or self._certain(window, sent_at, now) >= limit:
                self._drop(limit)

    def _drop(self, limit: int) -> None:
        self._windows.windows.remove(self._learned.pop(limit))
