"""Waits woken by webhooks."""

import asyncio
import gc
import math
import random
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from attrs import evolve

from gather_async import (
    AudioTimeoutError,
    GatherClient,
    PollPolicy,
    Question,
    QuotaWaitError,
    RateLimit,
    RateLimitStatus,
    WaitTimeoutError,
)
from gather_async.protocol.polling import PollBudget
from gather_async.quota import InProcessLimiter, Priority, Slot
from gather_async.testing import FakeGather, VirtualClock
from gather_async.waiting import Listener, Signals
from gather_async.waiting.conditions import audio_ready
from gather_async.waiting.scheduler import Scheduler
from gather_async.waiting.targets import Waiter
from gather_async.webhooks import WebhookReceiver

PLENTY = [RateLimit(1_000_000, per=60)]
SECRET = "whsec_test"


class Radio:
    """Signals by hand."""

    def __init__(self, *, alive: bool = True) -> None:
        self.alive = alive
        self.listeners: list[Listener] = []

    def subscribe(self, listener: Listener, /) -> Callable[[], None]:
        """Add a listener."""
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def tell(self, event: str, *ids: str) -> None:
        """Tell all listeners."""
        for listener in list(self.listeners):
            listener(event, frozenset(ids))


class World:
    """A server, a client that receives signals, and questions."""

    def __init__(self, fake: FakeGather, gather: GatherClient, ids: Sequence[str]) -> None:
        self.fake, self.gather, self.ids = fake, gather, ids
        self.clock = fake.clock
        self._before = len(fake.requests)

    @property
    def reads(self) -> Sequence[Any]:
        """Requests since the questions exist."""
        return self.fake.requests[self._before :]

    def wait(self, number: int = 0, **options: Any) -> "asyncio.Task[Any]":
        """Wait for one question."""
        wait = self.gather.questions.wait_until_audio_ready(self.ids[number], **options)
        return asyncio.ensure_future(wait)


@asynccontextmanager
async def a_world(
    signals: Signals, count: int = 1, *, audio_seconds: float = math.inf, **options: Any
) -> AsyncIterator[World]:
    """Open a world on a virtual clock."""
    clock = options.pop("clock", None) or VirtualClock()
    async with (
        FakeGather(clock=clock, audio_seconds=audio_seconds, **options) as fake,
        fake.client(
            rng=random.Random(2),
            signals=signals,
            rate_limits=PLENTY,
            user_id=fake.user_id,
        ) as gather,
    ):
        ids = [
            (await gather.questions.create(title=f"q{n}", question_script="Why?")).id
            for n in range(count)
        ]
        yield World(fake, gather, ids)


async def test_an_event_wakes_the_waiter_of_its_question_for_one_read() -> None:
    """The question named in an event is read at once, alone, and no other."""
    radio = Radio()
    async with a_world(radio, 3) as world:
        waits = [world.wait(n) for n in range(3)]
        await world.clock.sleep(3.0)
        before = len(world.reads)
        world.fake.finish_audio(world.ids[1])
        told_at = world.clock.monotonic()
        radio.tell("question.audio_generated", world.ids[1])
        assert (await waits[1]).id == world.ids[1]
        assert world.clock.monotonic() == told_at
        assert [each.path for each in world.reads[before:]] == [
            f"/qsi/gather/questions/{world.ids[1]}"
        ]
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


@pytest.mark.parametrize(("alive", "most"), [(True, 11), (False, 17)])
async def test_polling_is_slow_while_signals_are_alive(alive: bool, most: int) -> None:
    """While events arrive, a wait looks once at the start and then at the cap's interval."""
    async with a_world(Radio(alive=alive)) as world:
        with pytest.raises(AudioTimeoutError):
            await world.wait(timeout=120.0)
        assert len(world.reads) <= most
        gap = world.reads[1].at - world.reads[0].at
        assert (12.0 <= gap <= 15.0) == alive


async def test_polling_remains_the_safety_net() -> None:
    """Audio of which no event tells is found by the slow polls."""
    async with a_world(Radio(), audio_seconds=20.0) as world:
        began = world.clock.monotonic()
        await world.wait()
        assert world.clock.monotonic() - began <= 35.0


async def test_an_event_before_the_wait_counts() -> None:
    """After a recent event the first looks are frequent although signals are alive."""
    radio = Radio()
    async with a_world(radio) as world:
        world.fake.finish_audio(world.ids[0], after=2.0)  # the read lags behind the event
        radio.tell("question.audio_generated", world.ids[0])
        began = world.clock.monotonic()
        await world.wait()
        assert world.clock.monotonic() - began <= 4.0


def test_the_memory_of_events_is_short() -> None:
    """An id is remembered for five minutes, and at most ten thousand are."""
    plenty = PollBudget(lambda: PLENTY)
    scheduler = Scheduler(audio_ready({}), plenty, random.Random(1), is_alive=lambda: False)

    def is_known(name: str, at: float) -> bool:
        """Return whether a wait that begins then is read for an event before it."""
        waiter = Waiter[Question](name, PollPolicy(), at, math.inf, print)
        scheduler.add(waiter, at)
        is_notified = scheduler.targets[name].is_notified
        scheduler.remove(waiter)
        return is_notified

    scheduler.notify(frozenset({"old"}), 1000.0)
    assert is_known("old", 1300.0)
    assert not is_known("old", 1301.0)
    assert not is_known("never", 1000.0)
    for number in range(10_001):
        scheduler.notify(frozenset({f"q{number}"}), 1100.0)
    assert not is_known("old", 1100.0)
    assert not is_known("q0", 1100.0)
    assert is_known("q1", 1100.0)
    scheduler.notify(frozenset({"q1"}), 1101.0)
    scheduler.notify(frozenset({"new"}), 1101.0)
    assert is_known("q1", 1101.0), "an event that is repeated is a new one"


def test_an_event_counts_once_for_waits_that_begin_after_it() -> None:
    """A second wait for the same object doesn't ask for the read that the first one had."""
    plenty = PollBudget(lambda: PLENTY)
    scheduler = Scheduler(audio_ready({}), plenty, random.Random(1), is_alive=lambda: True)
    scheduler.notify(frozenset({"a"}), 0.0)
    for at in (10.0, 10.2):
        scheduler.add(Waiter[Question]("a", PollPolicy(), at, math.inf, print), at)
        assert scheduler.targets["a"].is_notified == (at == 10.0)
        if at == 10.0:
            assert scheduler.plan(at)[0] == "a"
            scheduler.record_read("a", Question(id="a"), 10.1)


async def test_an_event_during_a_read_causes_another() -> None:
    """An answer that may be older than the event isn't the last word."""
    radio = Radio()
    async with a_world(radio) as world:
        world.fake.slow_next(1.0, after_processing=True)
        wait = world.wait()
        await world.clock.sleep(0.5)
        world.fake.finish_audio(world.ids[0])
        radio.tell("question.audio_generated", world.ids[0])
        began = world.clock.monotonic()
        await wait
        assert world.clock.monotonic() - began == pytest.approx(0.5)


async def test_an_event_that_names_nothing_during_a_read_causes_another() -> None:
    """An answer that may be older than such an event isn't the last word, either."""
    radio = Radio()
    async with a_world(radio) as world:
        world.fake.slow_next(1.0, after_processing=True)
        wait = world.wait()
        await world.clock.sleep(0.5)
        world.fake.finish_audio(world.ids[0])
        radio.tell("question.audio_generated")
        began = world.clock.monotonic()
        await wait
        assert world.clock.monotonic() - began == pytest.approx(0.5)
        assert len(world.reads) == 2


async def test_an_event_that_comes_twice_causes_one_read() -> None:
    """A delivery that is repeated before the read was made is one more reason for the same."""
    radio = Radio()
    async with a_world(radio) as world:
        wait = world.wait()
        await world.clock.sleep(3.0)
        before = len(world.reads)
        for _ in range(2):
            radio.tell("question.audio_generated", world.ids[0])
        await world.clock.sleep(0.5)
        assert len(world.reads) == before + 1
        wait.cancel()
        await asyncio.wait([wait])


async def test_an_event_of_an_unknown_id_causes_no_read() -> None:
    """What no one waits for isn't read."""
    radio = Radio()
    async with a_world(radio) as world:
        wait = world.wait()
        await world.clock.sleep(3.0)
        before = len(world.reads)
        radio.tell("question.audio_generated", "unknown")
        await world.clock.sleep(0.5)
        assert len(world.reads) == before
        wait.cancel()
        await asyncio.wait([wait])


async def test_an_event_that_names_nothing_makes_everybody_look() -> None:
    """Its data is undocumented: without an id in it, it may be about any question."""
    radio = Radio()
    async with a_world(radio, 3) as world:
        waits = [world.wait(n) for n in range(3)]
        await world.clock.sleep(3.0)
        for each in world.ids:
            world.fake.finish_audio(each)
        radio.tell("question.audio_generated")
        began = world.clock.monotonic()
        await asyncio.gather(*waits)
        assert world.clock.monotonic() == began


async def test_events_of_another_kind_cause_no_read() -> None:
    """An interview's event may name questions; they aren't read for it."""
    radio = Radio()
    async with a_world(radio) as world:
        wait = world.wait()
        await world.clock.sleep(1.0)
        before = len(world.reads)
        radio.tell("interview.updated", world.ids[0])
        await world.clock.sleep(1.0)
        assert len(world.reads) == before
        wait.cancel()
        await asyncio.wait([wait])


async def test_signals_may_come_from_another_thread() -> None:
    """A listener called in another thread hands the news to the loop that waits."""
    radio = Radio()
    clock = VirtualClock()
    async with a_world(radio, clock=clock) as world:
        wait = world.wait()
        await world.clock.sleep(1.0)
        world.fake.finish_audio(world.ids[0])
        began = clock.monotonic()
        asyncio.get_running_loop().set_debug(True)  # asyncio then checks the thread itself
        with clock.busy():
            thread = threading.Thread(
                target=radio.tell, args=("question.audio_generated", world.ids[0])
            )
            thread.start()
            thread.join()
        await wait
        assert clock.monotonic() == began


async def test_a_closed_client_no_longer_listens() -> None:
    """One receiver may serve many clients, and outlive them."""
    radio = Radio()
    async with a_world(radio) as world:
        assert len(radio.listeners) == 1
    assert not radio.listeners
    del world  # it kept the client alive


async def test_signals_keep_no_client_alive() -> None:
    """A client that was dropped without being closed stops listening when it is collected."""
    radio = Radio()
    gather = GatherClient("qapi_x", signals=radio)
    gone = weakref.ref(gather)
    assert len(radio.listeners) == 1
    del gather
    gc.collect()
    assert gone() is None
    assert not radio.listeners


async def test_an_event_for_a_client_that_is_gone_does_no_harm() -> None:
    """Signals that call a listener once more, though it was taken back, get no error."""
    radio = Radio()
    gather = GatherClient("qapi_x", signals=radio)
    [listener] = radio.listeners
    del gather
    gc.collect()
    listener("question.audio_generated", frozenset({"q"}))


async def test_a_candidate_who_finishes_is_known_by_the_event() -> None:
    """``candidate_interview.completed`` wakes the wait for completion."""
    radio = Radio()
    async with a_world(radio) as world:
        gather = world.gather
        interview = await gather.interviews.create(
            title="Engineer", display_name="Engineer", question_ids=list(world.ids)
        )
        [candidate] = world.fake.add_candidates(1)
        link = await gather.candidate_interviews.create(
            candidate_id=candidate, interview_id=interview.id
        )
        wait = asyncio.ensure_future(gather.candidate_interviews.wait_until_completed(link.id))
        await world.clock.sleep(5.0)
        world.fake.complete_interview(link.id)
        began = world.clock.monotonic()
        radio.tell("candidate_interview.completed", link.id, candidate, interview.id)
        assert (await wait).status == "new_response"
        assert world.clock.monotonic() == began


async def test_a_summary_is_polled_for_as_without_signals() -> None:
    """No event announces a summary, so signals make no poll for it slow."""
    async with a_world(Radio()) as world:
        gather = world.gather
        interview = await gather.interviews.create(
            title="Engineer", display_name="Engineer", question_ids=list(world.ids)
        )
        [candidate] = world.fake.add_candidates(1)
        link = await gather.candidate_interviews.create(
            candidate_id=candidate, interview_id=interview.id
        )
        before = len(world.reads)
        with pytest.raises(WaitTimeoutError):
            await gather.candidate_interviews.wait_until_summarized(link.id, timeout=20.0)
        assert len(world.reads) - before >= 7


async def test_a_policy_of_ones_own_sets_the_slow_interval() -> None:
    """`PollPolicy.cap` is the interval while signals are alive."""
    async with a_world(Radio()) as world:
        with pytest.raises(AudioTimeoutError):
            await world.wait(timeout=100.0, poll=PollPolicy(cap=40.0))
        gaps = [b.at - a.at for a, b in zip(world.reads, world.reads[1:], strict=False)]
        assert 32.0 <= gaps[0] <= 40.0


async def test_deliveries_of_a_real_receiver_wake_the_waits() -> None:
    """FakeGather delivers a signed event to a WebhookReceiver, and the wait ends at once."""
    clock = VirtualClock()
    hooks = WebhookReceiver(SECRET, clock=clock)
    app = web.Application()
    app.router.add_post("/webhooks/gather", hooks.aiohttp_handler())
    async with (
        hooks,
        TestServer(app) as server,
        a_world(hooks, 20, audio_seconds=33.3, clock=clock) as world,
    ):
        world.fake.send_webhook_to(str(server.make_url("/webhooks/gather")), SECRET)
        began = clock.monotonic()
        await asyncio.gather(*(world.wait(n) for n in range(20)))
        assert clock.monotonic() - began <= 33.6


class Watched(InProcessLimiter):
    """Notes the priorities of those who ask."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(PLENTY, clock=clock)
        self.asked: list[str] = []

    async def acquire(self, *, priority: Priority, max_wait: float | None) -> Slot:
        """Note the priority, then give leave."""
        self.asked.append(priority)
        return await super().acquire(priority=priority, max_wait=max_wait)


async def test_polls_have_bulk_priority_unless_said_otherwise() -> None:
    """Looks queue as bulk work, or as interactive calls if a waiter's policy says so."""
    clock = VirtualClock()
    limiter = Watched(clock)
    async with (
        FakeGather(clock=clock, audio_seconds=2.0) as fake,
        fake.client(limiter=limiter) as gather,
    ):
        question = await gather.questions.create(
            title="q", question_script="Why?", user_id=fake.user_id
        )
        await gather.questions.wait_until_audio_ready(question)
        assert set(limiter.asked[1:]) == {"bulk"}
        limiter.asked.clear()
        urgent = PollPolicy(priority="interactive")
        await gather.questions.wait_until_audio_ready(question, poll=urgent)
        assert limiter.asked == ["interactive"]
        limiter.asked.clear()
        both = (
            gather.questions.wait_until_audio_ready(question, poll=poll) for poll in (None, urgent)
        )
        await asyncio.gather(*both)
        assert limiter.asked == ["interactive"]


async def test_polls_wait_for_the_quota_as_long_as_it_takes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """None fails after the client's ``max_wait``, as calls of the user's own do."""
    caplog.set_level("INFO", "gather_async.waiting")
    clock = VirtualClock()
    async with (
        FakeGather(clock=clock, audio_seconds=2.0) as fake,
        fake.client(rate_limits=[RateLimit(10, per=60)], max_wait=1.0) as gather,
    ):
        question = await gather.questions.create(
            title="q", question_script="Why?", user_id=fake.user_id
        )
        with pytest.raises(QuotaWaitError):
            await asyncio.gather(*(gather.teams.list() for _ in range(10)))
        assert (await gather.questions.wait_until_audio_ready(question)).audio_url is not None
    assert caplog.messages == []


class Silent(InProcessLimiter):
    """Names no windows."""

    def status(self) -> RateLimitStatus:
        """Return a status without any."""
        return evolve(super().status(), windows=())


async def test_polls_keep_to_the_clients_limits_where_its_limiter_names_none() -> None:
    """They get half of what it says, as with a limiter that names its windows."""
    clock = VirtualClock()
    limits, often = [RateLimit(10, per=60)], PollPolicy(first=0.1, cap=0.1)
    async with (
        FakeGather(clock=clock, audio_seconds=math.inf) as fake,
        fake.client(limiter=Silent(PLENTY, clock=clock), rate_limits=limits) as gather,
    ):
        question = await gather.questions.create(
            title="q", question_script="Why?", user_id=fake.user_id
        )
        fake.clear_requests()
        with pytest.raises(AudioTimeoutError):
            await gather.questions.wait_until_audio_ready(question, timeout=60.0, poll=often)
        assert 3 <= len(fake.requests) <= 6
