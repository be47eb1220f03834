"""A time before which nothing starts: what a 429 makes of the whole client. Pure."""

import math
import random

__all__ = ["Hold"]

_SLACK = 60.0  # seconds by which a hold may exceed the longest window: skewed clocks
_JITTER = 1.0  # seconds


class Hold:
    """A number that only grows; a hold that could be lifted would be, by the wrong one.

    Args:
        longest: Seconds of the longest window; no hold needs to be much longer.
        rng: Adds up to a second of jitter, so that several processes don't start
            again together; None adds none.

    Attributes:
        until: The instant before which nothing starts; ``-inf`` at first.
    """

    __slots__ = ("_asked", "_longest", "_rng", "until")

    def __init__(self, longest: float, rng: random.Random | None) -> None:
        self.until = -math.inf
        self._asked = -math.inf
        self._longest = longest
        self._rng = rng

    def grow(self, seconds: float, now: float) -> bool:
        """Hold for at least that many seconds from now; tell whether that changed anything.

        Many refusals at once name about the same instant: they draw jitter once.
        """
        at = now + min(seconds, self._longest + _SLACK)
        if not (seconds > 0.0 and at > self.until and at > self._asked):
            return False
        self.until = at
        if self._rng is not None:
            self.until += self._rng.random() * min(_JITTER, seconds)
            self._asked = at + min(_JITTER, seconds)
        return True
