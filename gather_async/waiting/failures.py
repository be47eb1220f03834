"""Failed polls: which end a wait, and how long to pause after the others."""

from collections.abc import Sequence

from gather_async.errors import (
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    GatherAPIError,
    GatherError,
    InvalidRequestError,
    RateLimitedError,
)
from gather_async.protocol.polling import PollPolicy, next_interval

__all__ = ["Backoff", "is_fatal", "is_permanent"]

_PASSING = frozenset({408, 425, 429})
_LONGEST_HOLD = 60.0  # seconds; a reset further away may be a mistake, and one look is cheap


def is_fatal(error: GatherError) -> bool:
    """Whether no poll can succeed any more: 401, or the client is closed."""
    return isinstance(error, AuthenticationError | ClientClosedError | ConfigurationError)


def is_permanent(error: GatherError) -> bool:
    """Whether asking the same again makes no sense: a 4xx, or an id that can't be one.

    A body that makes no sense may be a proxy's, and passes.
    """
    if isinstance(error, GatherAPIError):
        return 400 <= error.status < 500 and error.status not in _PASSING
    return isinstance(error, InvalidRequestError)


class Backoff:
    """Failures in a row.

    Attributes:
        pause_until: No poll starts before.
        last: The last failure; None since a poll succeeded.
    """

    __slots__ = ("_first_at", "last", "pause_until")

    def __init__(self) -> None:
        self.pause_until = 0.0
        self.last: GatherError | None = None
        self._first_at: float | None = None

    def over(self) -> None:
        """Note that a poll succeeded."""
        self.last = self._first_at = None

    def happened(
        self,
        error: GatherError,
        policies: Sequence[PollPolicy],
        now: float,
        wall: float,
        draw: float,
    ) -> None:
        """Note a failure: pause, the longer the longer it lasts.

        A 429 is waited out, as far as the server says until when.
        """
        self.last = error
        if self._first_at is None:
            self._first_at = now
        lasts = now - self._first_at
        pause = min(next_interval(each, age=lasts, draw=draw) for each in policies)
        if isinstance(error, RateLimitedError) and error.reset_at is not None:
            pause = max(pause, min(error.reset_at.timestamp() - wall, _LONGEST_HOLD))
        self.pause_until = max(self.pause_until, now + pause)
