"""Sleeps that an event ends, and the loop that an object works in."""

import asyncio
import gc
import math
import threading
from collections.abc import AsyncGenerator
from unittest import mock

import pytest

from gather_async.clock import SystemClock, wait
from gather_async.errors import ClientClosedError
from gather_async.loops import LoopOwner, PerLoop, close_surely, end_lifetime, running_loop
from gather_async.testing import VirtualClock


async def test_a_wait_lasts_for_its_seconds() -> None:
    """Without the event, exactly so much time passes."""
    clock = VirtualClock()
    began = clock.monotonic()
    assert not await wait(clock, asyncio.Event(), 12.5)
    assert clock.monotonic() == began + 12.5


@pytest.mark.parametrize("seconds", [10.0, math.inf])
async def test_an_event_ends_a_wait(seconds: float) -> None:
    """The wait ends when the event is set, and says so."""
    clock = VirtualClock()
    began, event = clock.monotonic(), asyncio.Event()
    clock.call_later(3.0, event.set)
    assert await wait(clock, event, seconds)
    assert clock.monotonic() == began + 3.0


async def test_an_event_that_is_set_leaves_nothing_to_wait_for() -> None:
    """No time passes, nor does it for no seconds."""
    clock = VirtualClock()
    began, event = clock.monotonic(), asyncio.Event()
    for seconds in (0.0, -1.0):
        assert not await wait(clock, event, seconds)
    event.set()
    for seconds in (0.0, 5.0, math.inf):
        assert await wait(clock, event, seconds)
    assert clock.monotonic() == began


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    """Neither its timer nor its task outlives it, and the cancellation goes on."""
    clock = VirtualClock()
    waiting = asyncio.create_task(wait(clock, asyncio.Event(), 60.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    began = clock.monotonic()
    await clock.sleep(1.0)
    assert clock.monotonic() == began + 1.0


def test_an_object_moves_from_loop_to_loop() -> None:
    """It enters the next loop once the one before is over, and knows where it is."""
    owner = LoopOwner("client")

    async def enter() -> list[bool]:
        entered = [owner.enter(), owner.enter()]
        assert owner.is_here
        return entered

    assert running_loop() is None
    assert not owner.is_here
    assert [asyncio.run(enter()) for _ in range(2)] == [[True, False]] * 2
    assert not owner.is_elsewhere


def test_a_second_loop_gets_one_message() -> None:
    """One message names the object and the way out; leaving lets the other loop in."""
    owner = LoopOwner("client")

    async def enter() -> None:
        owner.enter()

    async def outer() -> None:
        await enter()
        with pytest.raises(ClientClosedError, match="client is in use in another event loop: make"):
            await asyncio.to_thread(asyncio.run, enter())
        assert owner.is_here
        owner.leave()
        await asyncio.to_thread(asyncio.run, enter())
        assert not owner.is_here

    asyncio.run(outer())


def test_a_resting_loop_may_keep_its_object() -> None:
    """What has tasks in a loop that rests stays there until that loop is closed."""
    keeper, mover = LoopOwner("receiver", until_closed=True), LoopOwner("client")
    loop = asyncio.new_event_loop()

    async def enter() -> None:
        mover.enter()
        keeper.enter()

    loop.run_until_complete(enter())
    with pytest.raises(ClientClosedError, match="receiver"):
        asyncio.run(enter())
    loop.close()
    asyncio.run(enter())


async def test_a_call_from_another_thread_runs_in_the_loop() -> None:
    """It is handed over to a loop that runs, and made at once where there is none."""
    owner, called = LoopOwner("client"), asyncio.Event()
    threads: list[str] = []

    def note() -> None:
        threads.append(threading.current_thread().name)
        called.set()

    owner.call(note)
    assert owner.enter()
    called.clear()
    thread = threading.Thread(target=owner.call, args=(note,), name="elsewhere")
    thread.start()
    thread.join()
    await called.wait()
    assert threads == [threading.current_thread().name] * 2


async def test_the_machines_clock_ends_a_wait_as_well() -> None:
    """The running loop's own timers do."""
    assert not await wait(SystemClock(), asyncio.Event(), 1e-6)


def test_a_loop_that_ends_meanwhile_is_not_closed_in() -> None:
    """A part whose loop stops before it can close it costs no coroutine that is never awaited."""
    parts: PerLoop[object] = PerLoop(object)
    stopping = threading.Event()
    entered, closed = threading.Event(), list[object]()

    async def hold() -> None:
        parts.here()
        entered.set()
        stopping.wait(20)  # blocks its loop, which ends without looking at its callbacks again

    async def close(part: object) -> None:
        closed.append(part)

    async def close_all() -> None:
        parts.here()
        closing = asyncio.ensure_future(parts.close(close))
        while len(closed) < 1:  # noqa: ASYNC110 - the own part is closed in its turn
            await asyncio.sleep(0)
        stopping.set()
        closing.cancel()
        await asyncio.wait({closing})

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(hold(),))
    thread.start()
    assert entered.wait(20)
    asyncio.run(close_all())
    thread.join()
    loop.close()
    gc.collect()
    assert len(closed) >= 1


@pytest.mark.parametrize("rests", [False, True])
def test_a_loop_that_stops_before_its_part_is_closed_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, *, rests: bool
) -> None:
    """What was begun in it never ends: threads whose loops end together would wait seconds."""
    monkeypatch.setattr("gather_async.loops._CLOSING", math.inf)
    parts: PerLoop[asyncio.AbstractEventLoop] = PerLoop(asyncio.get_running_loop)
    entered, closes = threading.Event(), threading.Event()

    async def close(part: asyncio.AbstractEventLoop) -> None:
        if part is other:
            closes.set()
            part.stop()
            await asyncio.Event().wait()

    async def close_all() -> None:
        parts.here()
        await parts.close(close)

    def run_and_close() -> None:
        other.call_soon(parts.here)
        other.call_soon(entered.set)
        other.run_forever()
        if not rests:
            other.close()

    other = asyncio.new_event_loop()
    thread = threading.Thread(target=run_and_close)
    thread.start()
    assert entered.wait(20)
    asyncio.run(close_all())
    thread.join()
    assert closes.is_set()
    (task,) = asyncio.all_tasks(other)
    task.get_coro().close()
    other.close()


def test_a_loop_that_rests_keeps_its_part() -> None:
    """Another loop gets the part only once its own is closed."""
    parts: PerLoop[object] = PerLoop(object)

    async def here() -> object:
        return parts.here()

    with asyncio.Runner() as resting:
        first = resting.run(here())
        second = asyncio.run(here())
        assert second is not first
        assert resting.run(here()) is first
        assert asyncio.run(here()) is second
    assert {asyncio.run(here()), asyncio.run(here())} <= {first, second}
    assert len(parts.all()) == 2


def test_loops_that_are_never_closed_dont_gather() -> None:
    """The longest known of them loses its part, so that the number of parts is bounded."""
    parts: PerLoop[object] = PerLoop(object)
    loops = [asyncio.new_event_loop() for _ in range(100)]

    async def here() -> object:
        return parts.here()

    first = loops[0].run_until_complete(here())
    assert first in [loop.run_until_complete(here()) for loop in loops[1:]]
    assert len(parts.all()) < 50
    for loop in loops:
        loop.close()


@pytest.mark.parametrize("times", [1, 3])
async def test_what_is_cancelled_while_it_closes_is_closed_all_the_same(times: int) -> None:
    """The last attempt goes to its end, and the cancellation goes on."""
    attempts = list[str]()

    async def close() -> None:
        attempts.append("begun")
        await asyncio.sleep(0)
        attempts.append("ended")

    task = asyncio.create_task(close_surely(close))
    for _ in range(times):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert attempts == ["begun"] * (times + 1) + ["ended"]


async def test_closing_that_cancels_itself_is_not_repeated() -> None:
    """It would do so again, for ever."""
    close = mock.AsyncMock(side_effect=asyncio.CancelledError)
    with pytest.raises(asyncio.CancelledError):
        await close_surely(close)
    close.assert_awaited_once_with()


async def test_a_lifetime_that_is_ending_is_not_ended_twice() -> None:
    """What a loop's end is closing already is left to it."""
    goes_on, ended = asyncio.Event(), list[bool]()

    async def keep() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await goes_on.wait()
            ended.append(True)

    lifetime = keep()
    await anext(lifetime)
    first = asyncio.create_task(end_lifetime(lifetime))
    await asyncio.sleep(0)
    await end_lifetime(lifetime)
    await end_lifetime(None)
    goes_on.set()
    await first
    assert ended == [True]
