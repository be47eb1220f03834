"""Time as a dependency, so that hours of quota can pass in milliseconds."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from attrs import define

__all__ = ["Clock", "Deadline", "Deadlines", "SystemClock", "Timer", "finish_by", "wait"]

T = TypeVar("T")


class Timer(Protocol):
    """A callback that is due; what ``loop.call_later`` returns fits."""

    def cancel(self) -> None:
        """Keep the callback from being called; harmless if it already was."""
        ...


class Clock(Protocol):
    """Source of time for the package. `SystemClock` is the default."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Return Unix seconds; may jump either way."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds of `monotonic`; at once if not positive."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back once in the running loop, after that many seconds of `monotonic`."""
        ...


class SystemClock:
    """The machine's own clock and the running loop's timers."""

    if TYPE_CHECKING:

        def monotonic(self) -> float:
            """Return the seconds of a clock that never goes back."""
            ...

        def wall(self) -> float:
            """Return Unix seconds."""
            ...
    else:
        # The functions themselves: several calls a request are worth no frame each.
        monotonic = staticmethod(time.monotonic)
        wall = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        """Sleep in the running loop."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back from the running loop."""
        return asyncio.get_running_loop().call_later(seconds, callback)

    def __repr__(self) -> str:
        return "SystemClock()"


async def wait(clock: Clock, event: asyncio.Event, seconds: float) -> bool:
    """Sleep until an event is set, for so many seconds at most; return whether it was.

    Args:
        clock: Whose seconds they are.
        event: Of the running loop.
        seconds: ``inf`` for as long as it takes; at once if not positive.
    """
    if event.is_set() or seconds == math.inf:
        return await event.wait()
    if seconds <= 0.0:
        await asyncio.sleep(0)  # a loop of such waits must let others run
        return event.is_set()
    waiting = asyncio.ensure_future(event.wait())
    timer = clock.call_later(seconds, waiting.cancel)
    try:
        await asyncio.wait({waiting})
    finally:
        timer.cancel()
        waiting.cancel()
    return not waiting.cancelled()


async def finish_by(clock: Clock, instant: float, work: Awaitable[T]) -> T:
    """Return what is awaited, which is cancelled at an instant of ``clock.monotonic()``.

    Raises:
        TimeoutError: It was.
    """
    async with asyncio.timeout(None) as limit:
        timer = clock.call_later(instant - clock.monotonic(), lambda: limit.reschedule(0.0))
        try:
            return await work
        finally:
            timer.cancel()


class Deadlines:
    """Ends of what tasks of one loop may take, with one timer for all within a second.

    A timer for each request is a twentieth of its cost (benchmarks/calls.py). aiohttp rounds
    long timeouts up to whole seconds of the loop, too.
    """

    def __init__(self) -> None:
        self._tasks: dict[int, set[asyncio.Task[Any]]] = {}

    def begin(self, task: "asyncio.Task[Any]", seconds: float) -> "Deadline":
        """Cancel a task of the running loop after so many seconds, rounded up, unless it ends."""
        loop = task.get_loop()
        end = math.ceil(loop.time() + seconds)
        tasks = self._tasks.get(end)
        if tasks is None:
            tasks = self._tasks[end] = set()
            loop.call_at(end, self._cancel, end)
        tasks.add(task)
        return Deadline(task, tasks, task.cancelling())

    def _cancel(self, end: int) -> None:
        tasks = self._tasks.pop(end)
        while tasks:
            tasks.pop().cancel()


@define(eq=False)
class Deadline:
    """The end of what one task may take."""

    _task: "asyncio.Task[Any]"
    _waiting: "set[asyncio.Task[Any]]"
    """The tasks of this end that are not cancelled yet."""
    _cancels: int
    """Cancellations of the task from before."""

    def is_sole_cause(self) -> bool:
        """Return whether a cancellation of the task is this deadline's alone."""
        return self._task not in self._waiting and self._task.cancelling() - 1 <= self._cancels

    def end(self) -> None:
        """Cancel no more, and take an own cancellation back, whatever became of it; once."""
        if self._task in self._waiting:
            self._waiting.remove(self._task)
        else:
            self._task.uncancel()
