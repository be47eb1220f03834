"""What the session asks of a limiter; `RedisLimiter` and users' own fit it too."""

from abc import abstractmethod
from datetime import timedelta
from typing import Literal, Protocol

from gather_async.errors import ConfigurationError
from gather_async.models.rate_limit import RateLimitStatus
from gather_async.protocol.rate_headers import ServerQuota

__all__ = ["Limiter", "Priority", "Slot", "check_priority"]

Priority = Literal["interactive", "bulk"]


def check_priority(priority: object) -> None:
    """Raise `ConfigurationError` unless there is such a priority."""
    if priority not in ("interactive", "bulk"):
        raise ConfigurationError(f'priority must be "interactive" or "bulk", not {priority!r}.')


class Slot(Protocol):
    """Leave to send one request. Exactly one of its endings is called, once.

    Endings are synchronous, so that they can run while a task is being cancelled.
    """

    @abstractmethod
    def resent(self) -> None:
        """Count one more request: aiohttp sent this one again on its own."""

    @abstractmethod
    def answered(self, quota: ServerQuota | None) -> None:
        """End it: an answer came; ``quota`` is what its headers said, None if nothing."""

    @abstractmethod
    def lost(self) -> None:
        """End it: it was sent, and no answer will be read."""

    @abstractmethod
    def returned(self) -> None:
        """End it: it never was sent; the slot is free at once."""


class Limiter(Protocol):
    """Who may send now, under the rolling windows of one API key."""

    @abstractmethod
    async def acquire(self, *, priority: Priority, max_wait: float | None) -> Slot:
        """Return leave to send, as soon as the windows allow.

        Cancelling the call leaves no trace and loses no slot.

        Raises:
            QuotaWaitError: At once, if that would take more than ``max_wait`` seconds.
        """

    @abstractmethod
    def hold(self, until: float) -> None:
        """Let nothing start before this wall time, in Unix seconds; only ever grows.

        The task that asks for it was refused, and its next call should go first.
        """

    @abstractmethod
    def status(self) -> RateLimitStatus:
        """Return what is known of the quota now."""

    @abstractmethod
    def estimate(self, requests: int, *, priority: Priority) -> timedelta:
        """Return how long until that many more requests could have been sent."""
