"""One process at a time on one journal; the lock dies with its process, however that dies."""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from gather_async.errors import ConfigurationError

__all__ = ["JournalLock"]

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
