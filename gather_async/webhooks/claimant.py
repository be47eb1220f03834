"""Which process holds a claim, and whether it still lives: so that a restart needs no patience."""

import os
from functools import lru_cache
from pathlib import Path

__all__ = ["has_died", "own_mark"]

_PROC = Path("/proc")
_ENDED = frozenset("ZXx")


def own_mark() -> str:
    """Return what names this process among all of this machine; empty where that can't be told.

    A number of a process is used again, so the mark has its start as well; and another
    container has other processes of the same numbers, so it has their namespace and
    the kernel's run, too. Only Linux tells all of these.
    """
    return _mark(os.getpid())


def has_died(mark: str) -> bool:
    """Tell whether the process of a mark is certainly gone. False if nobody can tell."""
    place, _, process = mark.partition(" ")
    number, _, start = process.partition(" ")
    if not number.isdigit() or place != _place():
        return False
    try:
        os.kill(int(number), 0)
        return _start_of(int(number)) != start
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is somebody else's, or hidden
        return False


@lru_cache(maxsize=1)
def _mark(number: int) -> str:
    try:
        return f"{_place()} {number} {_start_of(number)}" if _place() else ""
    except OSError:
        return ""


@lru_cache(maxsize=1)
def _place() -> str:
    """Return the kernel's run and the namespace of the processes; empty if unknown."""
    try:
        run = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{run}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(number: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if it only waits to be reaped."""
    # The command's name comes second, in brackets, and may hold spaces and brackets.
    fields = (_PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
    return None if fields[0] in _ENDED else fields[19]
