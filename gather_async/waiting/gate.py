"""What is urgent goes at once, but not one by one when it comes by the hundred."""

__all__ = ["Gate"]


class Gate:
    """Lets a few looks through at once, then one each interval.

    What comes in between shares the next look, so that waits that begin one after
    the other, or events by the hundred, cost little more than if they came together.

    Args:
        burst: How many may go at once after a rest.
    """

    __slots__ = ("_at", "_burst", "_level")

    def __init__(self, burst: int) -> None:
        self._burst = float(burst)
        self._level = 0.0
        self._at = 0.0

    def wait(self, now: float, interval: float) -> float:
        """Let one look through and return 0.0, or return the seconds until then."""
        level = max(0.0, self._level - (now - self._at) / interval) if self._level else 0.0
        if level + 1.0 > self._burst + 1e-6:
            return (level + 1.0 - self._burst) * interval
        self._level, self._at = level + 1.0, now
        return 0.0
