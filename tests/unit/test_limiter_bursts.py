"""Thousands of calls at once: they join a few in each turn of the loop, in order, and may leave."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from gather_async.errors import ConfigurationError, QuotaWaitError
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota import InProcessLimiter, Slot
from gather_async.quota.priority_queue import Lobby
from gather_async.testing.clock import VirtualClock


def _limiter(limit: int, per: float = 10.0) -> InProcessLimiter:
    return InProcessLimiter([RateLimit(limit, per=per)], clock=VirtualClock(), reserve=0)


def _burst(
    limiter: InProcessLimiter, count: int, max_wait: float | None = None
) -> Sequence["asyncio.Task[Slot]"]:
    calls = [limiter.acquire(priority="interactive", max_wait=max_wait) for _ in range(count)]
    return [asyncio.create_task(call) for call in calls]


async def _leave(tasks: Sequence["asyncio.Task[Slot]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_few_join_in_one_turn_of_the_loop() -> None:
    """Others run between the bites of a burst; all of it counts as queued at once."""
    limiter = _limiter(1)
    await limiter.acquire(priority="interactive", max_wait=None)
    joined = [0]
    tasks = _burst(limiter, 1000, max_wait=1e6)
    while joined[-1] < 1000:
        await asyncio.sleep(0)
        assert limiter.status().queued.interactive == 1000
        joined.append(limiter._queues.interactive.waiting)
    assert max(after - before for before, after in itertools.pairwise(joined)) <= 100
    await _leave(tasks)
    assert limiter.status().queued.interactive == 0


async def test_a_burst_keeps_its_order() -> None:
    """Slots go to the calls in the order in which they came, whichever bite they joined in."""
    limiter = _limiter(50)
    started: list[int] = []

    async def call(number: int) -> None:
        slot = await limiter.acquire(priority="interactive", max_wait=None)
        started.append(number)
        slot.answered(None)

    await asyncio.gather(*(call(number) for number in range(1000)))
    assert started == list(range(1000))


async def test_no_newcomer_overtakes_who_has_not_joined_yet() -> None:
    """A call that comes while others still join gets no slot before them."""
    limiter = _limiter(300)
    slots = [await limiter.acquire(priority="interactive", max_wait=None) for _ in range(300)]
    tasks = _burst(limiter, 250)
    await asyncio.sleep(0)
    for slot in slots[:200]:  # room for those that have joined, and for more
        slot.returned()
    assert limiter.grant("interactive") is None
    for slot in slots[200:]:
        slot.returned()
    newcomer = asyncio.create_task(limiter.acquire(priority="interactive", max_wait=None))
    await asyncio.gather(*tasks)
    await newcomer


async def test_calls_leave_before_they_have_joined() -> None:
    """Cancelled or refused, they leave no trace, and hold up no one."""
    limiter = _limiter(1)
    slot = await limiter.acquire(priority="interactive", max_wait=None)
    tasks = _burst(limiter, 500)
    await asyncio.sleep(0)
    await _leave(tasks[50:])
    refused = _burst(limiter, 500, max_wait=1.0)
    found = await asyncio.gather(*refused, return_exceptions=True)
    assert {type(each) for each in found} == {QuotaWaitError}
    odd = await asyncio.gather(*_burst(limiter, 500, max_wait=-1.0), return_exceptions=True)
    assert {type(each) for each in odd} == {ConfigurationError}
    assert limiter.status().queued.interactive == 50
    await _leave(tasks)
    slot.returned()
    assert limiter.grant("interactive") is not None


async def test_those_who_left_take_no_turn() -> None:
    """The calls behind many that were cancelled are let in by the next turn."""
    lobby = Lobby(asyncio.get_running_loop())
    while lobby.pass_one():
        pass
    turns = [lobby.turn() for _ in range(1000)]
    for turn in turns[:950]:
        turn.cancel()
    await asyncio.sleep(0)
    assert all(turn.done() for turn in turns)
    assert lobby.pass_one()
    with pytest.raises(asyncio.CancelledError):
        await turns[0]


async def test_leaving_asks_for_no_slot_but_for_the_last_of_a_queue() -> None:
    """While others wait as before, nothing is free earlier; the last one may let bulk go on."""
    asked = 0

    class Counted(InProcessLimiter):
        def _dispatch(self) -> None:
            nonlocal asked
            asked += 1
            super()._dispatch()

    limiter = Counted([RateLimit(2, per=10.0)], clock=VirtualClock(), reserve=1)
    slot = await limiter.acquire(priority="interactive", max_wait=None)
    tasks = _burst(limiter, 91)
    bulk = asyncio.create_task(limiter.acquire(priority="bulk", max_wait=None))
    await asyncio.sleep(0)
    (await tasks[0]).lost()
    asked = 0
    await _leave(tasks[1:])
    assert asked == 1
    slot.returned()
    await bulk


async def test_joining_asks_for_no_slot_behind_others() -> None:
    """The slot that is next belongs to who waited before; it is theirs when the timer rings."""
    clock, asked = VirtualClock(), 0

    class Counted(InProcessLimiter):
        def _dispatch(self) -> None:
            nonlocal asked
            asked += 1
            super()._dispatch()

    limiter = Counted([RateLimit(1, per=10.0)], clock=clock, reserve=0)
    (await limiter.acquire(priority="interactive", max_wait=None)).answered(None)
    asked = 0
    tasks = _burst(limiter, 50)
    await asyncio.sleep(0)
    assert limiter.status().queued.interactive == 50
    assert asked == 1
    began = clock.monotonic()
    await tasks[0]
    assert clock.monotonic() - began == pytest.approx(10.0)
    await _leave(tasks[1:])
