"""The protocol of limiters and their slots, and the notice of a long hold."""

import logging
import math
from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, get_args

from attrs import define, field

from gather_async.models.rate_limit import RateLimitStatus
from gather_async.observability import log_fields
from gather_async.protocol.rate_headers import ServerQuota
from gather_async.protocol.requests import Request
from gather_async.validators import Choice

__all__ = [
    "HoldNotice",
    "Limiter",
    "PRIORITY",
    "Priority",
    "Slot",
    "log_wait",
]

_LOG = logging.getLogger("gather_async.quota")
_NOTABLE = 10.0  # seconds; a shorter wait is over before anyone has read of it


Priority = Literal["interactive", "bulk"]
PRIORITY = Choice(get_args(Priority))
"""Checks that there is such a priority."""


def log_wait(request: Request, seconds: float) -> None:
    """Log that a request waited for the quota, unless it was for less than a hundredth."""
    if seconds >= 0.01 and _LOG.isEnabledFor(logging.DEBUG):
        fields = log_fields(request, wait=seconds)
        _LOG.debug("%s: waited %.2f s for the quota", request, seconds, extra=fields)


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

    def log(self, request: Request, error: object, wait: float, *, now: float) -> None:
        """Warn of a wait of more than ten seconds, unless an earlier warning covers it.

        Args:
            request: What was refused.
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
            request,
            getattr(error, "status", "nothing"),
            wait,
            datetime.fromtimestamp(self._until, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            extra=log_fields(request, status=getattr(error, "status", None), wait=wait),
        )
