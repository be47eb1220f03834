"""Base of the inboxes in SQL databases."""

import asyncio
import math
import os
import time
import uuid
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

from gather_async.storage import Database
from gather_async.validators import Number
from gather_async.webhooks import sql_queries as queries
from gather_async.webhooks import sql_upkeep as upkeep
from gather_async.webhooks.inbox import (
    ClaimedEvent,
    ClaimReport,
    ClaimResult,
    DeadLetter,
    EventState,
    InboxEntry,
    Published,
    PutResult,
    StoredEvent,
)

__all__ = ["SQLInbox", "abandon"]

T = TypeVar("T")

# Seconds between checks for events that a dead process holds: one stat a claim holder.
_ABANDONED_EVERY: Final = 1.0
# Events of one transaction of upkeep: about 10 ms, which a delivery can wait for.
_EVENTS_AT_ONCE: Final = 1000


class SQLInbox(ABC):
    """An inbox whose events are rows of a database that has one writer at a time."""

    _keep_for: float
    _next_check: float

    def _remember(self, keep_for: float) -> None:
        Number(least=3600, unit="seconds").check("keep_for", keep_for)
        self._keep_for, self._next_check = keep_for, -math.inf
        _inboxes.add(self)

    def leave_before_fork(self) -> None:  # noqa: B027 - most have nothing to close
        """Close what a child must not have."""

    @abstractmethod
    def leave_in_child(self) -> None:
        """Forget what stayed in the parent of a fork."""

    @abstractmethod
    async def _run(self, work: Callable[[Any], T], *, writes: bool = True) -> T:
        """Run a work in a transaction that writes, or outside of any."""

    @abstractmethod
    def _start(self, work: Callable[[Any], object]) -> None:
        """Begin a work in a transaction that writes, unless the database is closed."""

    @abstractmethod
    def _now(self, connection: Any) -> float:
        """Return Unix seconds by the clock that all who use the database share."""

    async def open(self) -> None:
        """Open the database now.

        Raises:
            ConfigurationError: It can't be opened, or is a database of something else.
        """
        await self._run(bool)

    async def put(self, event: StoredEvent) -> PutResult:
        """Store an event; committed when it returns. See `Inbox.put`."""
        return await self._run(lambda c: queries.put(c, event, self._now(c)))

    async def contains(self, event: StoredEvent) -> bool:
        """Return whether `put` would call it a duplicate."""
        return await self._run(lambda c: queries.contains(c, event))

    async def announce(
        self,
        receiver: str,
        handlers: Mapping[str, Collection[str]],
        *,
        former: Collection[str] = (),
        keep_for: float,
    ) -> None:
        """Record which handlers exist; see `Inbox.announce`."""
        await self._run(
            lambda c: queries.announce(c, receiver, handlers, former, self._now(c) + keep_for)
        )

    async def claim(
        self, receiver: str, handlers: Collection[str], *, limit: int, lease: float
    ) -> ClaimResult:
        """Claim due events; see `Inbox.claim`."""
        token = f"{queries.process_token()} {uuid.uuid4().hex}"
        is_check_due = time.monotonic() >= self._next_check

        def work(connection: Database) -> ClaimResult:
            now = self._now(connection)
            if is_check_due:
                queries.free_abandoned(connection, now)
            return queries.claim(
                connection, receiver, handlers, limit=limit, now=now, lease=lease, token=token
            )

        try:
            claimed = await self._run(work)
        except (asyncio.CancelledError, TimeoutError):
            # It may be carried out all the same, and its events would wait for the lease's end.
            self._start(lambda c: queries.give_back(c, token))
            raise
        if is_check_due:
            self._next_check = time.monotonic() + _ABANDONED_EVERY
        return claimed

    async def renew(self, claims: Collection[ClaimedEvent], *, lease: float) -> Collection[str]:
        """Make leases last longer; see `Inbox.renew`."""
        return await self._run(lambda c: queries.renew(c, claims, self._now(c) + lease))

    async def complete(self, claimed: ClaimedEvent, handler: str) -> None:
        """Record that a handler succeeded; see `Inbox.complete`."""
        await self._run(lambda c: queries.complete(c, claimed.event.key, handler))

    async def report(self, reports: Collection[ClaimReport]) -> None:
        """End claims; see `Inbox.report`."""
        await self._run(lambda c: queries.report(c, reports, self._now(c)))

    async def list(
        self,
        *,
        state: EventState | None = None,
        event: str | None = None,
        tenant: str | None = None,
        limit: int = 100,
    ) -> Sequence[InboxEntry]:
        """Return stored events, oldest first."""
        return await self._run(lambda c: upkeep.entries(c, state, event, tenant, limit))

    async def dead_letters(
        self, *, receiver: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the dead letters, oldest first."""
        return await self._run(lambda c: upkeep.dead_letters(c, receiver, limit))

    async def replay(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Make events that are over due again; see `Inbox.replay`."""
        return await self._run(lambda c: upkeep.replay(c, keys, handlers))

    async def discard(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Give events up; see `Inbox.discard`."""
        return await self._run(lambda c: upkeep.discard(c, keys, handlers, self._now(c)))

    async def counts(self) -> Mapping[EventState, int]:
        """Return how many events are in each state."""
        return await self._run(upkeep.counts)

    async def published(self, after: int | None, *, limit: int = 100) -> Published:
        """Return the events put after a position; see `Inbox.published`."""
        position, events = await self._run(
            lambda c: upkeep.published(c, after, limit), writes=False
        )
        return Published(position=position, events=events)

    async def prune(self, *, older_than: float | None = None) -> int:
        """Forget what is over and old, and give the space back; see `Inbox.prune`."""
        age = self._keep_for if older_than is None else older_than
        forgotten = subjects = 0
        # In bites, so that no sender waits for a long transaction.
        while bite := await self._run(
            lambda c: upkeep.prune(c, self._now(c) - age, _EVENTS_AT_ONCE)
        ):
            forgotten += bite
        while bite := await self._run(
            lambda c: upkeep.prune_subjects(c, self._now(c) - age, _EVENTS_AT_ONCE)
        ):
            subjects += bite
        await self._run(lambda c: upkeep.forget_handlers(c, self._now(c)))
        if forgotten or subjects:
            await self._shrink()
        return forgotten

    @abstractmethod
    async def _shrink(self) -> None:
        """Give the space of what was forgotten back."""


_owned_by_parent: list[Any] = []


def abandon(store: Any) -> None:
    """Keep a store of a fork's parent from being closed by its child, whose locks may be held."""
    _owned_by_parent.append(store)


_inboxes: "weakref.WeakSet[SQLInbox]" = weakref.WeakSet()


def _for_each_inbox(leave: Callable[[SQLInbox], None]) -> None:
    for inbox in list(_inboxes):
        leave(inbox)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _for_each_inbox(lambda inbox: inbox.leave_before_fork()),
        after_in_child=lambda: _for_each_inbox(lambda inbox: inbox.leave_in_child()),
    )
