"""Files: those that one job at a time may use, and those that are replaced only once whole."""

import errno
import os
import stat
import struct
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from gather_async.errors import ClientClosedError, ConfigurationError

__all__ = ["FileLock", "real_path", "replacing"]


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
        if borrowed is None:
            return
        with suppress(OSError):  # closed, as it should be
            if _identity_of(os.fstat(borrowed)) == self._file:
                _unlock_shared_by_names(borrowed)

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

    def _lock_shared_by_names(descriptor: int) -> None:
        _set_far_lock(descriptor, fcntl.F_WRLCK)

    def _unlock_shared_by_names(descriptor: int) -> None:
        _set_far_lock(descriptor, fcntl.F_UNLCK)

    def _set_far_lock(descriptor: int, kind: int) -> None:
        # Of the open file, not of the process: the latter would end with any descriptor
        # of the file that the process closes. Fields of `struct flock`; the last is 0.
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

    def _lock_shared_by_names(descriptor: int) -> None:
        # Elsewhere such a lock would get into the way of SQLite's own.
        if os.fstat(descriptor).st_nlink > 1:
            raise ConfigurationError(
                "The file has a second name (a hard link), under which another job could use it:"
                " remove one of them."
            )

    def _unlock_shared_by_names(descriptor: int) -> None:
        pass

    def _only_descriptor_of(file: tuple[int, int]) -> int | None:
        return None


def real_path(path: Path) -> Path:
    """Return the path that links lead to.

    Raises:
        OSError: They lead in a circle.
    """
    # Python before 3.13 raises RuntimeError for a circle, and later ones return it.
    with suppress(RuntimeError):
        found = path.resolve()
        if not found.is_symlink():
            return found
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


@contextmanager
def replacing(path: Path, *, new_mode: int | None = None) -> Iterator[TextIO]:
    """Yield a file that takes the place of another once it is written without an error.

    It is written under a name of its own, so that two writers don't meet and the old
    file stays until then. Links stay, and so does the old file's mode. What is no
    regular file, such as a named pipe, is written to as it is.

    Args:
        path: The file to be replaced.
        new_mode: The mode where there was none; None: as the process's umask has it.

    Raises:
        OSError: It can't be written.
    """
    target = real_path(path)
    # Half a surrogate pair, which JSON can hold and UTF-8 can't, ends no export.
    how: Any = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    if target.exists() and not target.is_file():
        with target.open("w", **how) as file:
            yield file
        return
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else new_mode
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("x", **how) as file:
            if mode is not None:
                part.chmod(mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
