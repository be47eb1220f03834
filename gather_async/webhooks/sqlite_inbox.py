"""An inbox in an SQLite file: an event is committed before the sender gets its 200."""

import contextlib
import logging
import math
import os
import sqlite3
import time
import uuid
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from attrs import define

from gather_async.clock import Clock
from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.storage import SQLiteStore
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
from gather_async.webhooks.sql_upkeep import SCHEMA_VERSION, migrate

__all__ = ["SQLiteInbox"]

T = TypeVar("T")
_log = logging.getLogger("gather_async.webhooks")

# The sender gives up after 5 seconds. Source: /api-reference/webhooks
_BUSY_TIMEOUT: Final = 3.0
# Seconds between checks for events that a dead process holds: one stat a claim holder.
_ABANDONED_EVERY: Final = 1.0
# Events and pages of one transaction of upkeep: about 10 ms, which a delivery can wait for.
_EVENTS_AT_ONCE: Final = 1000
_PAGES_AT_ONCE: Final = 1000
# Free pages that are worth rewriting a file whose pages can't be given back one by one.
_WORTH_A_REWRITE: Final = 2500
_IN_MEMORY: Final = ":memory:"


class SQLiteInbox:
    """Events in a file that survives ``kill -9`` and may be shared by processes of one machine.

    It is opened at the start or with the first event, in WAL mode; commits of events that
    come together are grouped. The file holds personal data, so it is made readable
    for its owner alone. Put it on a local disk: SQLite's locks don't work on
    most network file systems. The events that a process held when it died are due
    again at once where the system knows that it died (Linux, in the same
    container), elsewhere when the lease ends. It may be used before and after a fork.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        keep_for: float = 7 * 86_400.0,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        clock: Clock | None = None,
    ) -> None:
        """Make an inbox; nothing is opened yet.

        Args:
            path: The file; made if absent, its folder is not. A relative path counts from
                the present working directory. ``":memory:"`` is memory, which ends with `aclose`.
            keep_for: Seconds for which an event that is done or ignored is kept, so that its
                repetition is recognised; from 3600. Dead letters are kept until they are
                replayed or discarded.
            synchronous: ``NORMAL`` is faster, and a power cut, though no crash of the
                process, may lose events that were answered with 200.
            clock: Where time comes from; None: the machine's clock.

        Raises:
            ConfigurationError: ``keep_for`` is too short: the sender repeats for minutes.
        """
        Number(least=3600, unit="seconds").check("keep_for", keep_for)
        self._path = None if str(path) == _IN_MEMORY else Path(path).absolute()
        self._keep_for = keep_for
        self._synchronous: Literal["FULL", "NORMAL"] = synchronous
        self._clock = clock
        self._file: _File | None = None
        self._next_check = -math.inf

    @property
    def is_shared(self) -> bool:
        """Whether it is a file, which outlives the process and may be used by others."""
        return self._path is not None

    async def open(self) -> None:
        """Open the file now.

        Raises:
            ConfigurationError: It can't be opened, or is a database of something else.
        """
        await self._run(bool)

    async def put(self, event: StoredEvent) -> PutResult:
        """Store an event; on disk when it returns. See `Inbox.put`."""
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

        def work(connection: sqlite3.Connection) -> ClaimResult:
            now = self._now(connection)
            if is_check_due:
                queries.free_abandoned(connection, now)
            return queries.claim(
                connection, receiver, handlers, limit=limit, now=now, lease=lease, token=token
            )

        claimed = await self._run(work)
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

    async def aclose(self) -> None:
        """Finish what was asked for, and close the file; the next use opens it again."""
        file, self._file = self._file, None
        if file is not None:
            await file.store.aclose()

    def __repr__(self) -> str:
        return f"<SQLiteInbox {'closed' if self._file is None else 'open'}>"

    async def _shrink(self) -> None:
        """Give free pages back to the file system."""
        free, is_incremental = await self._run(_free_pages, writes=False)
        if is_incremental:
            for _ in range(0, free, _PAGES_AT_ONCE):
                await self._run(_free_some, writes=False)
        elif free >= _WORTH_A_REWRITE:
            # A file of an earlier version: once, and from then on page by page.
            await self._run(_rewrite, writes=False)
        # Busy readers keep the log from being cut; the next time does it.
        await self._run(
            lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), writes=False
        )

    def _now(self, connection: sqlite3.Connection) -> float:
        """Return Unix seconds by the clock that all processes of the machine share."""
        if self._clock is not None:
            return self._clock.wall()
        # Not Python's clock, which tests may freeze: two processes would differ.
        seconds = connection.execute("SELECT (julianday('now') - 2440587.5) * 86400.0").fetchone()
        return float(seconds[0])

    async def _run(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        while True:
            file = self._file or self._opened()
            do = file.store.run if writes else file.store.read

            def checked(connection: sqlite3.Connection, file: "_File" = file) -> T:
                file.check()
                return work(connection)

            try:
                return await do(checked)
            except _MovedError:
                if self._file is file:
                    self._file = None
                    _log.error(
                        "The webhook inbox %s was deleted or replaced: opened anew", self._path
                    )
                    await file.store.aclose()
                    file.remove_log()
            except ClientClosedError:
                # Closed meanwhile, by a fork or for a file that was replaced.
                if self._file is file:
                    raise
            except ConfigurationError as error:
                raise ConfigurationError(f"The webhook inbox {self._path}: {error}") from error

    def _opened(self) -> "_File":
        if self._path is not None:
            # If it can't be made here, the store says so in its own words.
            with contextlib.suppress(OSError):
                self._path.touch(mode=0o600)
        store = SQLiteStore(
            _IN_MEMORY if self._path is None else self._path,
            schema_version=SCHEMA_VERSION,
            migrate=migrate,
            synchronous=self._synchronous,
            busy_timeout=_BUSY_TIMEOUT,
            is_shrinkable=True,
        )
        self._file = _File(self._path, store)
        _used.add(self)
        return self._file

    def leave_before_fork(self) -> None:
        """Close the file: SQLite's locks belong to a process, and a child would break them."""
        if self._path is not None and self._file is not None:
            self._file.store.close()
            self._file = None

    def leave_in_child(self) -> None:
        """Forget a database in memory, whose thread stayed in the parent."""
        if self._file is not None:
            _abandoned.append(self._file)
            self._file = None


class _MovedError(Exception):
    """The path is no longer that of the open file."""


@define(eq=False)
class _File:
    """An open file, and what identifies it."""

    path: Path | None
    store: SQLiteStore
    identity: tuple[int, int] | None = None
    log_identity: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise if the path leads elsewhere by now: what is written would be lost."""
        if self.path is None:
            return
        found = _identity(self.path)
        if self.identity is None:
            self.identity, self.log_identity = found, _identity(_log_of(self.path))
        elif found != self.identity:
            raise _MovedError

    def remove_log(self) -> None:
        """Remove the log that the old file left: SQLite would apply it to the new one."""
        if self.path is not None and self.log_identity == _identity(_log_of(self.path)):
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)


def _log_of(path: Path) -> Path:
    return Path(f"{path}-wal")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _free_pages(connection: sqlite3.Connection) -> tuple[int, bool]:
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    return free, mode != 0


def _free_some(connection: sqlite3.Connection) -> None:
    # Freed page by page, and `execute` would stop after the first.
    connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")


def _rewrite(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("VACUUM")


_used: "weakref.WeakSet[SQLiteInbox]" = weakref.WeakSet()
_abandoned: list[Any] = []


def _for_each_used(leave: Callable[[SQLiteInbox], None]) -> None:
    for inbox in list(_used):
        leave(inbox)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _for_each_used(SQLiteInbox.leave_before_fork),
        after_in_child=lambda: _for_each_used(SQLiteInbox.leave_in_child),
    )
