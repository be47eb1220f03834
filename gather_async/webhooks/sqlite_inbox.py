"""An inbox in an SQLite file: committed before the sender hears 200."""

import contextlib
import math
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, Literal, TypeVar

from gather_async.errors import ConfigurationError
from gather_async.storage import SQLiteStore
from gather_async.validators import Number
from gather_async.webhooks import sqlite_queries as tasks_of
from gather_async.webhooks.inbox import ClaimResult, DeadLetter, HandlerJob, PutResult, StoredEvent
from gather_async.webhooks.sqlite_queries import process_token

__all__ = ["SCHEMA_VERSION", "SQLiteInbox", "migrate"]

SCHEMA_VERSION: Final = 1

# A task is pending, done or dead; a claimed one is pending and due when its lease ends.
# subjects outlive events: a sweep of the server must not tell again what was told last year.
_TABLES: Final = (
    """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        default_event TEXT,
        received_at REAL NOT NULL,
        synthetic INTEGER NOT NULL,
        signed INTEGER NOT NULL
    )
    """,
    "CREATE INDEX events_by_age ON events (received_at)",
    """
    CREATE TABLE tasks (
        event_id INTEGER NOT NULL REFERENCES events (id) ON DELETE CASCADE,
        handler TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
        due_at REAL NOT NULL,
        starts INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        token TEXT,
        ended_at REAL,
        error TEXT,
        PRIMARY KEY (event_id, handler)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX tasks_due ON tasks (due_at) WHERE state = 'pending'",
    "CREATE INDEX tasks_dead ON tasks (ended_at) WHERE state = 'dead'",
    """
    CREATE TABLE subjects (
        subject TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        synthetic INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a file of an older version, 0 being an empty one, to `SCHEMA_VERSION`.

    Raises:
        ConfigurationError: The file is an SQLite database of something else.
    """
    if version == 0:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ConfigurationError(
                "The inbox's path is a database of something else: choose another file."
            )
        for statement in _TABLES:
            connection.execute(statement)


T = TypeVar("T")

# The sender gives up after 5 seconds. Source: /api-reference/webhooks
_BUSY_TIMEOUT = 3.0
# Seconds between looks for tasks that a dead process holds.
_LOOK_EVERY = 1.0


class SQLiteInbox:
    """Events in a file that survives ``kill -9`` and may be shared by processes of one machine.

    It is opened with the first event, in WAL mode; commits of events that come
    together are grouped. The file holds personal data, so it is made readable
    for its owner alone. Put it on a local disk: SQLite's locks don't work on
    most network file systems. What a process was working on when it died is given
    out again at once where the system tells that it died (Linux, in the same
    container), elsewhere when the lease ends.
    """

    is_shared: Literal[True] = True

    def __init__(
        self,
        path: str | Path,
        *,
        keep_for: float = 7 * 86_400.0,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
    ) -> None:
        """Make an inbox; nothing is opened yet.

        Args:
            path: The file; made if absent, its folder is not.
            keep_for: Seconds for which an event that is done with is kept, so that its
                repetition is recognised; from 3600. Dead letters are kept until they are
                replayed or discarded.
            synchronous: ``NORMAL`` is faster, and a power cut, though no crash of the
                process, may lose events that were answered with 200.

        Raises:
            ConfigurationError: ``keep_for`` is too short: the sender repeats for minutes.
        """
        Number(least=3600, unit="seconds").check("keep_for", keep_for)
        self._path = Path(path)
        self._keep_for = keep_for
        self._synchronous: Literal["FULL", "NORMAL"] = synchronous
        self._store: SQLiteStore | None = None
        self._next_look = -math.inf

    async def put(self, event: StoredEvent, handlers: Collection[str]) -> PutResult:
        """Keep an event for handlers; on disk when it returns. See `Inbox.put`."""
        return await self._run(lambda connection: tasks_of.put(connection, event, handlers))

    async def knows(self, event: StoredEvent) -> bool:
        """Tell whether `put` would call it a duplicate."""
        return await self._run(lambda connection: tasks_of.knows(connection, event))

    async def claim(
        self, handlers: Collection[str], *, limit: int, now: float, until: float
    ) -> ClaimResult:
        """Take due tasks; see `Inbox.claim`."""
        token = f"{process_token()} {uuid.uuid4().hex}"
        looks = time.monotonic() >= self._next_look

        def work(connection: sqlite3.Connection) -> ClaimResult:
            if looks:
                tasks_of.free_abandoned(connection, now)
            return tasks_of.claim(
                connection, handlers, limit=limit, now=now, until=until, token=token
            )

        claimed = await self._run(work)
        if looks:
            self._next_look = time.monotonic() + _LOOK_EVERY
        return claimed

    async def renew(self, tasks: Collection[HandlerJob], *, until: float) -> None:
        """Make leases last longer; see `Inbox.renew`."""
        await self._run(lambda connection: tasks_of.renew(connection, tasks, until))

    async def succeed(self, task: HandlerJob, *, now: float) -> None:
        """Never give this task out again; see `Inbox.succeed`."""
        await self._run(lambda connection: tasks_of.succeed(connection, task, now))

    async def retry(self, task: HandlerJob, *, due_at: float, error: str) -> None:
        """Count a failure, and give the task out again; see `Inbox.retry`."""
        await self._run(lambda connection: tasks_of.retry(connection, task, due_at, error))

    async def bury(self, task: HandlerJob, *, now: float, error: str) -> None:
        """Make the task a dead letter; see `Inbox.bury`."""
        await self._run(lambda connection: tasks_of.bury(connection, task, now, error))

    async def release(self, task: HandlerJob) -> None:
        """Give the task back; see `Inbox.release`."""
        await self._run(lambda connection: tasks_of.release(connection, task))

    async def dead_letters(self, *, limit: int) -> Sequence[DeadLetter]:
        """Return the dead letters, oldest first."""
        return await self._run(lambda connection: tasks_of.dead_letters(connection, limit))

    async def replay(self, letters: Collection[DeadLetter] | None) -> int:
        """Make dead letters due again; see `Inbox.replay`."""
        return await self._run(lambda connection: tasks_of.replay(connection, letters))

    async def discard(self, letters: Collection[DeadLetter] | None) -> int:
        """Give dead letters up; see `Inbox.discard`."""
        return await self._run(lambda connection: tasks_of.discard(connection, letters))

    async def waiting(self) -> dict[str, int]:
        """Return how many tasks of each handler are neither done nor dead."""
        return await self._run(tasks_of.waiting)

    async def prune(self, *, now: float) -> int:
        """Forget events that are done with and older than ``keep_for``; return how many."""
        forgotten = 0
        # In bites, so that no sender waits for a long transaction.
        while bite := await self._run(lambda c: tasks_of.prune(c, now - self._keep_for)):
            forgotten += bite
        return forgotten

    async def aclose(self) -> None:
        """Finish what was asked for, and close the file; the next use opens it again."""
        store, self._store = self._store, None
        if store is not None:
            await store.aclose()

    def __repr__(self) -> str:
        return f"<SQLiteInbox {'closed' if self._store is None else 'open'}>"

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._store is None:
            # If it can't be made here, the store says so in its own words.
            with contextlib.suppress(OSError):
                self._path.touch(mode=0o600)
            self._store = SQLiteStore(
                self._path,
                schema_version=SCHEMA_VERSION,
                migrate=migrate,
                synchronous=self._synchronous,
                busy_timeout=_BUSY_TIMEOUT,
            )
        return await self._store.run(work)
