"""FakeGather's rate limits: rolling windows, counted when a request arrives.

Source: /getting-started/rate-limits
"""

from collections import deque
from collections.abc import Sequence
from typing import Literal

from attrs import define, field, frozen

from gather_async.protocol.rolling_windows import RateLimit

__all__ = ["FakeQuota", "HeadersDescribe", "QuotaDecision"]

HeadersDescribe = Literal["tightest", "shortest", "longest"]
"""The window that ``X-RateLimit-*`` describe; the documentation doesn't say which it is."""


@define
class _Window:
    """Arrivals in (now - length, now], oldest first."""

    limit: int
    length: float
    arrivals: deque[float] = field(factory=deque)

    def forget(self, now: float) -> None:
        """Drop what has left the window."""
        arrivals = self.arrivals
        while arrivals and arrivals[0] <= now - self.length:
            arrivals.popleft()

    @property
    def remaining(self) -> int:
        return max(self.limit - len(self.arrivals), 0)

    def next_room(self, now: float) -> float:
        """Return seconds until a request leaves the window so that one more fits."""
        over = max(len(self.arrivals) - self.limit, 0)
        return self.arrivals[over] + self.length - now if self.arrivals else 0.0


@frozen
class QuotaDecision:
    """Decision of the windows on one request.

    Attributes:
        accepted: Whether every window had room.
        limit: Of the window that the headers describe.
        remaining: Of the same.
        reset_in: Seconds until the described window has more room.
        refused_limit: The limit of the window that refused; 0 if none did.
        refused_reset_in: Seconds until every window has room; 0.0 if all have.
    """

    accepted: bool
    limit: int
    remaining: int
    reset_in: float
    refused_limit: int = 0
    refused_reset_in: float = 0.0


class FakeQuota:
    """All windows of the one key."""

    def __init__(
        self,
        rate_limits: Sequence[RateLimit],
        *,
        headers_describe: HeadersDescribe = "tightest",
        count_refused: bool = False,
    ) -> None:
        windows = [_Window(limit.limit, float(limit.per)) for limit in rate_limits]
        self._windows = sorted(windows, key=lambda window: window.length)
        self._describe = headers_describe
        self._count_refused = count_refused

    def arrive(self, now: float) -> QuotaDecision:
        """Count a request that arrives now, if every window has room."""
        for window in self._windows:
            window.forget(now)
        full = [window for window in self._windows if not window.remaining]
        if not full or self._count_refused:
            for window in self._windows:
                window.arrivals.append(now)
        return self._decision(full, now)

    def peek(self, now: float) -> QuotaDecision:
        """Return the same without counting anything."""
        for window in self._windows:
            window.forget(now)
        return self._decision([], now)

    def _decision(self, full: Sequence[_Window], now: float) -> QuotaDecision:
        described = self._described()
        last = max(full, key=lambda window: window.next_room(now), default=None)
        return QuotaDecision(
            accepted=not full,
            limit=described.limit,
            remaining=described.remaining,
            reset_in=described.next_room(now),
            refused_limit=last.limit if last else 0,
            refused_reset_in=last.next_room(now) if last else 0.0,
        )

    def _described(self) -> _Window:
        """Return the window that the headers are about."""
        if self._describe == "shortest":
            return self._windows[0]
        if self._describe == "longest":
            return self._windows[-1]
        return min(self._windows, key=lambda window: window.remaining)
