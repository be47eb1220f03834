"""SQLite files: opened in WAL mode, brought up to date, and locked for one job at a time."""

import errno
import os
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from attrs import frozen

from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.storage.database import DatabaseStore

__all__ = ["FileLock", "SQLiteStore"]


class FileLock:
    """An exclusive lock on a database file, by whatever name it is opened.

    It is held on ``<file>.lock``, where the file really is, and on the file itself,
    which a second name (a hard link) shares, and from which a ``.lock`` that was removed
    takes nothing. The former also keeps others from a file that replaced the locked one:
    the ``-wal`` beside it is still the locked one's. The kernel lets go of both when the
    process ends, kill -9 included, so a lock file that was left behind locks nothing.

    That a file has one name says nothing: it can be renamed, or get a second one, while
    it is in use. So the lock on the file itself is needed always.
    """

    def __init__(self, path: Path, *, what: str, is_opened_later: bool = False) -> None:
        """Take the lock; the file is made, readable for its owner only, if it isn't there.

        Args:
            path: The file, as `Path.resolve` returns it.
            what: What messages call the file.
            is_opened_later: Whether the lock on the file itself is left to `lock_open_file`.

        Raises:
            ConfigurationError: Another job, of this process or another, has it.
            OSError: A file can't be made, or its file system has no locks.
        """
        self._path = path
        self._what = what
        self._beside = path.with_name(path.name + ".lock")
        self._descriptors: list[int] = []
        self._file: tuple[int, int] | None = None
        self._borrowed: int | None = None
        """The database's descriptor, if it has the lock on the file itself."""
        try:
            self._lock_beside()
            self._register_file()
            if not is_opened_later:
                self._lock_file()
                self.require_file()
        except BaseException:
            self.release()
            raise

    def lock_open_file(self) -> None:
        """Take the lock on the file itself, which a connection of this thread has just opened.

        Where that is the only descriptor that the process has of the file, the lock is
        held there: it ends with the connection at the latest, and costs no descriptor.

        Raises:
            ConfigurationError: Another job has it, or the file was replaced.
            ClientClosedError: The lock was released.
            OSError: The file can't be written, or its file system has no locks.
        """
        file = self._file
        found = None if file is None else _only_descriptor_of(file)
        with _GUARD:
            if self._file is None:
                raise ClientClosedError("This lock was released: make a new one.")
            self._lock_file(found)
        self.require_file()

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
        with _GUARD:
            if self._file is not None:
                self._give_back()
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

    def _register_file(self) -> None:
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

    def _lock_file(self, descriptor: int | None = None) -> None:
        """Lock the file itself, on the database's descriptor, or else on our own."""
        self._give_back()
        if len(self._descriptors) > 1:  # locked when the database was opened before, in vain
            return
        if descriptor is not None:
            self._take(_lock_shared_by_names, descriptor)
            self._borrowed = descriptor
            return
        own = os.open(self._path, os.O_RDWR)
        try:
            self._take(_lock_shared_by_names, own)
        except BaseException:
            os.close(own)
            raise
        self._descriptors.append(own)

    def _give_back(self) -> None:
        """Unlock the database's descriptor, which SQLite keeps while others read the file.

        If it was closed, and has its number again, no other lock has been taken on it:
        the file is registered as ours, and the guard is held.
        """
        borrowed, self._borrowed = self._borrowed, None
        with suppress(OSError):  # closed, as it should be
            if borrowed is not None and _identity_of(os.fstat(borrowed)) == self._file:
                _lock_shared_by_names(borrowed, is_held=False)

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

if hasattr(os, "register_at_fork"):
    # A child must not inherit a guard that a thread, which it doesn't have, would release.
    os.register_at_fork(
        before=_GUARD.acquire, after_in_parent=_GUARD.release, after_in_child=_GUARD.release
    )


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

    def _lock_shared_by_names(descriptor: int, *, is_held: bool = True) -> None:
        # Of the open file, not of the process: the latter would end with any descriptor
        # of the file that the process closes. Fields of `struct flock`; the last is 0.
        kind = fcntl.F_WRLCK if is_held else fcntl.F_UNLCK
        wanted = struct.pack("hhqqi4x", kind, os.SEEK_SET, _FAR_BYTE, 1, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)

    def _only_descriptor_of(file: tuple[int, int]) -> int | None:
        """Return this process's descriptor of a file; None if there are more, or it only reads.

        A descriptor that is open all the while is surely found. So if a connection has the
        file open, and one is found, it is the connection's, whatever other threads do.
        """
        try:
            listed = os.listdir("/proc/self/fd")  # noqa: PTH208 - a path each took twice the time
            found = [int(name) for name in listed if _is_of(int(name), file)]
        except OSError:  # no /proc, or a descriptor of which nothing can be said
            return None
        if len(found) != 1 or fcntl.fcntl(found[0], fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            return None
        return found[0]

    def _is_of(descriptor: int, file: tuple[int, int]) -> bool:
        try:
            return _identity_of(os.fstat(descriptor)) == file
        except OSError as error:
            if error.errno == errno.EBADF:  # closed since it was listed
                return False
            raise

else:

    def _lock_shared_by_names(descriptor: int, *, is_held: bool = True) -> None:
        # Elsewhere such a lock would get into the way of SQLite's own.
        if os.fstat(descriptor).st_nlink > 1:
            raise ConfigurationError(
                "The file has a second name (a hard link), under which another job could use it:"
                " remove one of them."
            )

    def _only_descriptor_of(file: tuple[int, int]) -> int | None:
        return None


# What no later attempt will cure; all else, such as a full disk, is passed on as it is.
_LASTING: Final = {
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB),
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY),
}


@frozen
class _Connector:
    """Maker of connections to an SQLite file."""

    path: str
    schema_version: int
    migrate: Callable[[sqlite3.Connection, int], None]
    synchronous: str
    busy_timeout: float
    is_shrinkable: bool
    lock: FileLock | None
    thread_name: str = "gather-async-sqlite"
    begin: str = "BEGIN IMMEDIATE"
    lost: type[Exception] = sqlite3.OperationalError

    def is_broken(self, connection: sqlite3.Connection) -> bool:
        """Return False: a file goes on."""
        return False

    def connect(self) -> sqlite3.Connection:
        """Return a connection to a database of the right version."""
        try:
            connection = sqlite3.connect(
                self.path, timeout=self.busy_timeout, isolation_level=None, factory=_Connection
            )
            return self._prepared(connection)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", -1) & 0xFF not in _LASTING:
                raise
            raise ConfigurationError(
                f"The database file can't be opened ({error}): check that its folder exists, "
                "that it may be written, and that it is an SQLite file."
            ) from error

    def _prepared(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        try:
            if self.lock is not None:
                self.lock.lock_open_file()
            if self.is_shrinkable:  # only before anything is written
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._enter_wal(connection)
            if not self.path:  # what undoes a transaction needs no more to last than the file
                connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("BEGIN IMMEDIATE")
            self._migrate(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        """Switch to WAL; SQLite does not wait here when another process does the same."""
        give_up = time.monotonic() + self.busy_timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() >= give_up:
                    raise
            time.sleep(0.01)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > self.schema_version:
            raise ConfigurationError(
                f"The database file has version {version}, this program knows "
                f"{self.schema_version}: install the newer gather-async, or use another file."
            )
        if version < self.schema_version:
            self.migrate(connection, version)
            connection.execute(f"PRAGMA user_version = {self.schema_version:d}")


class _Connection(sqlite3.Connection):
    """A connection that says no where Python's would try forever."""

    def backup(self, *args: Any, **kwargs: Any) -> None:
        """Copy the database, unless a transaction of our own would block it."""
        if self.in_transaction:
            raise sqlite3.ProgrammingError("backup can't work in a transaction: use store.read")
        super().backup(*args, **kwargs)


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
        migrate: Callable[[sqlite3.Connection, int], None],
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
            _Connector(
                str(path), schema_version, migrate, synchronous, busy_timeout, is_shrinkable, lock
            )
        )
