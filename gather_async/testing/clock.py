"""Virtual time: the clock jumps to the next timer as soon as the loop is idle."""

import asyncio
import contextvars
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, ref

from gather_async.loops import has_outside_work

__all__ = ["IdleLoop", "VirtualClock"]

_YIELD = 0.00005  # real seconds in which a packet on loopback arrives, were it late
_POLL = 0.001  # real seconds between two looks at a working thread
_LONGEST_STALL = 5.0  # real seconds a thread that works all the time can stop virtual time
_LONGEST_JOB = 20.0  # real seconds a work of ours can, of which it is known that it isn't over
_TASKS = Path("/proc/self/task")

OnIdle = Callable[[asyncio.AbstractEventLoop], bool]

_watched: "WeakKeyDictionary[asyncio.AbstractEventLoop, IdleLoop]" = WeakKeyDictionary()


class IdleLoop:
    """One loop, watched while it has listeners.

    Idle means: no callback is ready, no socket is, no job of the executor or of a database
    runs, and no other Python thread works. Real timers of the loop don't count.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, selector: Any) -> None:
        self._selector = selector
        self._loop = ref(loop)  # or the loop, as a weak key, would never go
        self._select = selector.select
        self._listeners: dict[OnIdle, float] = {}
        # What threads had done when they last were idle: one that has worked since differs.
        self._quiet: list[object] | None = None
        # Since when threads have worked without an end, across the loop's own timers.
        self._stalled_since: float | None = None

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
        """Stop calling back; the last one restores the selector."""
        if self._listeners.pop(on_idle, None) is not None and not self._listeners:
            del self._selector.select

    def _wait(self, timeout: float | None = None) -> Any:
        """Stand in for the selector's ``select``."""
        if timeout is not None and timeout <= 0.0:
            return self._select(timeout)
        loop = self._loop()
        if events := self._select(0):
            self._stalled_since = None
            return events
        events = self._settle(timeout, loop)
        if events is not None or loop is None:
            return events or []
        # A thread that had just ended its work counts as idle, and its result may be here only now.
        if events := self._select(0):
            return events
        gave_work = [on_idle(loop) for on_idle in tuple(self._listeners)]
        return [] if any(gave_work) else self._select(timeout)

    def _nothing_can_arrive(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Return whether the loop watches its own wake-up pipe only, and no thread works."""
        if len(self._selector.get_map()) > 1 or max(self._listeners.values()):
            return False
        if threading.active_count() == 1:
            return True
        works, idle_threads = _works_outside(loop)
        return not works and _activity(idle_threads) in ([], self._quiet)

    def _settle(self, timeout: float | None, loop: asyncio.AbstractEventLoop | None) -> Any:
        """Wait for what is on its way; return the events it brings, or None if all is quiet.

        A real timer that is due meanwhile brings no event: the list is empty then.
        """
        if self._nothing_can_arrive(loop):
            return None
        time.sleep(_YIELD)
        events = self._select(max(self._listeners.values()))
        begun = time.monotonic()
        timer_at = math.inf if timeout is None else begun + timeout
        stalled_since, self._stalled_since = self._stalled_since or begun, None
        seen = self._quiet
        while not events and threading.active_count() > 1:
            now = time.monotonic()
            works, idle_threads = _works_outside(loop)
            before, seen = seen, _activity(idle_threads)
            if not works and (not seen or seen == before):
                # Without what the scheduler counts, each wait has to give threads their time.
                self._quiet = seen if _TASKS.exists() else None
                break
            longest = _LONGEST_JOB if has_outside_work(loop) else _LONGEST_STALL
            if now >= stalled_since + longest:
                break
            if now >= timer_at:
                self._stalled_since = stalled_since
                return []
            events = self._select(_POLL)  # lets go of the interpreter's lock meanwhile
        return events or None


def _works_outside(loop: asyncio.AbstractEventLoop | None) -> tuple[bool, Collection[Any]]:
    """Return whether a thread has a job of this loop, and which threads ``to_thread`` uses."""
    works = has_outside_work(loop)
    executor = getattr(loop, "_default_executor", None)
    threads = getattr(executor, "_threads", ())
    idle = getattr(getattr(executor, "_idle_semaphore", None), "_value", None)
    return (works, ()) if idle is None else (works or len(threads) > idle, threads)


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
        task = f"{_TASKS}/{thread.native_id}"
        try:
            state = _read(f"{task}/stat").rpartition(b")")[2].split(None, 1)[0]
            counted = _read(f"{task}/schedstat")
        except OSError:  # it ended meanwhile, or this isn't Linux
            activity.append(thread.native_id)
            continue
        activity.append((thread.native_id, counted) if state == b"S" else object())
    return activity


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a third of Path's time
        return file.read()


_START = 1_000.0  # not 0, so that monotonic time is not taken for a duration
_WALL = datetime(2026, 1, 1, tzinfo=UTC)
_BUSY_POLL = 0.001  # real seconds
_TOLERATED = 64  # cancelled timers a loop may hold on to before they are dropped


class VirtualClock:
    """A `Clock` for tests: hours pass in milliseconds, in the right order.

    Time stands still while anything runs. When the running loop is idle (nothing
    ready, no socket readable, no thread at work), it jumps to the next moment
    that a task sleeps until. Give the same clock to the client and to
    `FakeGather`, and both live in the same time.

    >>> async def nap(clock):
    ...     await clock.sleep(3600)
    ...     return clock.monotonic()
    >>> clock = VirtualClock()
    >>> before = clock.monotonic()
    >>> asyncio.run(nap(clock)) - before
    3600.0

    Sockets to a server in the same loop are safe, and so are journals and inboxes in
    databases. An answer of another process, or another thread that sleeps inside an
    extension, looks like idleness: give ``grace``, or hold time still with `busy`. Needs a
    selector event loop, as asyncio uses everywhere but on Windows. Loops may follow each
    other; use one clock from one thread at a time.

    Args:
        wall: What `wall` starts from: an aware datetime, or Unix seconds.
        autojump: False lets time pass only in `advance` and `jump`.
        grace: Real seconds of quiet before each jump, from 0.
    """

    def __init__(
        self, *, wall: datetime | float = _WALL, autojump: bool = True, grace: float = 0.0
    ) -> None:
        self.autojump: bool = autojump
        self._grace = grace
        self._now = _START
        self._offset = 0.0
        self._let_until = -math.inf
        self._busy = 0
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Timers] = WeakKeyDictionary()
        self.set_wall(wall)

    def monotonic(self) -> float:
        """Return virtual seconds; start at 1000.0."""
        return self._now

    def wall(self) -> float:
        """Return virtual Unix seconds."""
        return self._now + self._offset

    def set_wall(self, wall: datetime | float) -> None:
        """Let the wall clock jump, either way; no sleep gets longer or shorter."""
        seconds = wall.timestamp() if isinstance(wall, datetime) else wall
        self._offset = seconds - self._now

    async def sleep(self, seconds: float) -> None:
        """Return after that many virtual seconds; yields once if not positive.

        Cancelling it leaves nothing behind.
        """
        if not seconds > 0.0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, partial(_wake, woken))
        try:
            await woken
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> "_Timer":
        """Call back once in the running loop, after that many virtual seconds."""
        loop = asyncio.get_running_loop()
        timers = self._loops.get(loop)
        if timers is None:
            for other in [each for each in self._loops if each.is_closed()]:
                del self._loops[other]
            timers = self._loops[loop] = _Timers(self._idle, self._grace)
        return timers.add(loop, self._now + max(0.0, seconds), callback)

    async def advance(self, seconds: float) -> None:
        """Let that many seconds pass, whatever is due on the way, each in its order.

        Returns when what was due has been started. Works with ``autojump=False``,
        too: that is how such a clock moves.
        """
        self._let_until = max(self._let_until, self._now + seconds)
        await self.sleep(seconds)

    def jump(self, seconds: float) -> None:
        """Put time forward at once; what became due on the way starts late, as after a suspend.

        Raises:
            ValueError: ``seconds`` is negative: monotonic time never goes back.
        """
        if not seconds >= 0.0:
            raise ValueError("Monotonic time never goes back; set_wall() moves the wall clock.")
        self._now += seconds
        for loop, timers in list(self._loops.items()):
            timers.fire(loop, self._now)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Hold time still meanwhile: something works that the loop can't see."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    @property
    def sleepers(self) -> int:
        """How many sleeps and timers are pending, in all loops that still exist."""
        return sum(timers.pending for timers in self._loops.values())

    def __repr__(self) -> str:
        date = datetime.fromtimestamp(self.wall(), UTC)
        return f"<VirtualClock {date:%Y-%m-%d %H:%M:%S}Z, {self.sleepers} sleepers>"

    def _idle(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Jump to what is due next; return whether the loop should look again at once."""
        if self._busy:
            time.sleep(_BUSY_POLL)
            return True
        timers = self._loops[loop]
        due = timers.next_due()
        if due == math.inf or not (self.autojump or due <= self._let_until):
            return False
        self._now = max(self._now, due)
        timers.fire(loop, self._now)
        return True


class _Timer:
    """One callback; None once it was called or cancelled."""

    __slots__ = ("_loop", "_timers", "callback", "context")

    def __init__(
        self, timers: "_Timers", loop: asyncio.AbstractEventLoop, callback: Callable[[], object]
    ) -> None:
        self._timers = timers
        self._loop = loop
        self.callback: Callable[[], object] | None = callback
        self.context: contextvars.Context = contextvars.copy_context()

    def cancel(self) -> None:
        """Keep the callback from being called; harmless if it already was."""
        if self.callback is not None:
            self.callback = None
            self._timers.dropped(self._loop)


class _Timers:
    """Pending timers of one loop: a heap, and a listener while it isn't empty."""

    def __init__(self, on_idle: Callable[[asyncio.AbstractEventLoop], bool], grace: float) -> None:
        self._on_idle = on_idle
        self._grace = grace
        self._heap: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()
        self.pending: int = 0

    def add(
        self, loop: asyncio.AbstractEventLoop, due: float, callback: Callable[[], object]
    ) -> _Timer:
        if not self.pending:
            IdleLoop.of(loop).listen(self._on_idle, grace=self._grace)
        timer = _Timer(self, loop, callback)
        heapq.heappush(self._heap, (due, next(self._numbers), timer))
        self.pending += 1
        return timer

    def dropped(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that one timer was cancelled."""
        self._less(loop)
        if len(self._heap) > 2 * self.pending + _TOLERATED:
            self._heap = [each for each in self._heap if each[2].callback is not None]
            heapq.heapify(self._heap)

    def next_due(self) -> float:
        """Return when the next timer is due; ``inf`` if there is none."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def fire(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """Hand the loop everything due by now, in its order."""
        while self.next_due() <= now < math.inf:
            timer = heapq.heappop(self._heap)[2]
            callback, timer.callback = timer.callback, None
            self._less(loop)
            if callback is not None and not loop.is_closed():
                loop.call_soon(callback, context=timer.context)

    def _less(self, loop: asyncio.AbstractEventLoop) -> None:
        self.pending -= 1
        if not self.pending:
            IdleLoop.of(loop).ignore(self._on_idle)


def _wake(sleeper: "asyncio.Future[None]") -> None:
    if not sleeper.done():
        sleeper.set_result(None)
