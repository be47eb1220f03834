"""Time as a dependency, so that hours of quota can pass in milliseconds, and event loops."""

import asyncio
import math
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from attrs import define, field

from gather_async.errors import ClientClosedError

__all__ = [
    "CancelScope",
    "Clock",
    "Deadline",
    "Deadlines",
    "LoopOwner",
    "PerLoop",
    "SystemClock",
    "Timer",
    "running_loop",
    "wait",
]


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


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop; None outside of any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@define(eq=False)
class LoopOwner:
    """The event loop that an object works in, one at a time."""

    noun: str
    """What a message calls the object."""
    until_closed: bool = False
    """Whether a loop that rests, and may go on, keeps the object."""
    loop: asyncio.AbstractEventLoop | None = None
    """None before its first use."""

    @property
    def is_here(self) -> bool:
        """Whether the object works in the running loop."""
        return self.loop is not None and self.loop is running_loop()

    @property
    def is_elsewhere(self) -> bool:
        """Whether the object works in another loop, which is not over."""
        if self.loop is None or self.is_here:
            return False
        return not self.loop.is_closed() if self.until_closed else self.loop.is_running()

    def check(self) -> None:
        """Raise if the object works in another loop.

        Raises:
            ClientClosedError: It does.
        """
        if self.is_elsewhere:
            raise ClientClosedError(
                f"This {self.noun} is in use in another event loop: "
                f"make one {self.noun} for each loop."
            )

    def enter(self) -> bool:
        """Move to the running loop; return whether it is another one than before.

        Raises:
            ClientClosedError: The object works in another loop.
        """
        here = asyncio.get_running_loop()
        if self.loop is here:
            return False
        self.check()
        self.loop = here
        return True

    def leave(self) -> None:
        """Let any loop be entered next."""
        self.loop = None

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function in the loop that the object works in, from any thread.

        It is called at once if that loop is the running one, or is over.
        """
        if self.loop is not None and self.is_elsewhere:
            try:
                self.loop.call_soon_threadsafe(function, *arguments)
            except RuntimeError:  # it was closed this moment, so nothing else runs in it
                pass
            else:
                return
        function(*arguments)


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
    _is_over: bool = False

    def is_sole_cause(self) -> bool:
        """Return whether a cancellation of the task is this deadline's alone; ends it."""
        is_mine = self._task not in self._waiting
        self.end()
        return is_mine and self._task.cancelling() <= self._cancels

    def end(self) -> None:
        """Cancel no more, and take an own cancellation back, whatever became of it."""
        if self._is_over:
            return
        self._is_over = True
        if self._task not in self._waiting:
            self._task.uncancel()
        self._waiting.discard(self._task)


T = TypeVar("T")
_CLOSING = 5.0  # seconds; a loop that runs takes milliseconds, a blocked one must not block others


class PerLoop(Generic[T]):
    """The parts of an object, one for each event loop that uses it at the same time.

    A part whose loop ended is handed to the next loop that comes, with what it learned. A
    forked child begins without parts: it must use none of its parent's connections.

    Args:
        make: Returns a new part.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._start()
        _PARTED.add(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[asyncio.AbstractEventLoop | None, T] = {}
        self._latest: tuple[asyncio.AbstractEventLoop | None, T] | None = None

    def here(self) -> T:
        """Return the running loop's part."""
        loop = running_loop()
        latest = self._latest
        if latest is not None and latest[0] is loop:
            return latest[1]
        with self._lock:
            if loop not in self._parts:
                idle = [each for each in self._parts if each is None or not each.is_running()]
                self._parts[loop] = self._parts.pop(idle[0]) if idle else self._make()
            part = self._parts[loop]
            self._latest = loop, part
        return part

    def all(self) -> list[T]:
        """Return all parts."""
        with self._lock:
            return list(self._parts.values())

    async def close(self, close: Callable[[T], Coroutine[Any, Any, object]]) -> None:
        """Close each part in its own loop; a loop that is blocked is waited for a while."""
        here, elsewhere = running_loop(), []
        with self._lock:
            parts = list(self._parts.items())
        for loop, part in parts:
            if loop is here:
                await close(part)
            elif loop is not None and loop.is_running():
                closing: Future[None] = Future()
                with suppress(RuntimeError):  # it has been closed since
                    loop.call_soon_threadsafe(_start_closing, closing, close, part)
                    elsewhere.append(asyncio.wrap_future(closing))
        if elsewhere:
            await asyncio.wait(elsewhere, timeout=_CLOSING)

    def restart_after_fork(self) -> None:
        """Begin anew in a forked child; the parent's parts are never touched, nor collected."""
        _INHERITED.append(self._parts)
        self._start()


def _start_closing(
    closing: "Future[None]", close: Callable[[T], Coroutine[Any, Any, object]], part: T
) -> None:
    """Begin to close a part; called in its loop, which may end before, and nothing is begun."""

    def end(task: "asyncio.Task[object]") -> None:
        _CLOSING_TASKS.discard(task)
        if not task.cancelled() and task.exception() is not None:
            task.get_loop().call_exception_handler(
                {"message": "a part can't be closed", "exception": task.exception()}
            )
        if not closing.done():
            closing.set_result(None)

    task = asyncio.get_running_loop().create_task(close(part))
    _CLOSING_TASKS.add(task)  # a loop holds its tasks weakly
    task.add_done_callback(end)


_CLOSING_TASKS: "set[asyncio.Task[object]]" = set()
_PARTED: "WeakSet[PerLoop[Any]]" = WeakSet()
_INHERITED: list[object] = []


def _restart_all_after_fork() -> None:
    for each in list(_PARTED):
        each.restart_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_all_after_fork)


@define(eq=False)
class CancelScope:
    """Scope of the waits of a client's calls: closing it cancels them.

    A call may wait minutes for the quota or its next attempt. Its task is cancelled out
    of the wait, and the cancellation becomes an error, as in `asyncio.timeout`.
    """

    is_closed: bool = False
    """Whether `close` was called."""
    _waiting: set[asyncio.Task[Any]] = field(factory=set, init=False, repr=False)

    async def run(self, wait: Awaitable[T]) -> T:
        """Return what is waited for, unless the client closes first.

        Raises:
            ClientClosedError: The client is closed, or was closed meanwhile.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of asyncio runs in a task
        cancels = task.cancelling()
        self._waiting.add(task)
        try:
            return await wait
        except asyncio.CancelledError:
            # Only a cancellation of our own becomes an error; the caller's may have come too.
            if task in self._waiting or task.uncancel() > cancels:
                raise
            raise _closed() from None
        finally:
            self._waiting.discard(task)

    def raise_if_closed(self) -> None:
        """Raise once the client is closed, so that no wait begins.

        Raises:
            ClientClosedError: It is.
        """
        if self.is_closed:
            raise _closed()

    def close(self) -> None:
        """End what waits, in whatever loop; harmless to repeat."""
        self.is_closed = True
        here = running_loop()
        for task in list(self._waiting):
            loop = task.get_loop()
            if loop is here:
                self._end(task)
            elif loop.is_running():
                with suppress(RuntimeError):  # it was closed this moment, and its tasks with it
                    loop.call_soon_threadsafe(self._end, task)

    def _end(self, task: "asyncio.Task[Any]") -> None:
        """Cancel a task of the running loop, if it still waits here and not elsewhere by now."""
        if task in self._waiting:
            self._waiting.discard(task)
            task.cancel()


def _closed() -> ClientClosedError:
    return ClientClosedError("This client is closed: make a new GatherClient.")
