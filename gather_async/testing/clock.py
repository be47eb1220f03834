"""A clock whose time passes by itself, as fast as nothing happens."""

import asyncio
import contextvars
import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from weakref import WeakKeyDictionary

from gather_async.testing.idle_loop import IdleLoop

__all__ = ["VirtualClock"]

_START = 1_000.0  # not 0, so that nobody takes monotonic time for a duration
_WALL = datetime(2026, 1, 1, tzinfo=UTC)
_BUSY_POLL = 0.001  # real seconds
_TOLERATED = 64  # cancelled timers a loop may hold on to before they are dropped


class VirtualClock:
    """A `Clock` for tests: hours pass in milliseconds, in the right order.

    Time stands still while anything runs. When the running loop is idle (nothing
    ready, no socket readable, no thread at work), it jumps to the next moment
    that somebody sleeps until. Give the same clock to the client and to
    `FakeGather`, and both live in the same time.

    >>> async def nap(clock):
    ...     await clock.sleep(3600)
    ...     return clock.monotonic()
    >>> clock = VirtualClock()
    >>> before = clock.monotonic()
    >>> asyncio.run(nap(clock)) - before
    3600.0

    Sockets to a server in the same loop are safe. An answer of another process,
    or a thread that sleeps inside an extension, looks like idleness: give
    ``grace``, or hold time still with `busy`. Needs a selector event loop, as
    asyncio uses everywhere but on Windows. Loops may follow each other; use one
    clock from one thread at a time.

    Args:
        wall: What `wall` starts from: an aware datetime, or Unix seconds.
        autojump: False lets time pass only in `advance` and `jump`.
        grace: Real seconds of quiet before each jump, from 0.
    """

    def __init__(
        self, *, wall: datetime | float = _WALL, autojump: bool = True, grace: float = 0.0
    ) -> None:
        self.autojump = autojump
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
        """Let the wall clock jump, either way; nobody's sleep gets longer or shorter."""
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
        """Jump to what is due next; tell whether the loop should look again at once."""
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
        self.context = contextvars.copy_context()

    def cancel(self) -> None:
        """Keep the callback from being called; harmless if it already was."""
        if self.callback is not None:
            self.callback = None
            self._timers.dropped(self._loop)


class _Timers:
    """What is pending in one loop: a heap, and a listener while it isn't empty."""

    def __init__(self, on_idle: Callable[[asyncio.AbstractEventLoop], bool], grace: float) -> None:
        self._on_idle = on_idle
        self._grace = grace
        self._heap: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()
        self.pending = 0

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
