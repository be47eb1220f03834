"""First looks at once, but not one by one for a thousand waits that begin in a row."""

__all__ = ["Gate"]

_BURST = 5.0  # first looks, each at all that is new


class Gate:
    """Lets a few first looks through at once, then one each interval.

    What comes in between shares the next look, so that waits that begin one after
    the other cost little more than waits that begin together.
    """

    __slots__ = ("_at", "_level")

    def __init__(self) -> None:
        self._level = 0.0
        self._at = 0.0

    def wait(self, now: float, interval: float) -> float:
        """Let what is new through and return 0.0, or return the seconds until then."""
        level = max(0.0, self._level - (now - self._at) / interval) if self._level else 0.0
        if level + 1.0 > _BURST + 1e-6:
            return (level + 1.0 - _BURST) * interval
        self._level, self._at = level + 1.0, now
        return 0.0
