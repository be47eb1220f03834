"""The limiter protocol, and the slot of our own limiters."""

import logging
import math
from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, get_args

from attrs import define, field

from gather_async.models.rate_limit import RateLimitStatus
from gather_async.protocol.rate_headers import ServerQuota
from gather_async.validators import Choice

__all__ = [
    "HoldNotice",
    "Limiter",
    "LimiterSlot",
    "Priority",
    "Slot",
    "SlotOwner",
    "check_priority",
]

_LOG = logging.getLogger("gather_async")
_NOTABLE = 10.0  # seconds; a shorter wait is over before anyone has read of it


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


@define(eq=False)
class HoldNotice:
    """The warning of a long wait that the server asked for, logged once for all its calls."""

    _until: float = field(default=-math.inf, init=False)

    def log(self, call: str, error: object, wait: float, *, now: float) -> None:
        """Warn of a wait of more than ten seconds, unless an earlier warning covers it.

        Args:
            call: Method and path.
            error: How the server refused; its ``status`` is named.
            wait: Seconds from now.
            now: Wall time in Unix seconds.
        """
        if wait <= _NOTABLE or now + wait <= self._until + _NOTABLE:
            return
        self._until = now + wait
        _LOG.warning(
            "%s: the server answered %s and asks to wait: nothing is tried again for %.0f s, "
            "until %s UTC",
            call,
            getattr(error, "status", "nothing"),
            wait,
            datetime.fromtimestamp(self._until, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        )
