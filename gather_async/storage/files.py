"""Files that are replaced only once their successor is whole."""

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

__all__ = ["real_path", "replacing"]


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
