"""The server's view of the quota, added to our own count.

Each response says how many requests the server counted when it stamped this one.
How many of them can have been ours is known within bounds; the rest is the
same key used elsewhere. That number of `Window.external` is moved only as far as
a response proves it wrong, so it never grows while the key is ours alone, and
it falls as soon as the other use ends.

Pure: instants are parameters.
"""

import math
from bisect import bisect_right
from collections.abc import Callable

from gather_async.protocol.rolling_windows import RollingWindows, Window
from gather_async.protocol.server_quota import ServerQuota

__all__ = ["Hold", "ServerQuotaTracker"]

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
