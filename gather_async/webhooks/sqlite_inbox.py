"""An inbox in an SQLite file: an event is committed before the sender gets its 200."""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, Literal, TypeVar

from attrs import define

from gather_async.clock import Clock
from gather_async.errors import ClientClosedError, ConfigurationError, WebhookVerificationError
from gather_async.observability import log_fields
from gather_async.storage import SQLiteStore
from gather_async.validators import Choice
from gather_async.webhooks.events import decode_event
from gather_async.webhooks.sql_inbox import SQLInbox, abandon

__all__ = ["SQLiteInbox"]

T = TypeVar("T")
_log = logging.getLogger("gather_async.webhooks")

# The sender gives up after 5 seconds. Source: /api-reference/webhooks
_BUSY_TIMEOUT: Final = 3.0
# Pages of one transaction of upkeep: about 10 ms, which a delivery can wait for.
_PAGES_AT_ONCE: Final = 1000
# Free pages that may be there while more events are forgotten: to give one back, SQLite looks for
# it in the list of all, which must stay short, and reads it, so it should still be in the cache.
_MOST_FREE: Final = 250
# Free pages that are worth rewriting a file whose pages can't be given back one by one.
_WORTH_A_REWRITE: Final = 2500
_IN_MEMORY: Final = ":memory:"


class SQLiteInbox(SQLInbox):
    """Events in a file that survives ``kill -9`` and may be shared by processes of one machine.

    It is opened at the start or with the first event, in WAL mode; commits of events that
    come together are grouped. The file holds personal data, so it is made readable
    for its owner alone. Put it on a local disk: SQLite's locks don't work on
    most network file systems. The events that a process held when it died are due
    again at once where the system knows that it died (Linux, in the same
    container), elsewhere when the lease ends. It may be used before and after a fork.

    Attributes:
        replay_listeners: Of ``":memory:"``: called after each replay, as no receiver polls it.
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
            ConfigurationError: An argument can't work; ``keep_for`` is too short: the sender
                repeats for minutes.
        """
        if not isinstance(path, str | os.PathLike):
            raise ConfigurationError(f"path must be that of a file, not {type(path).__name__}.")
        Choice(("FULL", "NORMAL")).check("synchronous", synchronous)
        self._path = None if str(path) == _IN_MEMORY else Path(path).absolute()
        self._remember(keep_for)
        self._synchronous: Literal["FULL", "NORMAL"] = synchronous
        self._clock = clock
        self._file: _File | None = None
        self.replay_listeners: set[Callable[[], None]] = set()

    async def replay(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Make events that are over due again; see `Inbox.replay`."""
        count = await super().replay(keys, handlers=handlers)
        if not self.is_shared:
            for listener in tuple(self.replay_listeners):
                listener()
        return count

    @property
    def is_shared(self) -> bool:
        """Whether it is a file, which outlives the process and may be used by others."""
        return self._path is not None

    async def aclose(self) -> None:
        """Finish what was asked for, and close the file; the next use opens it again."""
        file, self._file = self._file, None
        if file is not None:
            await file.store.aclose()

    def __repr__(self) -> str:
        return f"<SQLiteInbox {'closed' if self._file is None else 'open'}>"

    async def _shrink(self, *, is_over: bool) -> None:
        """Give free pages back to the file system."""
        free, is_incremental = await self._run(_free_pages, writes=False)
        if not is_over and (free < _MOST_FREE or not is_incremental):
            return
        if is_incremental:
            for _ in range(0, free, _PAGES_AT_ONCE):
                await self._run(_free_some, writes=False)
        elif free >= _WORTH_A_REWRITE:
            # A file of an earlier version: once, and from then on page by page.
            await self._run(_rewrite, writes=False)
        if not is_over:
            return
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
                        "The webhook inbox %s was deleted or replaced: opened anew",
                        self._path,
                        extra=log_fields(place=str(self._path)),
                    )
                    file.remove_log()
                    await file.store.aclose()
            except ClientClosedError:
                # Closed meanwhile, by a fork or for a file that was replaced.
                if self._file is file:
                    raise
            except ConfigurationError as error:
                raise ConfigurationError(f"The webhook inbox {self._path}: {error}") from error

    def _start(self, work: Callable[[sqlite3.Connection], object]) -> None:
        if (file := self._file) is not None:

            def checked(connection: sqlite3.Connection) -> None:
                file.check()
                work(connection)

            file.store.start(checked)

    def _opened(self) -> "_File":
        if self._path is not None:
            # If it can't be made here, the store says so in its own words.
            with contextlib.suppress(OSError):
                self._path.touch(mode=0o600)
        store = SQLiteStore(
            _IN_MEMORY if self._path is None else self._path,
            schema_version=_SCHEMA_VERSION,
            migrate=_migrate,
            synchronous=self._synchronous,
            busy_timeout=_BUSY_TIMEOUT,
            is_shrinkable=True,
        )
        self._file = _File(self._path, store)
        return self._file

    def leave_before_fork(self) -> None:
        """Close the file: SQLite's locks belong to a process, and a child would break them."""
        if self._path is not None and self._file is not None:
            self._file.store.close()
            self._file = None

    def leave_in_child(self) -> None:
        """Forget a database in memory, whose thread stayed in the parent."""
        abandon(self._file)
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
        """Remove the log that the old file left: SQLite would apply it to the new one.

        Before the connection closes: while it has the log open, no new file's gets its number.
        """
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


_SCHEMA_VERSION: Final = 2

_EVENTS: Final = """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        default_event TEXT,
        received_at REAL NOT NULL,
        synthetic INTEGER NOT NULL,
        signed INTEGER NOT NULL,
        name TEXT NOT NULL DEFAULT '',
        receiver TEXT NOT NULL DEFAULT '',
        tenant TEXT
    )
    """
_SUBJECTS: Final = """
    CREATE TABLE subjects (
        subject TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        synthetic INTEGER NOT NULL,
        event_id INTEGER,
        seen_at REAL NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """
# An event is in waiting or in ended. Neither holds its text, which can be a megabyte, so that a
# change of state doesn't write it again.
_STATES: Final = (
    """
    CREATE TABLE waiting (
        event_id INTEGER PRIMARY KEY,
        receiver TEXT NOT NULL,
        waits_for TEXT NOT NULL DEFAULT '',
        due_at REAL NOT NULL,
        starts INTEGER NOT NULL DEFAULT 0,
        token TEXT
    )
    """,
    "CREATE INDEX waiting_due ON waiting (receiver, waits_for, due_at, event_id)",
    "CREATE INDEX waiting_claimed ON waiting (token, due_at) WHERE token IS NOT NULL",
    """
    CREATE TABLE ended (
        event_id INTEGER PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ('done', 'ignored', 'dead')),
        ended_at REAL NOT NULL
    )
    """,
    "CREATE INDEX ended_by_age ON ended (state, ended_at, event_id)",
    """
    CREATE TABLE handled (
        event_id INTEGER NOT NULL,
        handler TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('done', 'failed', 'dead')),
        failures INTEGER NOT NULL DEFAULT 0,
        due_at REAL,
        ended_at REAL,
        error TEXT,
        PRIMARY KEY (event_id, handler)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX handled_dead ON handled (ended_at) WHERE state = 'dead'",
    """
    CREATE TABLE handlers (
        receiver TEXT NOT NULL,
        handler TEXT NOT NULL,
        events TEXT NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (receiver, handler)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX subjects_by_age ON subjects (seen_at)",
)
# The first version stored a task for each event and handler, decided when the event came.
_FROM_TASKS: Final = (
    "DROP INDEX events_by_age",
    "ALTER TABLE events ADD COLUMN name TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE events ADD COLUMN receiver TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE events ADD COLUMN tenant TEXT",
    "ALTER TABLE subjects ADD COLUMN event_id INTEGER",
    "ALTER TABLE subjects ADD COLUMN seen_at REAL NOT NULL DEFAULT 0",
    *_STATES,
    "UPDATE events SET name = name_of(text, default_event)",
    "UPDATE subjects SET seen_at = now()",
    """
    INSERT INTO waiting (event_id, receiver, due_at, starts)
    SELECT event_id, '', min(due_at), max(0, max(starts - failures))
    FROM tasks WHERE state = 'pending' GROUP BY event_id
    """,
    # An event without tasks had no handler when it came.
    """
    INSERT INTO ended
    SELECT e.id,
        CASE WHEN count(t.handler) = 0 THEN 'ignored'
            WHEN max(t.state = 'dead') THEN 'dead' ELSE 'done' END,
        coalesce(max(t.ended_at), e.received_at)
    FROM events e LEFT JOIN tasks t ON t.event_id = e.id
    WHERE e.id NOT IN (SELECT event_id FROM waiting) GROUP BY e.id
    """,
    """
    INSERT INTO handled
    SELECT event_id, handler, CASE state WHEN 'pending' THEN 'failed' ELSE state END,
        failures, due_at, ended_at, error
    FROM tasks WHERE state != 'pending' OR failures > 0
    """,
    "DROP TABLE tasks",
)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a file of an older version, 0 being an empty one, to the present one.

    Raises:
        ConfigurationError: The file is an SQLite database of something else.
    """
    if version == 1:
        connection.create_function("name_of", 2, _name_of)
        connection.create_function("now", 0, time.time)
        statements: tuple[str, ...] = _FROM_TASKS
    else:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ConfigurationError(
                "The inbox's path is a database of something else: choose another file."
            )
        statements = (_EVENTS, _SUBJECTS, *_STATES)
    for statement in statements:
        connection.execute(statement)


def _name_of(text: str, default_event: str | None) -> str:
    try:
        return decode_event(text, default_event=default_event).event
    except WebhookVerificationError:
        return default_event or ""
