"""How long a handler may take, and what follows when it fails: decisions, not actions."""

import math
from typing import Any

from attrs import field, frozen

from gather_async.errors import ConfigurationError

__all__ = ["Handling"]

_LONGEST = 3600.0  # inboxes take a time further ahead for a clock that went back
_LARGEST_EXPONENT = 64  # 2.0 ** 10_000 overflows before a cap could apply


def _positive(_: object, attribute: Any, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ConfigurationError(f"Handling.{attribute.name} must be a finite number above 0.")


def _at_most_an_hour(_: object, attribute: Any, value: float) -> None:
    if value > _LONGEST:
        raise ConfigurationError(f"Handling.{attribute.name} must be an hour at most.")


def _count(_: object, attribute: Any, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"Handling.{attribute.name} must be a whole number, 1 or more.")


@frozen(kw_only=True)
class Handling:
    """How handlers are run.

    Raises:
        ConfigurationError: A number is out of range.
    """

    concurrency: int = field(default=10, validator=_count)
    """Handlers that run at once."""
    timeout: float = field(default=60.0, validator=_positive)
    """Seconds that one run may take; it is cancelled then, which counts as a failure."""
    attempts: int = field(default=8, validator=_count)
    """Failed runs after which the event is a dead letter of this handler."""
    base: float = field(default=1.0, validator=_positive)
    """Seconds: the longest pause after the first failure; it doubles with each."""
    cap: float = field(default=600.0, validator=[_positive, _at_most_an_hour])
    """Seconds: the longest pause."""
    lease: float = field(default=30.0, validator=[_positive, _at_most_an_hour])
    """Seconds after which the work of a process that died is done by another, or by its
    successor, unless the inbox finds out earlier. A living one renews its leases."""
    drain: float = field(default=20.0, validator=_positive)
    """Seconds that closing waits for handlers before it cancels them."""
    poll: float = field(default=1.0, validator=_positive)
    """Seconds between looks for events that another process stored in a shared inbox."""

    def pause(self, failures: int, draw: float) -> float | None:
        """Return seconds to wait after a failure; None: it was the last.

        Args:
            failures: Failed runs, this one included.
            draw: A random number from 0 to 1: half of the pause is jitter.
        """
        if failures >= self.attempts:
            return None
        longest = min(self.cap, self.base * 2.0 ** min(failures - 1, _LARGEST_EXPONENT))
        return longest * (0.5 + draw / 2)
