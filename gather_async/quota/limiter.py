"""What the session asks of a limiter; `RedisLimiter` and users' own fit it too."""

from abc import abstractmethod
from datetime import timedelta
from typing import Literal, Protocol, get_args

from gather_async.models.rate_limit import RateLimitStatus
from gather_async.protocol.rate_headers import ServerQuota
from gather_async.validators import Choice

__all__ = ["InProcessSlot", "Limiter", "Priority", "Slot", "SlotOwner", "check_priority"]


class SlotOwner(Protocol):
    """What a slot tells its limiter."""

    def recount(self, slot: "InProcessSlot") -> None:
        """Count one more request in flight for the slot."""

    def settle(self, slot: "InProcessSlot", *, sent: bool, quota: ServerQuota | None) -> None:
        """Take the slot's requests out of flight."""


class InProcessSlot:
    """See `Slot`. A second ending does nothing: the first one was counted.

    Attributes:
        sent_at: When leave was given, on the limiter's clock.
        weight: How many requests it stands for: 1, and one more each time it was resent.
        generation: Which event loop of the limiter's life it belongs to.
    """

    __slots__ = ("_limiter", "generation", "sent_at", "weight")

    def __init__(self, limiter: SlotOwner, sent_at: float, generation: int) -> None:
        self._limiter: SlotOwner | None = limiter
        self.sent_at = sent_at
        self.weight = 1
        self.generation = generation

    def resent(self) -> None:
        """Count one more request: aiohttp sent this one again on its own."""
        if self._limiter is not None:
            self.weight += 1
            self._limiter.recount(self)

    def answered(self, quota: ServerQuota | None) -> None:
        """End it: an answer came."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.settle(self, sent=True, quota=quota)

    def lost(self) -> None:
        """End it: it was sent, and no answer will be read; it counts from now."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.settle(self, sent=True, quota=None)

    def returned(self) -> None:
        """End it: it never was sent; the slot is free at once.

        If it was resent after all, it did leave, and counts as lost.
        """
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.settle(self, sent=self.weight > 1, quota=None)

    def __repr__(self) -> str:
        state = "open" if self._limiter is not None else "ended"
        return f"<InProcessSlot {state}, {self.weight} request{'s' * (self.weight > 1)}>"


Priority = Literal["interactive", "bulk"]
_PRIORITIES = Choice(get_args(Priority))


def check_priority(priority: object) -> None:
    """Raise `ConfigurationError` unless there is such a priority."""
    _PRIORITIES.check("priority", priority)


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
