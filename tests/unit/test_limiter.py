"""The in-process limiter: order, priorities, cancellation, loops, holds."""

import asyncio
import gc
import itertools
import random
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from gather_async.errors import ClientClosedError, ConfigurationError, QuotaWaitError
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota import InProcessLimiter, Priority, Slot
from gather_async.testing.clock import VirtualClock

# What differs where a server grants the slots: the seconds after which a limiter has reported to
# it what ended, and how exact its instants are.
_REPORTED = 0.0
_INSTANTS: Any = list


async def _until_reported(clock: VirtualClock) -> None:
    if _REPORTED:
        await clock.sleep(_REPORTED)


@pytest.fixture
def clock() -> VirtualClock:
    """A clock that jumps by itself."""
    return VirtualClock()


def _limiter(clock: VirtualClock, *limits: tuple[int, float], **options: Any) -> InProcessLimiter:
    rate_limits = [RateLimit(limit, per=per) for limit, per in limits]
    return InProcessLimiter(rate_limits, clock=clock, **{"reserve": 0, **options})


async def _get(limiter: InProcessLimiter, priority: Priority = "interactive") -> Slot:
    return await limiter.acquire(priority=priority, max_wait=None)


class _Calls:
    """Runs calls of a fixed latency, and notes who started when."""

    def __init__(
        self, limiter: InProcessLimiter, clock: VirtualClock, latency: float = 0.0
    ) -> None:
        self.limiter, self.clock, self.latency = limiter, clock, latency
        self.began = clock.monotonic()
        self.starts: list[tuple[str, float]] = []

    async def call(self, name: str, priority: Priority = "interactive") -> None:
        """Make one call."""
        slot = await _get(self.limiter, priority)
        self.starts.append((name, self.clock.monotonic() - self.began))
        await self.clock.sleep(self.latency)
        slot.answered(None)

    def names(self) -> list[str]:
        """Return who started, in order."""
        return [name for name, _ in self.starts]


async def test_calls_start_in_the_order_they_came(clock: VirtualClock) -> None:
    """Within a priority the first to ask is the first to start."""
    calls = _Calls(_limiter(clock, (2, 10)), clock)
    await asyncio.gather(*(calls.call(str(number)) for number in range(9)))
    assert calls.names() == [str(number) for number in range(9)]
    assert [at for _, at in calls.starts] == _INSTANTS([0, 0, 10, 10, 20, 20, 30, 30, 40])


async def test_a_slot_is_taken_from_leave_until_a_period_after_the_answer(
    clock: VirtualClock,
) -> None:
    """With answers after 3 s, a window of 10 s lets the next one go after 13 s."""
    calls = _Calls(_limiter(clock, (1, 10)), clock, latency=3.0)
    await asyncio.gather(calls.call("a"), calls.call("b"), calls.call("c"))
    assert [at for _, at in calls.starts] == pytest.approx([0, 13, 26])


async def test_interactive_calls_go_ahead_of_bulk(clock: VirtualClock) -> None:
    """An interactive call that comes last starts before bulk calls that wait."""
    limiter = _limiter(clock, (1, 5))
    calls = _Calls(limiter, clock)
    first = await _get(limiter)
    first.answered(None)
    tasks = [asyncio.create_task(calls.call(f"bulk{n}", "bulk")) for n in range(3)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(calls.call("now")))
    await asyncio.gather(*tasks)
    assert calls.names() == ["now", "bulk0", "bulk1", "bulk2"]


async def test_bulk_never_takes_the_reserve_and_is_never_starved(clock: VirtualClock) -> None:
    """Under endless interactive load bulk still moves, and leaves the reserve free each time."""
    limiter = _limiter(clock, (20, 10), reserve=5)
    ends: list[float | None] = []  # by start; None while in flight
    taken: list[int] = []  # found by each bulk call, itself included

    async def call(priority: Priority) -> None:
        slot = await _get(limiter, priority)
        number = len(ends)
        ends.append(None)
        if priority == "bulk":
            now = clock.monotonic()
            taken.append(sum(end is None or now - end < 10 for end in ends))
        await clock.sleep(0.1)
        slot.answered(None)
        ends[number] = clock.monotonic()

    async def interactive() -> None:
        while len(taken) < 40:
            await call("interactive")

    began = clock.monotonic()
    load = [asyncio.create_task(interactive()) for _ in range(30)]
    await asyncio.gather(*(call("bulk") for _ in range(40)))
    assert max(taken) <= 15
    share = len(taken) / len(ends)
    assert 0.1 < share < 0.3
    assert clock.monotonic() - began < 150
    await asyncio.gather(*load)


async def test_even_pace_spreads_bulk_over_the_longest_window(clock: VirtualClock) -> None:
    """360 bulk calls under 100 an hour start 36 s apart; an interactive one doesn't wait."""
    limiter = _limiter(clock, (30, 60), (100, 3600), pace="even")
    calls = _Calls(limiter, clock)
    tasks = [asyncio.create_task(calls.call("bulk", "bulk")) for _ in range(150)]
    await clock.sleep(100.0)
    await calls.call("now")
    assert calls.starts[-1] == ("now", pytest.approx(100.0))
    await asyncio.gather(*tasks)
    starts = [at for name, at in calls.starts if name == "bulk"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert min(gaps) == pytest.approx(36.0)
    assert max(gaps) < 2 * 36.0 + 1.0


async def test_a_cancelled_waiter_leaves_no_trace(clock: VirtualClock) -> None:
    """Cancelling those in front lets the ones behind start as if they had never been there."""
    limiter = _limiter(clock, (1, 10))
    calls = _Calls(limiter, clock)
    (await _get(limiter)).answered(None)
    tasks = [asyncio.create_task(calls.call(str(number))) for number in range(5)]
    await asyncio.sleep(0)
    for task in tasks[:4]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert calls.starts == [("4", pytest.approx(10.0))]
    assert limiter.status().queued.interactive == 0
    await _until_reported(clock)
    assert clock.sleepers == 0


async def test_a_waiter_cancelled_just_after_it_was_served_gives_the_slot_back(
    clock: VirtualClock,
) -> None:
    """A slot granted to a task that is cancelled before it runs goes to the next one at once."""
    limiter = _limiter(clock, (1, 10))
    first = await _get(limiter)
    served = asyncio.create_task(_get(limiter))
    behind = asyncio.create_task(_get(limiter))
    await asyncio.sleep(0)
    first.returned()  # serves the waiter; its task has not run yet
    served.cancel()
    slot = await behind
    assert served.cancelled()
    assert limiter.status().in_flight == 1
    slot.returned()
    assert limiter.status().windows[0].used == 0


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(each, marks=pytest.mark.slow) for each in range(5, 20))]
)
async def test_no_slot_is_lost_wherever_calls_are_cancelled(seed: int) -> None:
    """Random cancellations at every await leave the full quota and an empty queue behind."""
    clock, rng = VirtualClock(), random.Random(seed)
    limiter = _limiter(clock, (5, 1), (20, 10))
    calls = _Calls(limiter, clock)

    async def call() -> None:
        slot = await limiter.acquire(
            priority=rng.choice(["interactive", "bulk"]), max_wait=rng.choice([None, 1000.0])
        )
        try:
            await clock.sleep(rng.random())
        except asyncio.CancelledError:
            slot.lost()
            raise
        endings: list[Callable[[], None]]
        endings = [slot.lost, slot.returned, partial(slot.answered, None)]
        rng.choice(endings)()

    tasks = []
    for _ in range(150):
        tasks.append(asyncio.create_task(call()))
        if rng.random() < 0.5:
            rng.choice(tasks).cancel()
        if rng.random() < 0.3:
            await clock.sleep(rng.choice([0.0, rng.random()]))
    await asyncio.gather(*tasks, return_exceptions=True)
    status = limiter.status()
    assert (status.in_flight, status.queued.interactive, status.queued.bulk) == (0, 0, 0)
    await _until_reported(clock)
    assert clock.sleepers == 0
    await clock.sleep(10.0)
    assert [window.remaining for window in limiter.status().windows] == [5, 20]
    await asyncio.gather(*(calls.call("again") for _ in range(5)))


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
async def test_many_cancelled_waiters_hold_no_memory(count: int, clock: VirtualClock) -> None:
    """Waiters that left are dropped, although the window never has room to skip them."""
    limiter = _limiter(clock, (1, 1e6))
    slot = await _get(limiter)
    futures: weakref.WeakSet[asyncio.Future[Slot]] = weakref.WeakSet()

    async def wait_and_cancel() -> None:
        tasks = [asyncio.create_task(_get(limiter, "bulk")) for _ in range(count)]
        await asyncio.sleep(0)
        assert limiter.status().queued.bulk == count
        futures.update(task._fut_waiter for task in tasks)  # type: ignore[attr-defined]  # what each awaits
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    await wait_and_cancel()
    gc.collect()
    assert len(futures) <= 64
    slot.returned()


async def test_a_request_that_was_never_sent_frees_its_slot_at_once(clock: VirtualClock) -> None:
    """`returned` lets the next one start now, not a period later."""
    limiter = _limiter(clock, (1, 60))
    (await _get(limiter)).returned()
    began = clock.monotonic()
    await _get(limiter)
    assert clock.monotonic() == began


async def test_a_lost_request_counts_from_the_moment_it_was_given_up(clock: VirtualClock) -> None:
    """Given up after 30 s, it occupies the window until 90 s."""
    limiter = _limiter(clock, (1, 60))
    began = clock.monotonic()
    slot = await _get(limiter)
    await clock.sleep(30.0)
    slot.lost()
    await _get(limiter)
    assert clock.monotonic() - began == pytest.approx(90.0)


async def test_a_request_sent_again_counts_twice(clock: VirtualClock) -> None:
    """What aiohttp resends on its own is one more request of the quota."""
    limiter = _limiter(clock, (3, 60))
    slot = await _get(limiter)
    slot.resent()
    assert limiter.status().in_flight == 2
    slot.answered(None)
    assert limiter.status().windows[0].used == 2


async def test_a_second_ending_does_nothing(clock: VirtualClock) -> None:
    """Only the first ending of a slot counts, whatever a careless caller does."""
    limiter = _limiter(clock, (3, 60))
    slot = await _get(limiter)
    slot.answered(None)
    slot.returned()
    slot.lost()
    slot.resent()
    status = limiter.status()
    assert (status.in_flight, status.windows[0].used) == (0, 1)


async def test_max_wait_refuses_at_once_with_the_date(clock: VirtualClock) -> None:
    """A call that could only start in 60 s isn't queued under max_wait=5, and says when."""
    limiter = _limiter(clock, (2, 60))
    for _ in range(2):
        (await _get(limiter)).answered(None)
    began = clock.monotonic()
    with pytest.raises(QuotaWaitError) as caught:
        await limiter.acquire(priority="interactive", max_wait=5.0)
    assert clock.monotonic() == began
    assert caught.value.wait == pytest.approx(60.0)
    wall = datetime.fromtimestamp(clock.wall(), UTC)
    assert caught.value.available_at - wall == timedelta(seconds=60)
    assert limiter.status().queued.interactive == 0
    slot = await limiter.acquire(priority="interactive", max_wait=60.0)
    assert clock.monotonic() - began == pytest.approx(60.0)
    slot.answered(None)


async def test_max_wait_counts_the_calls_ahead(clock: VirtualClock) -> None:
    """The third waiter of one slot a minute is given three minutes."""
    limiter = _limiter(clock, (1, 60))
    (await _get(limiter)).answered(None)
    ahead = [asyncio.create_task(_get(limiter)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(QuotaWaitError) as caught:
        await limiter.acquire(priority="interactive", max_wait=100.0)
    assert caught.value.wait == pytest.approx(180.0)
    for task in ahead:
        task.cancel()
    await asyncio.gather(*ahead, return_exceptions=True)


@pytest.mark.parametrize(("held", "said"), [(100.0, "more than max_wait=8"), (9.0, "is over")])
async def test_max_wait_holds_although_a_hold_came_later(
    clock: VirtualClock, held: float, said: str
) -> None:
    """A call that was queued gives up after max_wait when the server stopped the client."""
    limiter = _limiter(clock, (1, 5), (10, 600))
    (await _get(limiter)).answered(None)
    began = clock.monotonic()
    waiting = asyncio.create_task(limiter.acquire(priority="interactive", max_wait=8.0))
    await clock.sleep(1.0)
    limiter.hold(clock.wall() + held)
    with pytest.raises(QuotaWaitError, match=said) as caught:
        await waiting
    assert clock.monotonic() - began == pytest.approx(8.0)
    assert caught.value.wait == pytest.approx(held - 7.0)
    await _until_reported(clock)
    assert clock.sleepers == 0


@pytest.mark.parametrize("max_wait", [-1.0, float("nan")])
async def test_a_senseless_max_wait_is_refused(clock: VirtualClock, max_wait: float) -> None:
    """A negative wait, or one that is no number, is a mistake of the caller's."""
    limiter = _limiter(clock, (1, 5))
    (await _get(limiter)).answered(None)
    with pytest.raises(ConfigurationError, match="max_wait"):
        await limiter.acquire(priority="interactive", max_wait=max_wait)


async def test_a_hold_only_grows_and_ends(clock: VirtualClock) -> None:
    """Nothing starts before the latest of all holds; earlier and past ones change nothing."""
    limiter = _limiter(clock, (5, 60))
    began = clock.monotonic()
    limiter.hold(clock.wall() + 20.0)
    for until in (clock.wall() + 10.0, clock.wall() - 5.0, float("nan")):
        limiter.hold(until)
    assert limiter.status().next_slot == pytest.approx(20.0)
    await _get(limiter)
    assert clock.monotonic() - began == pytest.approx(20.0)
    assert limiter.status().held_until is None


async def test_a_hold_survives_a_wall_clock_that_jumps(clock: VirtualClock) -> None:
    """Set back by a day after a hold of 20 s, the wall clock doesn't freeze the client."""
    limiter = _limiter(clock, (5, 60))
    began = clock.monotonic()
    limiter.hold(clock.wall() + 20.0)
    clock.set_wall(clock.wall() - 86_400)
    await _get(limiter)
    assert clock.monotonic() - began == pytest.approx(20.0)


async def test_a_senseless_hold_is_capped(clock: VirtualClock) -> None:
    """A reset a year away holds for the longest window and a minute, no longer."""
    limiter = _limiter(clock, (5, 60))
    began = clock.monotonic()
    limiter.hold(clock.wall() + 365 * 86_400)
    await _get(limiter)
    assert clock.monotonic() - began == pytest.approx(120.0)


async def test_jitter_of_many_refusals_does_not_add_up(clock: VirtualClock) -> None:
    """A hundred holds to about the same instant end at most a second after it."""
    limiter = _limiter(clock, (5, 60), rng=random.Random(1))
    began = clock.monotonic()
    for _ in range(100):
        limiter.hold(clock.wall() + 20.0)
    await _get(limiter)
    assert 20.0 < clock.monotonic() - began <= 21.0


async def test_who_was_refused_goes_first(clock: VirtualClock) -> None:
    """A task that asked for a hold starts before those that waited already."""
    limiter = _limiter(clock, (1, 10))
    calls = _Calls(limiter, clock)
    refused = await _get(limiter)
    waiting = [asyncio.create_task(calls.call(str(number))) for number in range(3)]
    await asyncio.sleep(0)
    refused.answered(None)
    limiter.hold(clock.wall() + 10.0)
    await calls.call("refused")
    await asyncio.gather(*waiting)
    assert calls.names() == ["refused", "0", "1", "2"]


def test_the_count_survives_an_event_loop(clock: VirtualClock) -> None:
    """What was sent under one asyncio.run still counts under the next; in flight means lost."""
    limiter = _limiter(clock, (3, 60))

    async def first() -> None:
        (await _get(limiter)).answered(None)
        await _get(limiter)  # never ended: the loop dies with it in flight
        await clock.sleep(10.0)

    async def second() -> float:
        began = clock.monotonic()
        await asyncio.gather(*(_get(limiter) for _ in range(2)))
        return clock.monotonic() - began

    asyncio.run(first())
    assert asyncio.run(second()) == pytest.approx(50.0)
    assert limiter.status().windows[0].used == 3


def test_waiters_of_a_dead_loop_are_forgotten(clock: VirtualClock) -> None:
    """A loop closed without cancelling its waiters takes them along."""
    limiter = _limiter(clock, (1, 60))
    slots: list[Slot] = []

    async def strand() -> None:
        slots.append(await _get(limiter))
        stranded.append(asyncio.ensure_future(_get(limiter)))
        await asyncio.sleep(0)

    stranded: list[asyncio.Future[Slot]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(strand())
    loop.close()
    began = clock.monotonic()
    asyncio.run(_get(limiter))
    assert clock.monotonic() - began == pytest.approx(60.0)
    slots[0].answered(None)  # of the dead loop: it was counted as lost already
    assert limiter.status().in_flight == 1
    stranded[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio would log what we did on purpose


def test_a_waiter_of_a_paused_loop_is_reported(clock: VirtualClock) -> None:
    """A loop that rests, but isn't closed, finds an error instead of waiting for ever."""
    limiter = _limiter(clock, (1, 60))
    paused = asyncio.new_event_loop()
    try:
        paused.run_until_complete(_get(limiter))
        waiting = paused.create_task(_get(limiter))
        paused.run_until_complete(asyncio.sleep(0))
        asyncio.run(_get(limiter))
        with pytest.raises(ClientClosedError):
            paused.run_until_complete(waiting)
    finally:
        paused.close()


@pytest.mark.parametrize("reserve", [-1, 1.5, True, None, "5"])
def test_a_senseless_reserve_is_refused(clock: VirtualClock, reserve: Any) -> None:
    """The reserve is a whole number from 0."""
    with pytest.raises(ConfigurationError, match="reserve"):
        _limiter(clock, (1, 1), reserve=reserve)


def test_senseless_limits_and_paces_are_refused(clock: VirtualClock) -> None:
    """An empty list and an unknown pace fail at construction."""
    with pytest.raises(ConfigurationError, match="rate_limits"):
        _limiter(clock)
    with pytest.raises(ConfigurationError, match="pace"):
        _limiter(clock, (1, 1), pace="fast")


@pytest.mark.parametrize("priority", ["urgent", None, ["bulk"]])
async def test_an_unknown_priority_is_refused(clock: VirtualClock, priority: Any) -> None:
    """A priority that doesn't exist is named in the error."""
    limiter = _limiter(clock, (1, 1))
    with pytest.raises(ConfigurationError, match="priority"):
        await _get(limiter, priority)
    with pytest.raises(ConfigurationError, match="priority"):
        limiter.estimate(1, priority=priority)


async def test_status_and_repr_show_the_windows_the_queue_and_the_next_slot(
    clock: VirtualClock,
) -> None:
    """One look tells what is used, who waits, and how long."""
    limiter = _limiter(clock, (2, 60), (9, 3600))
    (await _get(limiter)).answered(None)
    slot = await _get(limiter)
    tasks = [
        asyncio.create_task(_get(limiter, "bulk")),
        asyncio.create_task(_get(limiter)),
        asyncio.create_task(_get(limiter, "bulk")),
    ]
    await asyncio.sleep(0)
    status = limiter.status()
    minute, hour = status.windows
    assert (minute.limit, minute.period, minute.used, minute.remaining) == (2, 60, 2, 0)
    assert (hour.used, hour.remaining, hour.next_free) == (2, 7, 0.0)
    assert (status.in_flight, status.queued.interactive, status.queued.bulk) == (1, 1, 2)
    assert minute.next_free == status.next_slot == pytest.approx(60.0)
    assert status.remaining == 0
    assert repr(limiter) == (
        "<InProcessLimiter 2/2 in 60 s, 2/9 in 3600 s, 1 in flight, 1+2 queued, free in 60.0 s>"
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    slot.answered(None)


async def test_a_restored_history_counts(clock: VirtualClock) -> None:
    """What `recent` returns, `restore` puts into the next process' limiter."""
    old = _limiter(clock, (3, 60))
    (await _get(old)).answered(None)
    await clock.sleep(20.0)
    (await _get(old)).answered(None)
    in_flight = await _get(old)
    wall_times = old.recent()
    assert wall_times == pytest.approx([clock.wall() - 20, clock.wall(), clock.wall()])
    in_flight.lost()
    new = _limiter(clock, (3, 60))
    new.restore([*wall_times, clock.wall() - 4000, float("nan")])
    began = clock.monotonic()
    await _get(new)
    assert clock.monotonic() - began == pytest.approx(40.0)
