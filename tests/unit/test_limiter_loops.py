"""The in-process limiter under several event loops at once, in threads and forked children."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

import pytest

from gather_async.clock import SystemClock
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota import InProcessLimiter, Priority, Slot, call_queue

T = TypeVar("T")
_LONG_ENOUGH = 20.0  # seconds after which a call that should have ended counts as hanging


class LoopThread:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def result(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return what it returns."""
        return self.start(coroutine).result(_LONG_ENOUGH)

    def stop(self) -> None:
        """End the loop as it is, without a word to its tasks."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()


@pytest.fixture
def loops() -> Iterator[tuple[LoopThread, LoopThread]]:
    """Two loops that run at the same time."""
    pair = LoopThread(), LoopThread()
    yield pair
    for each in pair:
        each.stop()


def _limiter(*limits: tuple[int, float], reserve: int = 0) -> InProcessLimiter:
    windows = [RateLimit(limit, per=per) for limit, per in limits]
    return InProcessLimiter(windows, reserve=reserve, clock=SystemClock())


async def _get(limiter: InProcessLimiter, priority: Priority = "interactive") -> Slot:
    return await limiter.acquire(priority=priority, max_wait=None)


async def _queued(limiter: InProcessLimiter, count: int) -> None:
    """Return once that many calls wait."""
    while limiter.status().queued.interactive < count:  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0)


async def _end(slot: Slot) -> None:
    slot.answered(None)


def test_a_slot_that_one_loop_ends_is_granted_in_another(
    loops: tuple[LoopThread, LoopThread],
) -> None:
    """A call that waits in one loop is woken there by an answer that came in another."""
    here, there = loops
    limiter = _limiter((1, 0.02))
    first = here.result(_get(limiter))
    waiting = there.start(_get(limiter))
    here.result(_queued(limiter, 1))
    here.result(_end(first))
    assert waiting.result(_LONG_ENOUGH) is not first
    assert limiter.status().in_flight == 1


def test_calls_start_in_the_order_they_came_across_loops(
    loops: tuple[LoopThread, LoopThread],
) -> None:
    """First come, first served holds between loops, too."""
    limiter = _limiter((1, 0.001))
    slot = loops[0].result(_get(limiter))
    order: list[int] = []

    async def call(number: int) -> None:
        slot = await _get(limiter)
        order.append(number)
        slot.answered(None)

    started = []
    for number in range(20):
        started.append(loops[number % 2].start(call(number)))
        loops[number % 2].result(_queued(limiter, number + 1))
    loops[0].result(_end(slot))
    for each in started:
        each.result(_LONG_ENOUGH)
    assert order == list(range(20))


def test_no_window_is_exceeded_by_many_loops() -> None:
    """Four loops of eight tasks together start no more than the windows allow, and all end."""
    limiter = _limiter((5, 0.05), (40, 0.5))
    starts: list[float] = []
    clock = SystemClock()

    async def call() -> None:
        slot = await _get(limiter)
        starts.append(clock.monotonic())
        await asyncio.sleep(0)
        slot.answered(None)

    async def calls() -> None:
        await asyncio.gather(*(call() for _ in range(8)))

    threads = [threading.Thread(target=asyncio.run, args=(calls(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    starts.sort()
    assert len(starts) == 32
    assert all(later - early >= 0.05 for early, later in zip(starts, starts[5:], strict=False))
    assert limiter.status().in_flight == 0


def test_a_cancelled_call_of_another_loop_gives_its_slot_back(
    loops: tuple[LoopThread, LoopThread],
) -> None:
    """A waiter cancelled in its own thread, before or after it was granted a slot, loses none."""
    here, there = loops
    limiter = _limiter((1, 0.001))
    for _ in range(50):
        slot = here.result(_get(limiter))
        waiting = there.start(_get(limiter))
        here.result(_queued(limiter, 1))
        here.start(_end(slot))
        if not waiting.cancel():
            waiting.result(_LONG_ENOUGH).returned()
        here.result(_end(here.result(_get(limiter))))

    async def is_quiet() -> None:
        while limiter.status().in_flight:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)

    here.result(asyncio.wait_for(is_quiet(), _LONG_ENOUGH))
    assert limiter.status().queued.interactive == 0


def test_a_loop_that_ends_in_mid_flight_holds_up_no_other(
    loops: tuple[LoopThread, LoopThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a loop had in flight when it ended counts as lost, though no new loop asks."""
    monkeypatch.setattr(call_queue, "_SWEEP_INTERVAL", 0.005)
    here, there = loops
    limiter = _limiter((1, 0.02))
    here.result(_get(limiter))
    waiting = there.start(_get(limiter))
    there.result(_queued(limiter, 1))
    here.stop()
    waiting.result(_LONG_ENOUGH).answered(None)
    assert limiter.status().in_flight == 0


def test_waiters_of_a_loop_that_ends_are_passed_over(
    loops: tuple[LoopThread, LoopThread],
) -> None:
    """A closed loop's calls keep no place in the queue."""
    here, there = loops
    limiter = _limiter((1, 0.001))
    slot = there.result(_get(limiter))
    waiting = here.start(_get(limiter))
    there.result(_queued(limiter, 1))
    here.stop()
    there.result(_end(slot))
    there.result(_end(there.result(_get(limiter))))
    assert limiter.status().queued.interactive == 0
    assert not waiting.done()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on_with_its_parents_history() -> None:
    """A fork while another thread works the limiter leaves the child a usable one."""
    program = """
        import asyncio, os, threading
        from gather_async.clock import SystemClock
        from gather_async.protocol.rolling_windows import RateLimit
        from gather_async.quota import InProcessLimiter

        limiter = InProcessLimiter([RateLimit(3, per=60)], reserve=0, clock=SystemClock())

        async def get():
            return await limiter.acquire(priority="interactive", max_wait=None)

        asyncio.run(get()).answered(None)
        held = threading.Event()
        go = threading.Event()

        def hold():
            with limiter._lock:
                held.set()
                go.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child == 0:
            asyncio.run(get()).answered(None)
            os._exit(limiter.status().windows[0].used)
        go.set()
        thread.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), limiter.status().windows[0].used)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=_LONG_ENOUGH,
    )
    assert done.stdout.split() == ["2", "1"]
