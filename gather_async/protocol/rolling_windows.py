"""Rolling windows: may one more request start now, and if not, when?

A request is in flight from the moment it may be sent until its answer. The
server stamps it somewhere in between, so it may still count against a window
until the window's length after the *answer*, and no later. Counting exactly
that, and nothing more, is the whole of this module: no server that stamps
between sending and answer ever sees more than the limit, and no request waits
that every such server would have accepted.

Source: /getting-started/rate-limits (rolling windows, counted per key).
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from copy import copy

import attrs

from gather_async.errors import ConfigurationError
from gather_async.validators import Number

__all__ = [
    "DEFAULT_RATE_LIMITS",
    "RateLimit",
    "RollingWindows",
    "Window",
    "check_rate_limits",
    "expiry",
]


@attrs.frozen
class RateLimit:
    """At most ``limit`` requests in any ``per`` seconds.

    >>> RateLimit(100, per=60) == RateLimit(100, 60)
    True

    Attributes:
        limit: Requests, a whole number from 1.
        per: Length of the rolling window in seconds, positive and finite.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    limit: int = attrs.field(validator=Number(least=1, whole=True, owner="RateLimit"))
    per: float = attrs.field(validator=Number(above=0, unit="seconds", owner="RateLimit"))


DEFAULT_RATE_LIMITS = (RateLimit(100, 60), RateLimit(1000, 3600))
"""The limits of each key. Source: /getting-started/rate-limits"""


def check_rate_limits(rate_limits: Iterable[RateLimit]) -> tuple[RateLimit, ...]:
    """Return the limits as a tuple, doubles removed, shortest period first.

    Raises:
        ConfigurationError: There is none, or one of them is no `RateLimit`.
    """
    if isinstance(rate_limits, RateLimit):
        raise ConfigurationError("rate_limits is a sequence: write (RateLimit(...),).")
    try:
        limits = tuple(rate_limits)
    except TypeError as error:
        raise ConfigurationError("rate_limits must be a sequence of RateLimit.") from error
    if not limits:
        raise ConfigurationError("rate_limits is empty: give at least one RateLimit(limit, per=).")
    for limit in limits:
        if not isinstance(limit, RateLimit):
            raise ConfigurationError(
                f"rate_limits must hold RateLimit(limit, per=), not {type(limit).__name__}."
            )
    return tuple(sorted(set(limits), key=lambda each: (each.per, each.limit)))


def expiry(answered_at: float, period: float) -> float:
    """Return the first float instant at which no server still counts the request.

    A server may compute ``now - stamp < period``, ``stamp > now - period`` or
    ``stamp + period > now``; in floats they can differ by the last bit. From this
    instant on all three say that the stamp has left the window.
    """
    at = answered_at + period
    if at - answered_at < period or at - period < answered_at:
        return math.nextafter(at, math.inf)
    return at


class Window:
    """One window's limit and what is known of its use apart from our own log.

    Attributes:
        limit: Requests, ours and external ones, that fit.
        period: Seconds.
        bulk_limit: The same for bulk work: less the reserve, but at least 1.
        learned: True if the server's headers named it, and it was not configured.
        external: Requests that the server counted and that aren't ours.
        external_until: When those have left the window at the latest.
        probe_at: From then on one request at a time may find out whether they have.
        oldest: Number in the log of the first request that may still count.
    """

    __slots__ = (
        "bulk_limit",
        "external",
        "external_until",
        "learned",
        "limit",
        "oldest",
        "period",
        "probe_at",
    )

    def __init__(self, limit: int, period: float, reserve: int, *, learned: bool = False) -> None:
        self.limit: int = limit
        self.period: float = period
        self.bulk_limit: int = max(1, limit - reserve)
        self.learned: bool = learned
        self.external: int = 0
        self.external_until: float = 0.0
        self.probe_at: float = 0.0
        self.oldest: int = 0


class RollingWindows:
    """Several rolling windows over one log of answers; pure: instants are parameters.

    Instants are floats of one clock that never goes back. One log serves all
    windows: the instants of the last answers, as many as the largest limit,
    circular, so that memory is bounded and every question costs O(1) amortised.

    Args:
        limits: The windows.
        reserve: Slots of each window that bulk work leaves free; a window always
            leaves bulk at least one.
    """

    __slots__ = ("_head", "_log", "_size", "in_flight", "reserve", "windows")

    def __init__(self, limits: Sequence[RateLimit], *, reserve: int = 0) -> None:
        self.reserve: int = reserve
        self.windows: list[Window] = [Window(each.limit, each.per, reserve) for each in limits]
        self.in_flight: int = 0
        self._size = max(each.limit for each in limits)
        self._log: list[float] = []
        self._head = 0

    def is_free(self, now: float, *, bulk: bool = False) -> bool:
        """Return whether one more request may start now."""
        taken = self.in_flight + self._head
        for window in self.windows:
            limit = window.bulk_limit if bulk else window.limit
            if (
                taken - window.oldest + window.external >= limit
                and self.window_free_at(window, now, bulk=bulk) > now
            ):
                return False
        return True

    def free_at(self, now: float, *, bulk: bool = False) -> float:
        """Return when one more request may start; ``inf`` if that depends on an answer.

        Never earlier than ``now``.
        """
        return max(self.window_free_at(window, now, bulk=bulk) for window in self.windows)

    def window_free_at(self, window: Window, now: float, *, bulk: bool = False) -> float:
        """Return when this window alone lets one more request start, as `free_at`."""
        self._forget(window, now)
        own_room = (window.bulk_limit if bulk else window.limit) - self.in_flight
        at = self._below(own_room - window.external, window, now)
        if window.external and at > now:
            gone = self._below(own_room, window, now)
            at = min(at, max(gone, window.external_until))
            if not self.in_flight:
                at = min(at, max(gone, window.probe_at))
        return at

    def used(self, window: Window, now: float) -> int:
        """Return how many requests count against the window now, external use included."""
        self._forget(window, now)
        return self.in_flight + self._head - window.oldest + window.external

    def sent(self) -> None:
        """Count one more request in flight."""
        self.in_flight += 1

    def returned(self, weight: int = 1) -> None:
        """Forget requests in flight that never left."""
        self.in_flight -= weight

    def answered(self, now: float, weight: int = 1) -> None:
        """Take requests out of flight, answered or given up at ``now``."""
        self.in_flight -= weight
        log, size = self._log, self._size
        for _ in range(weight):
            if len(log) < size:
                log.append(now)
            else:
                log[self._head % size] = now
            self._head += 1

    def answers(self, now: float) -> list[float]:
        """Return the instants of all answers that some window still counts, in order."""
        for window in self.windows:
            self._forget(window, now)
        first = min(window.oldest for window in self.windows)
        return [self._log[number % self._size] for number in range(first, self._head)]

    def insert(self, instants: Iterable[float], now: float) -> None:
        """Add answers of the past, such as an earlier process' own; future ones count as now."""
        merged = sorted([*self.answers(now), *(min(each, now) for each in instants)])
        self._log = merged[-self._size :]
        self._head = len(self._log)
        for window in self.windows:
            window.oldest = 0

    def clear(self) -> None:
        """Forget all answers."""
        self._log.clear()
        self._head = 0
        for window in self.windows:
            window.oldest = 0

    def copy(self) -> "RollingWindows":
        """Return windows of the same state, which go their own way from here."""
        twin = copy(self)
        twin.windows = [copy(each) for each in self.windows]
        twin._log = self._log.copy()  # noqa: SLF001 - of the same class
        return twin

    def count(self, after: float, until: float = math.inf) -> int:
        """Return how many remembered answers lie in ``after < instant <= until``; O(log n)."""
        instants = _RingView(self._log, self._size, max(0, self._head - self._size), self._head)
        last = len(instants) if until == math.inf else bisect_right(instants, until)
        return max(0, last - bisect_right(instants, after))

    def add_learned(self, limit: int, period: float) -> Window:
        """Add a window that was not configured; it counts what the log remembers."""
        window = Window(limit, period, self.reserve, learned=True)
        self.windows.append(window)
        return window

    def _below(self, room: int, window: Window, now: float) -> float:
        """Return when fewer than ``room`` answered requests count against the window."""
        if self._head - window.oldest < room:
            return now
        if room <= 0:
            return math.inf
        return expiry(self._log[(self._head - room) % self._size], window.period)

    def _forget(self, window: Window, now: float) -> None:
        """Step over what has left the window; each request is stepped over once."""
        if window.external and now >= window.external_until:
            window.external = 0
        log, size, head, period = self._log, self._size, self._head, window.period
        oldest = max(window.oldest, head - size)
        # An expiry is never before the plain sum, which costs no call.
        while (
            oldest < head
            and (at := log[oldest % size]) + period <= now
            and expiry(at, period) <= now
        ):
            oldest += 1
        window.oldest = oldest


class _RingView(Sequence[float]):
    """The circular log as the sorted sequence that it is, for bisection."""

    __slots__ = ("_first", "_last", "_log", "_size")

    def __init__(self, log: list[float], size: int, first: int, last: int) -> None:
        self._log = log
        self._size = size
        self._first = first
        self._last = last

    def __len__(self) -> int:
        return self._last - self._first

    def __getitem__(self, index: int) -> float:  # type: ignore[override]  # no slices: bisect asks for none
        return self._log[(self._first + index) % self._size]
