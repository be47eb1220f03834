"""Virtual time: in order, only when idle, and gone without a trace."""

import asyncio
import math
import queue
import sqlite3
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gather_async.storage import SQLiteStore
from gather_async.testing import clock as clock_module
from gather_async.testing.clock import VirtualClock


async def test_an_hour_passes_at_once_and_in_order() -> None:
    """Sleepers wake in the order of their deadlines, each at its own time."""
    clock, woken = VirtualClock(), []
    began, real = clock.monotonic(), time.monotonic()

    async def nap(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic() - began))

    await asyncio.gather(*(nap(seconds) for seconds in (3600.0, 0.5, 60.0, 0.5)))
    assert woken == [(each, pytest.approx(each)) for each in (0.5, 0.5, 60.0, 3600.0)]
    assert time.monotonic() - real < 1.0


async def test_time_stands_still_while_anything_runs() -> None:
    """A task that keeps the loop busy sees no time pass, no matter what sleeps."""
    clock = VirtualClock()
    nap = asyncio.create_task(clock.sleep(1.0))
    began = clock.monotonic()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert clock.monotonic() == began
    assert not nap.done()
    await nap


async def test_time_stands_still_while_an_answer_is_on_its_way() -> None:
    """Two thousand round trips over a real socket take no virtual time."""
    clock = VirtualClock()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()
        done.set()

    done = asyncio.Event()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    nap = asyncio.create_task(clock.sleep(1e-6))
    began = clock.monotonic()
    for _ in range(2000):
        writer.write(b"ping")
        await reader.readexactly(4)
    assert clock.monotonic() == began
    assert not nap.done()
    writer.close()
    await writer.wait_closed()
    await done.wait()
    server.close()
    await server.wait_closed()
    await nap


async def test_time_stands_still_while_a_thread_works() -> None:
    """A job of asyncio.to_thread is over before the clock moves on."""
    clock, order = VirtualClock(), []

    def work() -> None:
        sum(range(300_000))
        order.append("work")

    async def nap() -> None:
        await clock.sleep(1.0)
        order.append("nap")

    await asyncio.gather(asyncio.to_thread(work), nap())
    assert order == ["work", "nap"]


async def test_time_does_not_sleep_while_nothing_can_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without sockets, and with a thread that has nothing to do, a jump takes no real time."""
    ends, clock = threading.Event(), VirtualClock()
    idle = threading.Thread(target=ends.wait)
    idle.start()
    await clock.sleep(1.0)  # finds that the thread is idle
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for _ in range(100):
        await clock.sleep(3600.0)
    ends.set()
    idle.join()
    assert slept == []


async def test_time_stands_still_while_a_thread_that_was_idle_works() -> None:
    """A thread that gets work after it was seen idle is waited for, each time."""
    clock, work = VirtualClock(), queue.SimpleQueue[asyncio.Future[float] | None]()
    loop = asyncio.get_running_loop()

    def run() -> None:
        while (job := work.get()) is not None:
            sum(range(20_000))
            loop.call_soon_threadsafe(job.set_result, clock.monotonic())

    worker = threading.Thread(target=run)
    worker.start()
    for _ in range(50):
        began, job = clock.monotonic(), loop.create_future()
        nap = asyncio.create_task(clock.sleep(5.0))
        work.put(job)
        assert await job == began
        assert clock.monotonic() == began
        await nap
    work.put(None)
    worker.join()


async def test_time_stands_still_while_a_database_is_locked(tmp_path: Path) -> None:
    """A thread that sleeps until another connection lets go of the file still works."""
    clock, path = VirtualClock(), tmp_path / "s.db"
    store = SQLiteStore(path, schema_version=1, migrate=lambda _connection, _version: None)
    await store.run(bool)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = clock.monotonic()
    nap = asyncio.create_task(clock.sleep(5.0))
    asyncio.get_running_loop().call_later(0.05, other.execute, "ROLLBACK")  # in real time
    assert await store.run(lambda _connection: clock.monotonic()) == began
    assert not nap.done()
    await nap
    other.close()
    await store.aclose()


async def test_busy_holds_time_still() -> None:
    """What the loop can't see keeps time from passing as long as it says so."""
    clock = VirtualClock()
    nap = asyncio.create_task(clock.sleep(1.0))
    loop, finished = asyncio.get_running_loop(), asyncio.Event()
    with clock.busy():
        loop.call_later(0.01, finished.set)  # a real timer, of real work elsewhere
        await finished.wait()
        assert not nap.done()
    await nap


async def test_advance_moves_a_clock_that_does_not_jump() -> None:
    """With autojump=False no one wakes until advance, which stops exactly where it was meant to."""
    clock, woken = VirtualClock(autojump=False), []

    async def nap(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    began = clock.monotonic()
    naps = [asyncio.create_task(nap(seconds)) for seconds in (1.0, 2.0, 3.0)]
    await clock.advance(2.0)
    assert clock.monotonic() - began == 2.0
    await asyncio.sleep(0)
    assert woken == [1.0, 2.0]
    await clock.advance(5.0)
    await asyncio.gather(*naps)
    assert woken == [1.0, 2.0, 3.0]


async def test_jump_puts_time_forward_like_a_suspend() -> None:
    """What was due meanwhile starts late; time can't be put back."""
    clock = VirtualClock(autojump=False)
    nap = asyncio.create_task(clock.sleep(10.0))
    await asyncio.sleep(0)
    clock.jump(100.0)
    began = clock.monotonic()
    await nap
    assert clock.monotonic() == began
    with pytest.raises(ValueError, match="never goes back"):
        clock.jump(-1.0)


async def test_the_wall_clock_can_be_set_without_touching_sleeps() -> None:
    """A wall clock that jumps leaves monotonic time and deadlines alone."""
    clock = VirtualClock(wall=datetime(2030, 6, 1, tzinfo=UTC))
    assert clock.wall() == datetime(2030, 6, 1, tzinfo=UTC).timestamp()
    began = clock.monotonic()
    clock.set_wall(0.0)
    await clock.sleep(5.0)
    assert (clock.wall(), clock.monotonic() - began) == (5.0, 5.0)


async def test_a_cancelled_sleep_leaves_nothing_behind() -> None:
    """Cancelling a sleeper removes its deadline, and the loop's selector is as before."""
    clock, loop = VirtualClock(), asyncio.get_running_loop()
    nap = asyncio.create_task(clock.sleep(1.0))
    await asyncio.sleep(0)
    assert clock.sleepers == 1
    assert "select" in vars(loop._selector)  # type: ignore[attr-defined]  # what is patched
    nap.cancel()
    await asyncio.gather(nap, return_exceptions=True)
    assert clock.sleepers == 0
    assert "select" not in vars(loop._selector)  # type: ignore[attr-defined]  # what was patched


async def test_many_cancelled_timers_are_dropped() -> None:
    """Ten thousand cancelled timers don't stay on the heap behind one that is pending."""
    clock = VirtualClock()
    keep = clock.call_later(1e6, lambda: None)
    for _ in range(10_000):
        clock.call_later(1.0, lambda: None).cancel()
    timers = clock._loops[asyncio.get_running_loop()]
    assert len(timers._heap) < 100
    keep.cancel()
    keep.cancel()  # harmless
    assert clock.sleepers == 0


async def test_two_clocks_in_one_loop_do_not_block_each_other() -> None:
    """Each jumps to its own deadlines."""
    one, other = VirtualClock(), VirtualClock()
    await asyncio.gather(one.sleep(10.0), other.sleep(20.0), one.sleep(30.0))
    assert (one.monotonic(), other.monotonic()) == (1030.0, 1020.0)


async def test_no_one_wakes_from_an_endless_sleep() -> None:
    """An infinite deadline isn't one to jump to; the next finite one is."""
    clock = VirtualClock()
    endless = asyncio.create_task(clock.sleep(math.inf))
    await clock.sleep(1.0)
    assert not endless.done()
    endless.cancel()
    await asyncio.gather(endless, return_exceptions=True)


def test_loops_may_follow_each_other() -> None:
    """One clock goes on in the next loop, whatever the last one left pending."""
    clock = VirtualClock()
    began = clock.monotonic()

    async def leave_a_timer_behind() -> None:
        clock.call_later(5.0, lambda: None)
        await clock.sleep(1.0)

    asyncio.run(leave_a_timer_behind())
    asyncio.run(clock.sleep(10.0))
    assert clock.monotonic() - began == pytest.approx(11.0)
    assert clock.sleepers == 0
    assert repr(clock) == "<VirtualClock 2026-01-01 00:00:11Z, 0 sleepers>"


async def test_a_thread_that_ends_as_it_is_looked_at_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its result comes after the sockets were asked and before it counts as idle."""
    clock, going_on = VirtualClock(), threading.Event()
    sleeping = asyncio.create_task(clock.sleep(1000.0))
    began = clock.monotonic()
    working = asyncio.create_task(asyncio.to_thread(going_on.wait))
    looked = clock_module._works_outside

    def late(loop: asyncio.AbstractEventLoop | None) -> Any:
        if looked(loop)[0] and not going_on.is_set():
            going_on.set()
            while looked(loop)[0]:
                time.sleep(0.001)
        return looked(loop)

    monkeypatch.setattr(clock_module, "_works_outside", late)
    await working
    assert clock.monotonic() == began
    sleeping.cancel()
