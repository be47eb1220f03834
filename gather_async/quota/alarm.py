"""One timer, and never more than one."""

import math
from collections.abc import Callable

from gather_async.clock import Clock, Timer

__all__ = ["Alarm"]

_SHORTEST = 1e-6  # seconds; a timer may ring a float's last bit early, so 0 could ring for ever


class Alarm:
    """Rings at the earliest instant it was set to since it last rang.

    Args:
        clock: Whose instants they are.
        ring: Called when it rings; it may ring too early, and is set again then.
    """

    __slots__ = ("_at", "_clock", "_ring", "_timer")

    def __init__(self, clock: Clock, ring: Callable[[], object]) -> None:
        self._clock = clock
        self._ring = ring
        self._timer: Timer | None = None
        self._at = math.inf

    def set(self, at: float, now: float) -> None:
        """Ring by then; ``inf`` turns the alarm off."""
        if self._timer is not None:
            if self._at <= at < math.inf:
                return  # cheaper than to move it: it rings early, and is set again
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            self._at = at
            self._timer = self._clock.call_later(max(at - now, _SHORTEST), self._rings)

    def _rings(self) -> None:
        self._timer = None
        self._ring()
