"""What a job remembers, so that it can go on after any crash."""

import contextlib
import errno
import os
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, frozen

from gather_async.bulk.journal_schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    JournalIdentity,
    RequestHistory,
    migrate,
)
from gather_async.bulk.journal_sql import SourceRow, finish_source, save, upsert_rows
from gather_async.bulk.row_state import RowRecord
from gather_async.errors import ConfigurationError
from gather_async.storage import SQLiteStore

__all__ = ["Journal", "JournalLock", "JournalScope"]

_TAKEN = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK})


class JournalLock:
    """An exclusive lock of the operating system on ``<journal>.lock``.

    The kernel lets go of it when the process ends, kill -9 included, so a lock
    file that was left behind locks nothing. It is a file of its own because the
    journal's file has SQLite's own locks.
    """

    def __init__(self, journal: Path) -> None:
        """Take the lock.

        Raises:
            ConfigurationError: Another job, of this process or another, has it.
            OSError: The lock file can't be made, or its file system has no locks.
        """
        self._path = journal.with_name(journal.name + ".lock")
        while True:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _lock(self._descriptor)
            except OSError as error:
                os.close(self._descriptor)
                if error.errno not in _TAKEN:
                    raise
                raise ConfigurationError(
                    "The journal is in use by another job: wait for it to end, or give this"
                    " one a journal of its own."
                ) from None
            if self._is_current():
                return
            os.close(self._descriptor)  # its last owner removed the file meanwhile

    def release(self) -> None:
        """Let go of the lock, and remove its file."""
        # While it is locked, so that nobody can lock a file that is gone.
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@frozen(kw_only=True)
class JournalScope:
    """What a journal is for; another job's journal is refused by it."""

    interview_id: str
    server: str
    """The base URL: staging's invites are not production's."""
    key_digest: Callable[[bytes], str]
    """Returns the digest of the API key under a salt; the journal keeps no key."""
    other_key: bool
    """Whether a key that the journal doesn't know is of the same organization."""


@define(eq=False)
class Journal:
    """Where each row of a job stands, on disk before anything happens.

    Every method that writes returns when the change is committed. Cancelling one
    leaves open whether it is, which is why a row is looked up rather than believed.
    """

    _store: SQLiteStore
    _lock: JournalLock | None
    identity: JournalIdentity
    _requests: RequestHistory

    @classmethod
    async def open(
        cls,
        path: Path | None,
        purpose: JournalScope,
        *,
        keeps_candidates: bool,
        retry_failed: bool,
        owner: str,
    ) -> "Journal":
        """Open or begin a journal; None: one that lasts as long as the job.

        Args:
            path: Its file.
            purpose: What it must be for, if it was begun before.
            keeps_candidates: Whether rows are written out.
            retry_failed: Whether rows that an earlier run saw refused are opened again.
            owner: Names the limiter that counts the requests.

        Raises:
            ConfigurationError: It belongs to another interview, server or key, is in use, is
                no journal, or was written by a newer version.
            OSError: Its file or lock can't be made.
        """
        lock = None if path is None else JournalLock(path)
        try:
            if path is not None:
                _begin_file(path)
            store = SQLiteStore(
                "" if path is None else path, schema_version=SCHEMA_VERSION, migrate=migrate
            )
            try:
                identity = await store.run(
                    lambda connection: _identify(
                        connection, purpose, keeps_candidates, retry_failed
                    )
                )
            except BaseException:
                await store.aclose()
                raise
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return cls(store, lock, identity, RequestHistory(identity.run, owner))

    async def upsert_rows(self, entries: Sequence[SourceRow]) -> list[RowRecord]:
        """Take consecutive rows of the source in, and return where each stands.

        Raises:
            ConfigurationError: A row that the server may know of has changed.
        """
        return await self._store.run(
            lambda connection: upsert_rows(connection, self.identity, entries)
        )

    async def finish_source(self, last_row: int) -> None:
        """Check that no row is missing at the end of the source.

        Raises:
            ConfigurationError: The server may know of a row beyond the last.
        """
        await self._store.run(lambda connection: finish_source(connection, last_row))

    async def save(self, record: RowRecord) -> None:
        """Write where a row stands, and which requests have ended until now."""

        def write(connection: sqlite3.Connection) -> None:
            save(connection, self.identity, record)
            self._requests.write_ended(connection)

        await self._store.run(write)

    async def request_started(self, at: float) -> int:
        """Write down a request before it is sent; return its number."""
        return await self._store.run(lambda connection: self._requests.start(connection, at))

    def request_ended(self, number: int, at: float | None) -> None:
        """Correct a request's time with the next write; None if it never was sent."""
        self._requests.ended.append((number, at))

    async def last_requests(self) -> Mapping[int, float]:
        """Return when each run of the last hour sent its last request, in Unix seconds."""
        return await self._store.read(self._requests.last)

    async def adopt_requests(self, now: float) -> list[float]:
        """Return when requests that the limiter doesn't know of ended, and make them its own.

        Those are the last hour's, in Unix seconds; each is returned to one limiter
        once.
        """
        return await self._store.run(lambda connection: self._requests.adopt(connection, now))

    async def remember(self, kind: str, people: Iterable[tuple[str, str, bool | None]]) -> None:
        """Keep, for this run only, what a list of the server says: key, id, SMS opt-in."""
        rows = [(self.identity.digest(kind, key), item, opted_in) for key, item, opted_in in people]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO temp.listed VALUES (?, ?, ?)", rows)

        await self._store.run(write)

    async def recall(self, kind: str, key: str) -> tuple[str, bool | None] | None:
        """Return what `remember` was told of a key: id and SMS opt-in; None if nothing."""
        digest = self.identity.digest(kind, key)

        def read(connection: sqlite3.Connection) -> Any:
            return connection.execute(
                "SELECT id, opted_in FROM temp.listed WHERE key = ?", (digest,)
            ).fetchone()

        found = await self._store.read(read)
        if found is None:
            return None
        return found[0], None if found[1] is None else bool(found[1])

    async def copy_to(self, target: sqlite3.Connection) -> None:
        """Copy all of it into another database, which must allow use from other threads."""
        await self._store.read(lambda connection: connection.backup(target))

    async def aclose(self) -> None:
        """Write what is left, close the file, and let the next job have it."""
        try:
            # A full disk must not hide why the job ended.
            with contextlib.suppress(sqlite3.Error):
                await self._store.run(self._requests.write_ended)
        finally:
            try:
                await self._store.aclose()
            finally:
                if self._lock is not None:
                    self._lock.release()
                    self._lock = None


def _begin_file(path: Path) -> None:
    """Make the file if need be, for its owner's eyes only: it holds personal data."""
    if not path.exists():
        path.touch(mode=0o600)


def _identify(
    connection: sqlite3.Connection,
    purpose: JournalScope,
    keeps_candidates: bool,
    retry_failed: bool,
) -> JournalIdentity:
    """Return which journal this is, one run further; begin it if it is new."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise ConfigurationError(
            "The journal's path is a database of something else: choose another file."
        )
    connection.execute(
        "CREATE TEMP TABLE listed (key BLOB PRIMARY KEY, id TEXT, opted_in INTEGER) WITHOUT ROWID"
    )
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    if not meta:
        meta = {
            "journal_id": f"bulk-{uuid.uuid4().hex[:16]}",
            "interview_id": purpose.interview_id,
            "server": purpose.server,
        }
    for name in ("interview_id", "server"):
        if meta[name] != getattr(purpose, name):
            raise ConfigurationError(
                f"The journal belongs to another {name.removesuffix('_id')}: give this job a"
                " journal of its own."
            )
    meta["keys"] = _with_key(meta, purpose)
    run = int(meta.get("run", "0")) + 1
    connection.executemany(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)", [*meta.items(), ("run", str(run))]
    )
    return JournalIdentity(
        journal_id=meta["journal_id"],
        run=run,
        keeps_candidates=keeps_candidates,
        retry_failed=retry_failed,
    )


def _with_key(meta: Mapping[str, str], scope: JournalScope) -> str:
    """Return the digests of the keys that the journal was used with, this one's included."""
    known = meta.get("keys", "").split()
    digest = scope.key_digest(meta["journal_id"].encode())
    if known and digest not in known and not scope.other_key:
        raise ConfigurationError(
            "The journal was begun with another API key, and another organization's people"
            " would be invited again: use the first key, or pass other_key=True (--other-key)"
            " if both keys belong to the same organization."
        )
    return " ".join(dict.fromkeys([*known, digest]))
