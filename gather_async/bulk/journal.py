"""The memory of a job, from which it goes on after any crash."""

import asyncio
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, frozen

from gather_async.bulk.journal_schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    Instant,
    JournalIdentity,
    RequestHistory,
    index_persons,
    migrate,
    seal,
)
from gather_async.bulk.journal_sql import (
    SourceRow,
    count_invited,
    finish_source,
    save,
    upsert_rows,
)
from gather_async.bulk.row_state import RowRecord
from gather_async.errors import ConfigurationError
from gather_async.storage import FileLock, SQLiteStore

__all__ = ["Connect", "Journal", "JournalScope", "connect_to"]


Connect = Callable[[], AbstractContextManager[sqlite3.Connection]]
"""Opens a journal's file for reading, and closes it."""


def connect_to(path: Path) -> Connect:
    """Return what opens a journal's file for reading, and closes it."""
    # Not "ro": a reader that may not write leaves the files of its WAL behind.
    uri = f"{path.resolve().as_uri()}?mode=rw"

    def connect() -> AbstractContextManager[sqlite3.Connection]:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        connection.execute("PRAGMA query_only = ON")
        return closing(connection)

    return connect


T = TypeVar("T")

# The -wal file stays below some megabytes, and a flush of the disk is added to few writes.
_SEALED_EVERY = 256
# A chunk of the source: among many rows the random key of each is on a page of its own.
_WEIGHT_OF_ROWS = 16


@frozen(kw_only=True)
class JournalScope:
    """The purpose of a journal; another job's journal is refused by it."""

    interview_id: str
    server: str
    """The base URL: staging's invites are not production's."""
    invitation: str
    """What people are invited with, in any form that differs where it does."""
    key_digest: Callable[[bytes], str]
    """Returns the digest of the API key under a salt; the journal keeps no key."""
    other_key: bool
    """Whether a key that the journal doesn't know is of the same organization."""


@define(eq=False)
class Journal:
    """The state of each row of a job, on disk before anything happens.

    Every method that writes returns when the change is committed. Cancelling one
    leaves open whether it is, which is why a row is looked up rather than believed.
    """

    _store: SQLiteStore
    _lock: FileLock | None
    identity: JournalIdentity
    _requests: RequestHistory
    _unsealed: int = 0
    """Writes since the main file was last whole."""

    @classmethod
    async def open(
        cls,
        path: Path | None,
        scope: JournalScope,
        *,
        keeps_candidates: bool,
        retry_failed: bool,
        owner: str,
    ) -> "Journal":
        """Open or begin a journal; None: one that lasts as long as the job.

        Args:
            path: Its file.
            scope: What it must be for, if it was begun before.
            keeps_candidates: Whether rows are written out.
            retry_failed: Whether rows that the server refused in an earlier run are opened again.
            owner: Names the limiter that counts the requests.

        Raises:
            ConfigurationError: It belongs to another interview, server or key, is in use,
                is no journal, lacks its last changes, or was written by a newer version.
            OSError: Its file or lock can't be made.
        """
        # SQLite follows symbolic links too, and has its files beside the real one.
        path = None if path is None else await asyncio.to_thread(path.resolve)
        lock = None if path is None else FileLock(path, what="journal", is_opened_later=True)
        try:
            is_alone = path is not None and not _wal_of(path).exists()
            store = SQLiteStore(
                "" if path is None else path,
                schema_version=SCHEMA_VERSION,
                migrate=migrate,
                lock=lock,
            )
            try:
                identity = await store.run(
                    lambda connection: _identify(
                        connection,
                        scope,
                        keeps_candidates=keeps_candidates,
                        retry_failed=retry_failed,
                        is_alone=is_alone,
                    )
                )
                if lock is not None:
                    await store.read(_begin_seals)
            except BaseException:
                await store.aclose()
                raise
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return cls(store, lock, identity, RequestHistory(identity.run, owner))

    async def upsert_rows(self, entries: Sequence[SourceRow]) -> list[RowRecord]:
        """Take consecutive rows of the source in, and return where each stands."""
        return await self._write(
            lambda connection: upsert_rows(connection, self.identity, entries),
            weight=_WEIGHT_OF_ROWS,
        )

    async def finish_source(self) -> None:
        """Forget rows that are no longer in the source and that the server doesn't know."""
        await self._store.run(lambda connection: finish_source(connection, self.identity))

    async def count_invited(self) -> int:
        """Return how many invites of the server are surely those of this journal's rows."""
        return await self._store.read(count_invited)

    async def save(self, record: RowRecord) -> None:
        """Write where a row stands, and which requests have ended until now."""

        def write(connection: sqlite3.Connection) -> None:
            save(connection, self.identity, record)
            self._requests.write_ended(connection)

        await self._write(write)

    async def request_started(self, at: Instant) -> int:
        """Write down a request before it is sent; return its number.

        Raises:
            ConfigurationError: The journal's file isn't there any more.
        """

        def write(connection: sqlite3.Connection) -> int:
            if self._lock is not None:
                self._lock.require_file()
            return self._requests.start(connection, at)

        return await self._write(write)

    def request_ended(self, number: int, at: float | None) -> None:
        """Correct a request's time with the next write; None if it never was sent."""
        self._requests.ended.append((number, at))

    async def record_alive(self, at: Instant) -> None:
        """Write down that requests of this run are still on their way."""
        await self._write(lambda connection: self._requests.record_alive(connection, at))

    async def ages(self, now: Instant) -> Mapping[int, float]:
        """Return for how many seconds, at least, each earlier run has sent nothing.

        Only runs whose requests have an unknown fate count.
        """
        return await self._write(lambda connection: self._requests.ages(connection, now))

    async def claim_history(self, now: float) -> list[float]:
        """Return when requests that the limiter doesn't know of ended, and make them its own.

        Those are the last hour's, in Unix seconds; each is returned to one limiter
        once.
        """
        return await self._store.run(lambda connection: self._requests.claim(connection, now))

    async def cache_listed(self, kind: str, people: Iterable[tuple[str, str, bool | None]]) -> None:
        """Keep, for this run only, what a list of the server says: key, id, SMS opt-in."""
        rows = [(self.identity.digest(kind, key), item, opted_in) for key, item, opted_in in people]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO temp.listed VALUES (?, ?, ?)", rows)

        await self._store.run(write)

    async def cached(self, kind: str, key: str) -> tuple[str, bool | None] | None:
        """Return what `cache_listed` was given for a key: id and SMS opt-in; None if nothing."""
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
            with suppress(sqlite3.Error):
                await self._store.run(self._requests.write_ended)
        finally:
            try:
                await self._store.aclose()
            finally:
                if self._lock is not None:
                    self._lock.release()
                    self._lock = None

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, weight: int = 1) -> T:
        result = await self._store.run(work)
        self._unsealed += weight
        if self._unsealed >= _SEALED_EVERY and self._lock is not None:
            self._unsealed = 0
            await self._store.read(seal)
        return result


def _wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _begin_seals(connection: sqlite3.Connection) -> None:
    """Let nothing but `seal` bring changes into the main file."""
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    seal(connection)


def _identify(
    connection: sqlite3.Connection,
    scope: JournalScope,
    *,
    keeps_candidates: bool,
    retry_failed: bool,
    is_alone: bool,
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
            "interview_id": scope.interview_id,
            "server": scope.server,
        }
    _require_scope(meta, scope)
    if is_alone and meta.get("mark") != meta.get("seen"):
        raise ConfigurationError(
            "The journal lacks its last changes: the job that wrote it was killed, and they are"
            " in the file beside it whose name ends in -wal. Bring that file back; if it is gone,"
            " begin a new journal, which finds everyone again by their external ids."
        )
    run = int(meta.get("run", "0")) + 1
    meta = {"mark": "0", "seen": "0", **meta, "keys": _with_key(meta, scope), "run": str(run)}
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
    return JournalIdentity(
        journal_id=meta["journal_id"],
        interview_id=meta["interview_id"],
        run=run,
        keeps_candidates=keeps_candidates,
        invitation=blake2b(scope.invitation.encode(), digest_size=16).digest(),
        retry_failed=retry_failed,
        has_earlier_rows=index_persons(connection),
    )


def _require_scope(meta: Mapping[str, str], scope: JournalScope) -> None:
    for name in ("interview_id", "server"):
        if meta[name] != getattr(scope, name):
            raise ConfigurationError(
                f"The journal belongs to another {name.removesuffix('_id')}: give this job a"
                " journal of its own."
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
