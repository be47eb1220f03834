"""Notice that an event loop has nothing to do: what makes virtual time jump.

asyncio has no such hook. A selector loop that has nothing ready asks its
selector to wait, so the selector's ``select`` is replaced while somebody wants
to know, and put back afterwards.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, ref

__all__ = ["IdleLoop"]

_YIELD = 0.00005  # real seconds in which a packet on loopback arrives, were it late
_POLL = 0.001  # real seconds between two looks at a working thread
_LONGEST_STALL = 5.0  # real seconds a thread that works all the time can stop virtual time
_TASKS = Path("/proc/self/task")

OnIdle = Callable[[asyncio.AbstractEventLoop], bool]

_watched: "WeakKeyDictionary[asyncio.AbstractEventLoop, IdleLoop]" = WeakKeyDictionary()


class IdleLoop:
    """One loop, watched for as long as somebody listens.

    Idle means: no callback is ready, no socket is, no executor job runs, and no
    other Python thread works. Real timers of the loop don't count.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, selector: Any) -> None:
        self._selector = selector
        self._loop = ref(loop)  # or the loop, as a weak key, would never go
        self._select = selector.select
        self._listeners: dict[OnIdle, float] = {}

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> "IdleLoop":
        """Return the one watch of this loop.

        Raises:
            RuntimeError: The loop has no selector.
        """
        watch = _watched.get(loop)
        if watch is None:
            selector = getattr(loop, "_selector", None)
            if selector is None:
                raise RuntimeError(
                    f"Virtual time needs a selector event loop, not {type(loop).__name__}."
                )
            for other in [each for each in _watched if each.is_closed()]:
                del _watched[other]
            watch = _watched[loop] = cls(loop, selector)
        return watch

    def listen(self, on_idle: OnIdle, *, grace: float = 0.0) -> None:
        """Call back each time the loop is idle.

        Args:
            on_idle: Gets the loop; returns True if that should look again at once.
            grace: Real seconds of quiet before the loop counts as idle.
        """
        self._listeners[on_idle] = grace
        self._selector.select = self._wait

    def ignore(self, on_idle: OnIdle) -> None:
        """Stop calling back; the last to go puts the selector right again."""
        if self._listeners.pop(on_idle, None) is not None and not self._listeners:
            del self._selector.select

    def _wait(self, timeout: float | None = None) -> Any:
        """Stand in for the selector's ``select``."""
        if timeout is not None and timeout <= 0.0:
            return self._select(timeout)
        loop = self._loop()
        events = self._select(0) or self._settle(timeout, loop)
        if events or loop is None:
            return events
        gave_work = [on_idle(loop) for on_idle in tuple(self._listeners)]
        return [] if any(gave_work) else self._select(timeout)

    def _settle(self, timeout: float | None, loop: asyncio.AbstractEventLoop | None) -> Any:
        """Wait for what is on its way; return the events it brings, none if all is quiet."""
        time.sleep(_YIELD)
        events = self._select(max(self._listeners.values()))
        ends = time.monotonic() + min(_LONGEST_STALL, timeout or _LONGEST_STALL)
        seen: object = None
        while not events and threading.active_count() > 1 and time.monotonic() < ends:
            works, idle_threads = _executor(loop)
            before, seen = seen, _activity(idle_threads)
            if not works and (not seen or seen == before):
                break
            events = self._select(_POLL)  # lets go of the interpreter's lock meanwhile
        return events


def _executor(loop: asyncio.AbstractEventLoop | None) -> tuple[bool, Collection[Any]]:
    """Tell whether ``asyncio.to_thread``'s executor has a job, and which threads are its own."""
    executor = getattr(loop, "_default_executor", None)
    threads = getattr(executor, "_threads", ())
    idle = getattr(getattr(executor, "_idle_semaphore", None), "_value", None)
    return (False, ()) if idle is None else (len(threads) > idle, threads)


def _activity(known: Collection[Any]) -> list[object]:
    """Return something that stays equal while no other Python thread does anything.

    On Linux it is what the scheduler counted for each; a thread in a state other
    than sleeping, such as one that writes to a disk, never equals itself. Elsewhere
    it is the threads, so that each gets one poll's time. Empty if there are none
    but this one and the known ones.
    """
    own = threading.get_native_id()
    activity: list[object] = []
    for thread in threading.enumerate():
        if thread.native_id in {None, own} or thread in known:
            continue
        task = _TASKS / str(thread.native_id)
        try:
            state = (task / "stat").read_bytes().rpartition(b")")[2].split(None, 1)[0]
            counted = (task / "schedstat").read_bytes()
        except OSError:  # it ended meanwhile, or this isn't Linux
            activity.append(thread.native_id)
            continue
        activity.append((thread.native_id, counted) if state == b"S" else object())
    return activity
