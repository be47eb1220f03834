"""An SQLite file behind asyncio: one connection, on one thread of ours, commits grouped."""

import sqlite3
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from gather_async.storage.worker import Connector, DatabaseThread, Job, Migration, Work

__all__ = ["SQLiteStore"]

T = TypeVar("T")


class SQLiteStore:
    """One SQLite database, used from any number of tasks and event loops.

    The file is opened with the first `run`, in WAL mode, with ``synchronous=FULL``:
    what `run` returned from survives ``kill -9`` and a power cut. Another process
    may use the same file. The thread is a daemon, so a store that was never closed
    does not hold up the interpreter's exit, and loses nothing that was committed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        schema_version: int,
        migrate: Migration,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout: float = 5.0,
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
        """
        opening = Connector(str(path), schema_version, migrate, synchronous, busy_timeout)
        self._worker = DatabaseThread(opening)
        # A store that was dropped unclosed must not keep its thread.
        self._finalizer = weakref.finalize(self, self._worker.stop)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
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
            ConfigurationError: The file can't be opened, is no database, or was written
                by a newer version. The next call tries to open it again.
            ClientClosedError: The store is closed.
            sqlite3.Error: The disk is full, or another process kept the file for longer
                than ``busy_timeout``; nothing of the work was kept.
            Exception: What the work raised; nothing of it was kept.
        """
        return cast("T", await self._submit(work, writes=True))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a work that only reads: outside a transaction, so it waits for no other process.

        ``Connection.backup`` works here and only here: inside a write transaction
        SQLite refuses it forever.

        Raises:
            Exception: As for `run`.
        """
        return cast("T", await self._submit(work, writes=False))

    async def aclose(self) -> None:
        """Finish what was asked for, close the file and end the thread; harmless to repeat.

        Cancelling it leaves the thread to finish by itself.
        """
        self._finalizer.detach()
        end = Job.of(bool, writes=False)
        if self._worker.stop(end):
            await end.future

    async def _submit(self, work: Work, *, writes: bool) -> Any:
        job = Job.of(work, writes=writes)
        self._worker.submit(job)
        return await job.future

    def __repr__(self) -> str:
        return f"<SQLiteStore {'closed' if self._worker.is_stopped else 'open'}>"
