"""Base of the inboxes in SQL databases, and the statements of its tools and upkeep."""

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
        return await self._run(lambda c: _entries(c, state, event, tenant, limit))

    async def dead_letters(
        self, *, receiver: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the dead letters, oldest first."""
        return await self._run(lambda c: _dead_letters(c, receiver, limit))

    async def replay(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Make events that are over due again; see `Inbox.replay`."""
        return await self._run(lambda c: _replay(c, keys, handlers))

    async def discard(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Give events up; see `Inbox.discard`."""
        return await self._run(lambda c: _discard(c, keys, handlers, self._now(c)))

    async def counts(self) -> Mapping[EventState, int]:
        """Return how many events are in each state."""
        return await self._run(_counts)

    async def published(self, after: int | None, *, limit: int = 100) -> Published:
        """Return the events put after a position; see `Inbox.published`."""
        position, events = await self._run(lambda c: _published(c, after, limit), writes=False)
        return Published(position=position, events=events)

    async def prune(self, *, older_than: float | None = None) -> int:
        """Forget what is over and old, and give the space back; see `Inbox.prune`."""
        age = self._keep_for if older_than is None else older_than
        forgotten = await self._forget(_prune, age)
        subjects = await self._forget(_prune_subjects, age)
        await self._run(lambda c: _forget_handlers(c, self._now(c)))
        if forgotten or subjects:
            await self._shrink(is_over=True)
        return forgotten

    async def _forget(self, some: Callable[[Any, float, int], int], age: float) -> int:
        """Forget in bites, so that no sender waits for a long transaction; return how many."""
        forgotten = 0
        while bite := await self._run(lambda c: some(c, self._now(c) - age, _EVENTS_AT_ONCE)):
            forgotten += bite
            await self._shrink(is_over=False)
        return forgotten

    @abstractmethod
    async def _shrink(self, *, is_over: bool) -> None:
        """Give the space of what was forgotten back: all, or what is much as more follows."""


def _entries(
    connection: Database,
    state: EventState | None,
    event: str | None,
    tenant: str | None,
    limit: int,
) -> Sequence[InboxEntry]:
    """Return stored events with their states, oldest first."""
    conditions: list[tuple[str, Any]] = [("e.name = ?", event), ("e.tenant = ?", tenant)]
    # From the smaller table: few events are dead or wait, most are done.
    join = "LEFT JOIN ended o ON o.event_id = e.id"
    if state == EventState.WAITING:
        join = "JOIN waiting w ON w.event_id = e.id LEFT JOIN ended o ON o.event_id = e.id"
    elif state is not None:
        join = "JOIN ended o ON o.event_id = e.id"
        conditions.append(("o.state = ?", str(state)))
    where, values = _where(conditions)
    rows = connection.execute(
        f"SELECT {queries.EVENT_COLUMNS}, coalesce(o.state, 'waiting') FROM events e {join}"  # noqa: S608 - our own words
        f" WHERE {where} ORDER BY e.id LIMIT ?",
        (*values, limit),
    )
    return [InboxEntry(event=queries.event_of(row), state=EventState(row[-1])) for row in rows]


def _dead_letters(connection: Database, receiver: str | None, limit: int) -> Sequence[DeadLetter]:
    """Return the dead letters, oldest first."""
    where, values = _where([("e.receiver = ?", receiver)])
    rows = connection.execute(
        f"SELECT {queries.EVENT_COLUMNS}, h.handler, h.failures, h.ended_at, h.error"  # noqa: S608 - our own words
        " FROM handled h JOIN events e ON e.id = h.event_id"
        f" WHERE h.state = 'dead' AND {where} ORDER BY h.ended_at, h.event_id LIMIT ?",
        (*values, limit),
    )
    return [
        DeadLetter(
            event=queries.event_of(row).decode(),
            handler=row[-4],
            key=row[0],
            receiver=row[4],
            failures=row[-3],
            dead_at=row[-2],
            error=row[-1] or "",
        )
        for row in rows
    ]


def _where(conditions: Sequence[tuple[str, Any]]) -> tuple[str, Sequence[Any]]:
    """Return a condition of those whose value is given, and the values."""
    given = [(condition, value) for condition, value in conditions if value is not None]
    return (
        " AND ".join(condition for condition, _ in given) or "1 = 1",
        [value for _, value in given],
    )


def _replay(connection: Database, keys: Collection[str], handlers: Collection[str] | None) -> int:
    """Make events that are over due again."""
    count = 0
    for key in dict.fromkeys(keys):
        row = connection.execute(
            "SELECT e.id, e.receiver FROM events e JOIN ended o ON o.event_id = e.id"
            " WHERE e.key = ?",
            (key,),
        ).fetchone()
        if row is None:
            continue
        count += 1
        connection.execute("DELETE FROM ended WHERE event_id = ?", row[:1])
        connection.execute("INSERT INTO waiting (event_id, receiver, due_at) VALUES (?, ?, 0)", row)
        chosen = "state = 'dead'" if handlers is None else f"handler IN ({_marks(handlers)})"
        connection.execute(
            "DELETE FROM handled WHERE event_id = ?"  # noqa: S608 - our own words
            f" AND (state = 'failed' OR {chosen})",
            (row[0], *(handlers or ())),
        )
    return count


def _discard(
    connection: Database,
    keys: Collection[str],
    handlers: Collection[str] | None,
    now: float,
) -> int:
    """Give events, or the dead letters of some handlers, up: done, though nothing was."""
    count = 0
    chosen = "" if handlers is None else f" AND handler IN ({_marks(handlers)})"
    for key in dict.fromkeys(keys):
        row = connection.execute(
            "SELECT e.id, coalesce(o.state, 'waiting') FROM events e"
            " LEFT JOIN ended o ON o.event_id = e.id WHERE e.key = ?",
            (key,),
        ).fetchone()
        if row is None or row[1] == EventState.DONE.value:
            continue
        changed = connection.execute(
            "UPDATE handled SET state = 'done', error = NULL WHERE event_id = ?"  # noqa: S608 - our own words
            f" AND state = 'dead'{chosen}",
            (row[0], *(handlers or ())),
        ).rowcount
        is_over = handlers is None or (
            changed and row[1] == "dead" and not _is_dead(connection, row)
        )
        if is_over:
            queries.finish(connection, row[0], EventState.DONE, now)
        count += bool(is_over or changed)
    return count


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values)) or "NULL"


def _is_dead(connection: Database, row: Sequence[Any]) -> bool:
    found = connection.execute(
        "SELECT 1 FROM handled WHERE event_id = ? AND state = 'dead'", (row[0],)
    )
    return found.fetchone() is not None


def _counts(connection: Database) -> dict[EventState, int]:
    """Return how many events are in each state."""
    (waiting,) = connection.execute("SELECT count(*) FROM waiting").fetchone()
    over = connection.execute("SELECT state, count(*) FROM ended GROUP BY state")
    return {EventState.WAITING: waiting, **{EventState(state): n for state, n in over}}


def _published(
    connection: Database, after: int | None, limit: int
) -> tuple[int, Sequence[StoredEvent]]:
    """Return the events put after a position, and the position after them."""
    if after is None:
        (latest,) = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
        return latest, []
    rows = connection.execute(
        f"SELECT {queries.EVENT_COLUMNS}, e.id FROM events e WHERE e.id > ?"  # noqa: S608 - our own words
        " ORDER BY e.id LIMIT ?",
        (after, limit),
    ).fetchall()
    return (rows[-1][-1] if rows else after), [queries.event_of(row) for row in rows]


def _prune(connection: Database, before: float, limit: int) -> int:
    """Forget some events that were done or ignored before then; return how many."""
    numbers = [
        number
        for (number,) in connection.execute(
            "SELECT event_id FROM ended WHERE state IN ('done', 'ignored') AND ended_at <= ?"
            # The newest number stays, so that no later event gets it: positions are numbers.
            " AND event_id < (SELECT max(id) FROM events) LIMIT ?",
            (before, limit),
        )
    ]
    for table, column in (("ended", "event_id"), ("handled", "event_id"), ("events", "id")):
        connection.executemany(
            f"DELETE FROM {table} WHERE {column} = ?",  # noqa: S608 - our own words
            [(number,) for number in numbers],
        )
    return len(numbers)


def _prune_subjects(connection: Database, before: float, limit: int) -> int:
    """Forget some old subjects whose latest event is forgotten; return how many."""
    return connection.execute(
        "DELETE FROM subjects WHERE subject IN (SELECT subject FROM subjects s"
        " WHERE seen_at <= ? AND NOT EXISTS (SELECT 1 FROM events WHERE id = s.event_id) LIMIT ?)",
        (before, limit),
    ).rowcount


def _forget_handlers(connection: Database, now: float) -> None:
    """Forget handlers that no process announced for long; what waits for them waits for any."""
    gone = connection.execute("SELECT receiver, handler FROM handlers WHERE until < ?", (now,))
    for receiver, handler in gone.fetchall():
        connection.execute(
            "DELETE FROM handlers WHERE receiver = ? AND handler = ?", (receiver, handler)
        )
        connection.execute(
            "UPDATE waiting SET waits_for = '' WHERE receiver = ? AND waits_for = ?",
            (receiver, handler),
        )


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
