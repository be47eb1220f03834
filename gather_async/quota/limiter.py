"""The limiter protocol, and the slot of our own limiters."""

from abc import abstractmethod
from datetime import timedelta
from typing import Any, Literal, Protocol, get_args

from gather_async.models.rate_limit import RateLimitStatus
from gather_async.protocol.rate_headers import ServerQuota
from gather_async.validators import Choice

__all__ = ["Limiter", "LimiterSlot", "Priority", "Slot", "SlotOwner", "check_priority"]


class SlotOwner(Protocol):
    """The limiter of a slot, as far as the slot is concerned."""

    def recount(self, slot: "LimiterSlot") -> None:
        """Count one more request in flight for the slot."""

    def finish(self, slot: "LimiterSlot", *, sent: bool, quota: ServerQuota | None) -> None:
        """Take the slot's requests out of flight."""


class LimiterSlot:
    """Slot of our own limiters. A second ending does nothing: the first one was counted.

    Attributes:
        sent_at: When it was granted, on the limiter's clock.
        weight: How many requests it stands for: 1, and one more each time it was resent.
        home: The part of the event loop that it was granted in.
    """

    __slots__ = ("_owner", "home", "sent_at", "weight")

    def __init__(self, owner: SlotOwner, sent_at: float, home: Any) -> None:
        self._owner: SlotOwner | None = owner
        self.sent_at = sent_at
        self.weight = 1
        self.home = home

    def resent(self) -> None:
        """Count one more request: aiohttp sent this one again on its own."""
        if self._owner is not None:
            self.weight += 1
            self._owner.recount(self)

    def answered(self, quota: ServerQuota | None) -> None:
        """End it: an answer came."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.finish(self, sent=True, quota=quota)

    def lost(self) -> None:
        """End it: it was sent, and no answer will be read; it counts from now."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.finish(self, sent=True, quota=None)

    def returned(self) -> None:
        """End it: it never was sent; the slot is free at once.

        If it was resent after all, it did leave, and counts as lost.
        """
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.finish(self, sent=self.weight > 1, quota=None)

    def __repr__(self) -> str:
        state = "open" if self._owner is not None else "ended"
        return f"<LimiterSlot {state}, {self.weight} request{'s' * (self.weight > 1)}>"


Priority = Literal["interactive", "bulk"]
_PRIORITIES = Choice(get_args(Priority))


def check_priority(priority: object) -> None:
    """Raise `ConfigurationError` unless there is such a priority."""
    _PRIORITIES.check("priority", priority)


class Slot(Protocol):
    """Permission to send one request. Exactly one of its endings is called, once.

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
    """Rate limiter of one API key: grants slots as the rolling windows allow."""

    @abstractmethod
    async def acquire(self, *, priority: Priority, max_wait: float | None) -> Slot:
        """Return a slot, as soon as the windows allow.

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
