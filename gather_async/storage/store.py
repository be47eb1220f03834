"""A database behind asyncio: one connection, on one thread of ours, commits grouped."""

import errno
import os
import sqlite3
import struct
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.loops import outside_work
from gather_async.storage.worker import (
    Connector,
    DatabaseThread,
    Job,
    Migration,
    SQLiteConnector,
    Work,
)

__all__ = ["DatabaseStore", "FileLock", "SQLiteStore"]

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
        """
        super().__init__(
            SQLiteConnector(
                str(path), schema_version, migrate, synchronous, busy_timeout, is_shrinkable
            )
        )


class FileLock:
    """An exclusive lock on a database file, by whatever name it is opened.

    It is held on ``<file>.lock``, where the file really is, and on the file itself,
    which a second name (a hard link) shares, and from which a ``.lock`` that was removed
    takes nothing. The former also keeps others from a file that replaced the locked one:
    the ``-wal`` beside it is still the locked one's. The kernel lets go of both when the
    process ends, kill -9 included, so a lock file that was left behind locks nothing.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        """Take the lock; the file is made, readable for its owner only, if it isn't there.

        Args:
            path: The file, as `Path.resolve` returns it.
            what: What messages call the file.

        Raises:
            ConfigurationError: Another job, of this process or another, has it.
            OSError: A file can't be made, or its file system has no locks.
        """
        self._path = path
        self._what = what
        self._beside = path.with_name(path.name + ".lock")
        self._descriptors: list[int] = []
        self._file: tuple[int, int] | None = None
        try:
            self._lock_beside()
            self._lock_file()
        except BaseException:
            self.release()
            raise

    def require_file(self) -> None:
        """Raise unless the file that was locked is still where it was.

        Raises:
            ConfigurationError: It was removed, moved or replaced.
        """
        if self._file != _file_at(self._path):
            raise ConfigurationError(
                f"The {self._what}'s file was removed, moved or replaced while the job was running,"
                " so the job stops: bring it back, with its -wal file, before you go on."
            )

    def release(self) -> None:
        """Let go of the lock, and remove the file beside; only once the database is closed."""
        if self._file is not None:
            _FILES_IN_USE.discard(self._file)
            self._file = None
        with suppress(OSError):
            # While it is locked, so that no other job can lock a file that is gone.
            if self._descriptors and _owns(self._descriptors[0], self._beside):
                self._beside.unlink()
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _lock_beside(self) -> None:
        while not self._descriptors:
            descriptor = os.open(self._beside, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._take(_lock, descriptor)
                if _owns(descriptor, self._beside):
                    self._descriptors.append(descriptor)
            finally:
                if not self._descriptors:  # taken, or removed by its last owner meanwhile
                    os.close(descriptor)

    def _lock_file(self) -> None:
        if not self._path.exists():
            self._path.touch(mode=0o600)  # it holds personal data
        file = _file_at(self._path)
        # Closing a descriptor of the file would drop the locks that SQLite has on it in
        # this process, so a job of this process must be known without opening it.
        with _GUARD:
            if file is None or file in _FILES_IN_USE:
                raise self._in_use()
            _FILES_IN_USE.add(file)
            self._file = file
        descriptor = os.open(self._path, os.O_RDWR)
        self._descriptors.append(descriptor)
        self._take(_lock_shared_by_names, descriptor)
        self.require_file()

    def _take(self, lock: Callable[[int], None], descriptor: int) -> None:
        try:
            lock(descriptor)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            raise self._in_use() from None

    def _in_use(self) -> ConfigurationError:
        return ConfigurationError(
            f"The {self._what} is in use by another job: wait for it to end, or give this one a"
            f" {self._what} of its own."
        )


_TAKEN = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK})
_GUARD = threading.Lock()
_FILES_IN_USE: set[tuple[int, int]] = set()


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _file_at(path: Path) -> tuple[int, int] | None:
    """Return which file is there, by whatever name; None if there is none."""
    try:
        return _identity_of(path.stat())
    except FileNotFoundError:
        return None


def _owns(descriptor: int, path: Path) -> bool:
    """Return whether the open file is the one that is at the path."""
    return _identity_of(os.fstat(descriptor)) == _file_at(path)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


if sys.platform == "linux":
    # Far behind the bytes that SQLite locks, and whatever a database can be long.
    _FAR_BYTE = 1 << 60

    def _lock_shared_by_names(descriptor: int) -> None:
        # Of the open file, not of the process: the latter would end with any descriptor
        # of the file that the process closes. Fields of `struct flock`; the last is 0.
        wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _FAR_BYTE, 1, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)

else:

    def _lock_shared_by_names(descriptor: int) -> None:
        # Elsewhere such a lock would get into the way of SQLite's own.
        if os.fstat(descriptor).st_nlink > 1:
            raise ConfigurationError(
                "The file has a second name (a hard link), under which another job could use it:"
                " remove one of them."
            )
