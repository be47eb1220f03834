"""A database behind asyncio: one connection, on one thread of ours, commits grouped."""

import sqlite3
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from gather_async.errors import ClientClosedError
from gather_async.loops import outside_work
from gather_async.storage.database import (
    Connector,
    DatabaseThread,
    Job,
    Migration,
    SQLiteConnector,
    Work,
)
from gather_async.storage.sqlite import FileLock

__all__ = ["DatabaseStore", "SQLiteStore"]

T = TypeVar("T")
D = TypeVar("D")


class DatabaseStore(Generic[D]):
    """One database, used from any number of tasks and event loops.

    It is opened with the first `run`. The thread is a daemon, so a store that was never
    closed does not hold up the interpreter's exit, and loses nothing that was committed.
    """

    def __init__(self, connector: Connector) -> None:
        """Make a store. Nothing is opened yet."""
        self._worker = DatabaseThread(connector)
        # A store that was dropped unclosed must not keep its thread.
        self._finalizer = weakref.finalize(self, self._worker.stop)

    async def run(self, work: Callable[[D], T]) -> T:
        """Run a work on the thread, and return its result once it is committed.

        Works run one at a time, in the order of their calls. Those that queued up
        meanwhile share one transaction and one disk flush, each inside its own
        savepoint: one that raises is undone alone.

        A work that was cancelled before it began does not run; later on it runs to
        its end, and whether it was committed is left open.

        Args:
            work: Gets the connection. It may write, and must neither commit, roll back,
                keep the connection, nor touch the loop.

        Raises:
            ConfigurationError: The database can't be opened, or was written by a newer
                version. The next call tries to open it again.
            ClientClosedError: The store is closed.
            sqlite3.Error: The disk is full, or another process kept the file for longer
                than ``busy_timeout``; nothing of the work was kept.
            Exception: What the work or its database raised; nothing of it was kept.
        """
        return cast("T", await self._submit(work, writes=True))

    async def read(self, work: Callable[[D], T]) -> T:
        """Run a work outside a transaction: one that only reads, or what needs to be there.

        Reading waits for no other process. ``Connection.backup`` and
        ``PRAGMA wal_checkpoint`` work here and only here: inside a write transaction
        SQLite refuses them forever. Each statement that writes is a transaction of its own.

        Raises:
            Exception: As for `run`.
        """
        return cast("T", await self._submit(work, writes=False))

    def start(self, work: Callable[[D], object]) -> None:
        """Queue a work like `run`, for a caller that can't wait, nor hear of an error.

        A store that is closed leaves it undone.
        """
        job = Job.of(work, writes=True)
        job.future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        with suppress(ClientClosedError):
            self._worker.submit(job)

    @property
    def connection(self) -> D | None:
        """The open connection; only the thread may use it."""
        return cast("D | None", self._worker.connection)

    async def aclose(self) -> None:
        """Finish what was asked for, close the file and end the thread; harmless to repeat.

        Cancelling it leaves the thread to finish by itself.
        """
        self._finalizer.detach()
        end = Job.of(bool, writes=False)
        if self._worker.stop(end):
            with outside_work():
                await end.future

    def close(self) -> None:
        """Do what `aclose` does, and block until then: for a process that is about to fork."""
        self._finalizer.detach()
        self._worker.stop()
        self._worker.join()

    async def _submit(self, work: Work, *, writes: bool) -> Any:
        job = Job.of(work, writes=writes)
        self._worker.submit(job)
        with outside_work():
            return await job.future

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self._worker.is_stopped else 'open'}>"


class SQLiteStore(DatabaseStore[sqlite3.Connection]):
    """One SQLite file, in WAL mode, with ``synchronous=FULL``.

    What `run` returned from survives ``kill -9`` and a power cut. Another process may use
    the same file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        schema_version: int,
        migrate: Migration,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout: float = 5.0,
        is_shrinkable: bool = False,
        lock: FileLock | None = None,
    ) -> None:
        """Make a store. Nothing is opened yet.

        Args:
            path: The file; made if absent, its folder is not. ``":memory:"`` and ``""``
                (a temporary file) last as long as the store.
            schema_version: What this program writes, 1 or more; kept in the file's
                ``user_version``.
            migrate: Called with the connection and the file's version (0 for an empty
                file) if that is older; it runs inside a transaction, on the thread, and
                must not commit, so no ``executescript``.
            synchronous: ``NORMAL`` is faster and may lose the last commits to a power
                cut, never to a crash of the process.
            busy_timeout: Seconds to wait for another process's transaction.
            is_shrinkable: Whether a new file can give free pages back, by
                ``PRAGMA incremental_vacuum``.
            lock: Of the file; completed once it is open, before anything is read of it.
        """
        super().__init__(
            SQLiteConnector(
                str(path),
                schema_version,
                migrate,
                synchronous,
                busy_timeout,
                is_shrinkable,
                on_open=None if lock is None else lock.lock_open_file,
            )
        )
