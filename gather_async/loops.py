"""Event loops: which one an object belongs to, and what it has in each of them."""

import asyncio
import os
import threading
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from attrs import define, field

from gather_async.errors import ClientClosedError

__all__ = [
    "CancelScope",
    "LoopOwner",
    "PerLoop",
    "close_surely",
    "end_lifetime",
    "has_outside_work",
    "outside_work",
    "running_loop",
]

_outside: Counter[asyncio.AbstractEventLoop] = Counter()
"""Numbers of works done outside, by loop; each loop changes its own number only."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop; None outside of any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@contextmanager
def outside_work() -> Iterator[None]:
    """Count a work that is done for the running loop elsewhere, such as on a thread of ours.

    Virtual time stands still meanwhile, though the loop and the thread may look idle: SQLite
    sleeps while another connection holds the file.
    """
    loop = asyncio.get_running_loop()
    _outside[loop] += 1
    try:
        yield
    finally:
        _outside[loop] -= 1
        if not _outside[loop]:
            del _outside[loop]


def has_outside_work(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Return whether a work for that loop is being done elsewhere."""
    return loop in _outside


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

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Move to the running loop for good, unless what follows fails.

        Raises:
            ClientClosedError: The object works in another loop.
        """
        self.enter()
        try:
            yield
        except BaseException:
            self.leave()
            raise

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


T = TypeVar("T")
_RESTING = 32  # loops that keep their parts though they don't run: more than threads end at once
_CLOSING = 5.0  # seconds; a loop that runs takes milliseconds, a blocked one must not block others
_LOOK = 0.05  # seconds from one look at whether loops still run to the next


class PerLoop(Generic[T]):
    """The parts of an object, one for each event loop that uses it at the same time.

    A part whose loop was closed is handed to the next loop that comes, with what it learned.
    One that only rests keeps its part: the thread of `asyncio.run` may be about to close it, and
    with it what the part holds. Of loops that are never closed only the latest do. A
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
                idle = self._idle()
                self._parts[loop] = self._parts.pop(idle[0]) if idle else self._make()
            part = self._parts[loop]
            self._latest = loop, part
        return part

    def _idle(self) -> Sequence[asyncio.AbstractEventLoop | None]:
        """Return the loops that need their parts no more, the longest known first."""
        resting = [each for each in self._parts if each is None or not each.is_running()]
        over = [each for each in resting if each is None or each.is_closed()]
        return over or resting[:-_RESTING]

    def all(self) -> list[T]:
        """Return all parts."""
        with self._lock:
            return list(self._parts.values())

    async def close(self, close: Callable[[T], Coroutine[Any, Any, object]]) -> None:
        """Close each part in its own loop; a loop that is blocked is waited for a while."""
        here, elsewhere = running_loop(), {}
        with self._lock:
            parts = list(self._parts.items())
        for loop, part in parts:
            if loop is here:
                await close(part)
            elif loop is not None and loop.is_running():
                closing: Future[None] = Future()
                with suppress(RuntimeError):  # it has been closed since
                    loop.call_soon_threadsafe(_start_closing, closing, close, part)
                    elsewhere[asyncio.wrap_future(closing)] = loop
        await _wait_for(elsewhere)

    def restart_after_fork(self) -> None:
        """Begin anew in a forked child; the parent's parts are never touched, nor collected."""
        _INHERITED.append(self._parts)
        self._start()


async def _wait_for(
    closings: "Mapping[asyncio.Future[None], asyncio.AbstractEventLoop]",
) -> None:
    """Wait until each is done, or its loop stopped meanwhile: it may never go on."""
    now = asyncio.get_running_loop().time
    ends = now() + _CLOSING
    while closings and now() < ends:
        await asyncio.wait(closings, timeout=_LOOK)
        closings = {
            each: loop for each, loop in closings.items() if not each.done() and loop.is_running()
        }


async def end_lifetime(lifetime: AsyncGenerator[None, None] | None) -> None:
    """Close what a generator keeps open, unless the end of its loop is doing that already."""
    if lifetime is not None and not getattr(lifetime, "ag_running", False):
        await lifetime.aclose()


async def close_surely(close: Callable[[], Awaitable[object]]) -> None:
    """Close something, and go on with it however often that is cancelled; then raise that."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine of asyncio runs in a task
    cancelled: asyncio.CancelledError | None = None
    while True:
        cancels = task.cancelling()
        try:
            await close()
        except asyncio.CancelledError as error:
            if task.cancelling() == cancels:
                raise  # it cancelled itself, and would again
            cancelled = error
        else:
            break
    if cancelled is not None:
        raise cancelled


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
