"""Waiting, with the client against FakeGather on one virtual clock."""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve

from gather_async import (
    AudioGenerationError,
    AudioTimeoutError,
    AuthenticationError,
    ClientClosedError,
    GatherClient,
    GatherConnectionError,
    GatherError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    PollPolicy,
    Question,
    RateLimit,
    ServerError,
    SummaryStatus,
    WaitTimeoutError,
)
from gather_async.protocol.polling import PollBudget
from gather_async.testing import FakeGather, VirtualClock
from gather_async.testing.fake import server
from gather_async.testing.fake.questions import get_question, list_questions
from gather_async.testing.fake.state import AudioWords
from gather_async.waiting.conditions import audio_ready
from gather_async.waiting.coordinator import Coordinator
from gather_async.waiting.scheduler import Scheduler
from tests.waiting_world import PLENTY, World, a_world, an_invite, coordinators, uniform

LIST = "/qsi/gather/questions"
ONE = "/qsi/gather/questions/*"


# How much it costs


async def test_a_ready_question_costs_one_request_and_no_time() -> None:
    """The first look is made at once, and ends the wait if the audio is ready."""
    async with a_world(audio_seconds=0.0) as world:
        question = await world.wait()
        assert question.id == world.ids[0]
        assert question.audio_state == "ready"
        assert (len(world.polls), world.waited) == (1, 0.0)


async def test_one_question_costs_at_most_six_requests() -> None:
    """A question whose audio takes 3 s is returned soon after, with few requests."""
    async with a_world(audio_seconds=3.0) as world:
        await world.wait()
        assert len(world.polls) <= 6
        assert 3.0 <= world.waited <= 5.0


@pytest.mark.parametrize("limits", [None, PLENTY], ids=["documented limits", "no limits"])
async def test_four_hundred_questions_cost_at_most_sixty_requests(
    limits: Sequence[RateLimit] | None,
) -> None:
    """400 separate waits for audio of up to 3 s are all answered by a few pages."""
    async with a_world(400, audio_seconds=uniform(0.1, 3.0), rate_limits=limits) as world:
        ready = await asyncio.gather(*(world.wait(n) for n in range(400)))
        assert [question.id for question in ready] == world.ids
        assert len(world.polls) <= 60
        assert world.waited <= 20.0


async def test_waits_that_begin_one_after_the_other_share_their_looks_too() -> None:
    """400 tasks that each create a question and wait for it poll with at most 60 requests."""
    async with a_world(0, audio_seconds=uniform(0.1, 3.0), rate_limits=PLENTY) as world:
        busy = asyncio.Semaphore(8)

        async def create_and_wait(number: int) -> None:
            async with busy:
                await world.clock.sleep(0.01)
                question = await world.gather.questions.create(
                    title=f"q{number}", question_script="Why?", user_id=world.fake.user_id
                )
            await world.gather.questions.wait_until_audio_ready(question)

        async with asyncio.TaskGroup() as tasks:
            for number in range(400):
                tasks.create_task(create_and_wait(number))
        assert sum(1 for each in world.polls if each.method == "GET") <= 60


async def test_many_waiters_on_one_question_share_each_read() -> None:
    """Fifty waits for one question cost what one costs."""
    async with a_world(audio_seconds=3.0) as world:
        await asyncio.gather(*(world.wait() for _ in range(50)))
        assert len(world.polls) <= 6


async def test_a_thousand_questions_cost_a_fifth_of_a_request_each() -> None:
    """1000 questions of 5 to 90 s: at most 200 requests, and 15 s of delay on average."""
    async with a_world(1000, audio_seconds=uniform(5, 90), questions_page_size=100) as world:
        delays: list[float] = []
        generations = world.fake._world.questions.rows
        async for question in world.gather.questions.wait_until_all_audio_ready(world.ids):
            assert isinstance(question, Question)
            delays.append(world.clock.monotonic() - generations[question.id]["_audio"].ends_at)
        assert len(delays) == 1000
        assert len(world.polls) <= 200
        assert sum(delays) / 1000 <= 15.0


# When the list is of no use


@pytest.mark.parametrize("style", ["missing", "empty"])
async def test_without_a_list_single_reads_keep_to_their_share(style: str) -> None:
    """Where the list is missing or empty, at most a fifth of the minute goes into polling."""
    async with a_world(60, audio_seconds=20.0, questions_list=style) as world:
        await asyncio.gather(*(world.wait(n, timeout=600) for n in range(60)))
        times = [each.at for each in world.polls if each.path != LIST]
        for start in times:
            assert sum(1 for at in times if start <= at < start + 60.0) <= 20
        assert sum(1 for each in world.polls if each.path == LIST) <= 2


async def test_single_reads_go_to_the_oldest_first() -> None:
    """Where everything is read alone, no one is looked at twice before all were once."""
    async with a_world(30, questions_list="missing") as world:
        waits = [asyncio.ensure_future(world.wait(n, timeout=100)) for n in range(30)]
        await asyncio.wait(waits)
        looked = [each.path.rsplit("/", 1)[1] for each in world.polls if each.path != LIST]
        assert looked[:30] == world.ids
        assert all(isinstance(wait.exception(), AudioTimeoutError) for wait in waits)


async def test_an_unpaged_list_is_one_request_a_look() -> None:
    """A list that comes whole is read as one page, whatever its length."""
    async with a_world(120, audio_seconds=3.0, questions_list="unpaged") as world:
        await asyncio.gather(*(world.wait(n) for n in range(120)))
        assert len(world.polls) <= 6


async def test_a_list_that_fails_gives_way_to_single_reads() -> None:
    """Where the list answers 500 again and again, single reads go on without it."""
    async with a_world(3, audio_seconds=30.0) as world:
        world.fake.fail_next(500, times=math.inf, path=LIST)
        await asyncio.gather(*(world.wait(n) for n in range(3)))
        assert sum(1 for each in world.polls if each.path == LIST) == 3
        assert world.waited <= 60.0


async def test_a_list_that_grows_meanwhile_still_costs_its_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Items that move to the next page, as others are created, don't hold up the rest."""

    def growing(call: Any) -> Any:
        rows = call.world.questions.order
        rows.insert(0, {**rows[-1], "id": f"new-{len(rows)}"})
        return list_questions(call)

    monkeypatch.setitem(server._OPERATIONS, ("GET", "questions"), growing)
    async with a_world(400, audio_seconds=uniform(0.1, 3.0)) as world:
        await asyncio.gather(*(world.wait(n) for n in range(400)))
        assert len(world.polls) <= 60
        assert world.waited <= 15.0


@pytest.mark.parametrize(("size", "seconds"), [(10, 65.0), (20, 31.0), (30, 25.0)])
async def test_small_pages_are_not_all_read_before_audio_can_be_ready(
    size: int, seconds: float
) -> None:
    """Where a look at all takes most of the share, it is spread, and so seldom in vain."""
    async with a_world(400, audio_seconds=uniform(0.1, 3.0), questions_page_size=size) as world:
        await asyncio.gather(*(world.wait(n) for n in range(400)))
        assert len(world.polls) <= 60
        assert world.waited <= seconds


async def test_a_list_that_hangs_gives_way_to_single_reads() -> None:
    """While a page of the list doesn't come, questions are read singly."""
    async with a_world(8, audio_seconds=2.0) as world:
        world.fake.slow_next(math.inf, times=math.inf, path=LIST)
        await asyncio.gather(*(world.wait(n) for n in range(8)))
        assert world.waited <= 15.0


async def test_a_page_that_hangs_later_gives_way_to_single_reads() -> None:
    """The same goes for a list that has answered before."""
    async with a_world(4, audio_seconds=20.0) as world:
        waits = [asyncio.ensure_future(world.wait(n)) for n in range(4)]
        await world.clock.sleep(5.0)
        world.fake.slow_next(math.inf, times=math.inf, path=LIST)
        await asyncio.gather(*waits)
        assert world.waited <= 40.0


async def test_a_list_without_the_state_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """List items that name no state are checked with one read, then the list is left alone."""

    def stateless(call: Any) -> Any:
        reply = list_questions(call)
        for row in reply.data["questions"]:
            row["transcriptionStatus"] = None
            row["audioURL"] = "https://audio.invalid/given.mp3"
        return reply

    monkeypatch.setitem(server._OPERATIONS, ("GET", "questions"), stateless)
    async with a_world(5, audio_seconds=4.0) as world:
        ready = await asyncio.gather(*(world.wait(n) for n in range(5)))
        assert all(question.transcription_status == "complete" for question in ready)
        assert sum(1 for each in world.polls if each.path == LIST) == 1
        assert world.waited >= 4.0


async def test_a_list_that_never_names_a_state_is_believed_once_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where single reads name no state either, one of them is enough to believe the list."""

    def silent(operation: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(request: Any) -> Any:
            reply = operation(request)
            data = reply.data
            for row in data["questions"] if "questions" in data else [data["question"]]:
                row.pop("transcriptionStatus")
            return reply

        return call

    for key, operation in (("questions", list_questions), ("questions/*", get_question)):
        monkeypatch.setitem(server._OPERATIONS, ("GET", key), silent(operation))
    async with a_world(20, audio_seconds=4.0) as world:
        ready = await asyncio.gather(*(world.wait(n) for n in range(20)))
        assert all(question.audio_url for question in ready)
        assert sum(1 for each in world.polls if each.path != LIST) == 1
        assert len(world.polls) <= 9


async def test_a_doubtful_list_is_settled_although_reads_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The read that should settle a doubt may fail or find nothing; another one does it."""

    def stateless(call: Any) -> Any:
        reply = list_questions(call)
        for row in reply.data["questions"]:
            row["transcriptionStatus"] = None
        return reply

    monkeypatch.setitem(server._OPERATIONS, ("GET", "questions"), stateless)
    async with a_world(6, audio_seconds=4.0) as world:
        prefix = "/qsi/gather/questions/"
        world.fake.fail_next(500, times=math.inf, path=prefix + world.ids[0])
        world.fake.fail_next(404, path=prefix + world.ids[1])
        waits = [asyncio.ensure_future(world.wait(n, timeout=60.0)) for n in range(6)]
        await asyncio.wait(waits)
        ends = [type(wait.exception()) for wait in waits]
        assert ends == [AudioTimeoutError, NotFoundError] + [type(None)] * 4
        assert sum(1 for each in world.polls if each.path == LIST) <= 3


async def test_one_read_that_always_fails_holds_up_no_one_else() -> None:
    """A question whose read answers 500 for ever costs the others a short pause at most."""
    async with a_world(5, audio_seconds=4.0, questions_list="missing") as world:
        world.fake.fail_next(500, times=math.inf, path=f"/qsi/gather/questions/{world.ids[0]}")
        poisoned = asyncio.ensure_future(world.wait(0, timeout=60.0))
        await asyncio.gather(*(world.wait(n) for n in range(1, 5)))
        assert world.waited <= 15.0
        with pytest.raises(AudioTimeoutError):
            await poisoned


# Trouble


@pytest.mark.parametrize("status", [500, 503, 429, 408, 425])
async def test_passing_trouble_is_endured(status: int) -> None:
    """5xx, 408 and 429 during polling don't end a wait."""
    async with a_world(audio_seconds=3.0) as world:
        world.fake.fail_next(status, times=3)
        assert (await world.wait()).id == world.ids[0]
        assert len(world.polls) <= 9


async def test_a_lost_connection_is_endured() -> None:
    """Polls whose connection is cut don't end a wait."""
    async with a_world(audio_seconds=3.0) as world:
        world.fake.drop_next(times=4)
        assert (await world.wait()).id == world.ids[0]


async def test_trouble_until_the_deadline_is_the_cause_of_the_timeout() -> None:
    """A server that fails to the end makes a timeout that says why nothing was seen."""
    async with a_world() as world:
        world.fake.fail_next(503, times=math.inf)
        with pytest.raises(AudioTimeoutError) as caught:
            await world.wait(timeout=60.0)
        assert isinstance(caught.value.__cause__, ServerError)
        assert caught.value.question is None
        assert len(world.polls) <= 15


async def test_an_unreachable_server_is_endured_without_haste() -> None:
    """While no one listens, polls pause longer and longer."""
    async with a_world() as world:
        await world.fake.aclose()
        with pytest.raises(AudioTimeoutError) as caught:
            await world.wait(timeout=120.0)
        assert isinstance(caught.value.__cause__, GatherConnectionError)


async def test_an_unknown_question_ends_its_wait_at_once() -> None:
    """404 ends the wait for that question, and no other."""
    async with a_world(2, audio_seconds=3.0) as world:
        waits = await asyncio.gather(
            world.wait(0),
            world.gather.questions.wait_until_audio_ready("no-such-question"),
            world.wait(1),
            return_exceptions=True,
        )
        assert [type(each) for each in waits] == [Question, NotFoundError, Question]


async def test_a_refused_read_ends_its_wait_at_once() -> None:
    """403 for one question ends its wait."""
    async with a_world(1) as world:
        world.fake.fail_next(403, path=ONE)
        with pytest.raises(PermissionDeniedError):
            await world.wait()
        assert world.waited == 0.0


async def test_one_401_is_enough_for_all_waits() -> None:
    """After the first 401 nothing more is sent."""
    async with a_world(5, questions_list="missing") as world:
        waits = [asyncio.ensure_future(world.wait(n)) for n in range(5)]
        await world.clock.sleep(3.0)
        world.fake.revoke_key()
        await asyncio.wait(waits)
        assert all(isinstance(wait.exception(), AuthenticationError) for wait in waits)
        assert sum(1 for each in world.polls if each.status == 401) == 1


async def test_a_refused_read_ends_the_wait_of_one_who_has_the_question_too() -> None:
    """Only a 404 may mean that a question was just created; a 403 is the last word."""
    async with a_world(1) as world:
        world.fake.fail_next(403, path=ONE)
        with pytest.raises(PermissionDeniedError):
            await world.gather.questions.wait_until_audio_ready(Question(id=world.ids[0]))
        assert world.waited == 0.0


async def test_a_revoked_key_ends_all_waits_at_once() -> None:
    """401 ends every wait, each with an error of its own."""
    async with a_world(5) as world:
        waits = [asyncio.ensure_future(world.wait(n)) for n in range(5)]
        await world.clock.sleep(3.0)
        world.fake.revoke_key()
        await asyncio.wait(waits)
        errors = [wait.exception() for wait in waits]
        assert all(isinstance(error, AuthenticationError) for error in errors)
        assert len({id(error) for error in errors}) == 5
        assert world.waited < 10.0


async def test_an_id_that_cannot_be_one_is_refused() -> None:
    """An id that could change the path ends the wait without a request."""
    async with a_world(0) as world:
        for wrong in ("", "..", "a/b"):
            with pytest.raises(InvalidRequestError):
                await world.gather.questions.wait_until_audio_ready(wrong)
        assert not world.polls


# Outcomes


async def test_failed_generation_raises_with_the_question() -> None:
    """A failed generation is an error that has the question as read."""
    async with a_world(audio_seconds=2.0, fail_audio_for=["q0"]) as world:
        with pytest.raises(AudioGenerationError) as caught:
            await world.wait()
        assert caught.value.question.id == world.ids[0]
        assert caught.value.question.transcription_status == "error"


@pytest.mark.parametrize("timeout", [0.0, 0.3, 5.0, 60.0, 3600.0])
async def test_the_deadline_is_kept_within_50_ms(timeout: float) -> None:
    """A wait ends at its deadline, with the last question seen and the time waited."""
    async with a_world() as world:
        with pytest.raises(AudioTimeoutError) as caught:
            await world.wait(timeout=timeout)
        assert world.waited == pytest.approx(timeout, abs=0.05)
        assert caught.value.waited == pytest.approx(timeout, abs=0.05)
        if timeout:
            assert caught.value.question.id == world.ids[0]
        assert isinstance(caught.value, TimeoutError)


async def test_a_hanging_poll_delays_no_deadline() -> None:
    """A server that doesn't answer moves no deadline."""
    async with a_world() as world:
        world.fake.slow_next(math.inf, times=math.inf)
        with pytest.raises(AudioTimeoutError):
            await world.wait(timeout=10.0)
        assert world.waited == pytest.approx(10.0, abs=0.05)


async def test_one_hanging_poll_holds_up_no_one_else() -> None:
    """While one read hangs, the others go on."""
    async with a_world(3, audio_seconds=5.0, questions_list="missing") as world:
        world.fake.slow_next(math.inf, path=f"/qsi/gather/questions/{world.ids[0]}")
        hanging = asyncio.ensure_future(world.wait(0, timeout=100.0))
        await asyncio.gather(world.wait(1), world.wait(2))
        assert world.waited <= 15.0
        hanging.cancel()
        await asyncio.wait([hanging])


async def test_a_held_quota_delays_no_deadline() -> None:
    """A wait for the quota moves no deadline, and the question given is the last one seen."""
    async with a_world() as world:
        world.gather.limiter.hold(world.clock.wall() + 3600.0)
        given = Question(id=world.ids[0], title="mine")
        with pytest.raises(AudioTimeoutError) as caught:
            await world.gather.questions.wait_until_audio_ready(given, timeout=10.0)
        assert world.waited == pytest.approx(10.0, abs=0.05)
        assert caught.value.question is given
        assert not world.polls


async def test_the_last_look_is_made_just_before_the_deadline() -> None:
    """Audio that is ready shortly before the deadline is returned, not missed."""
    async with a_world(audio_seconds=59.0) as world:
        question = await world.wait(timeout=60.0)
        assert question.audio_state == "ready"
        assert 59.0 <= world.waited <= 60.0


async def test_the_last_look_is_made_although_the_share_is_used_up() -> None:
    """Where a sweep takes ten pages each quarter of a minute, the last look comes in time."""
    async with a_world(100, audio_seconds=50.0, questions_page_size=10) as world:
        waits = (world.wait(n, timeout=55.0) for n in range(100))
        ready = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(each, Question) for each in ready)
        assert world.waited <= 55.05


async def test_looks_grow_apart_to_the_cap() -> None:
    """Looks at one question come at growing intervals with jitter, none longer than the cap."""
    async with a_world() as world:
        with pytest.raises(AudioTimeoutError):
            await world.wait(timeout=200.0, poll=PollPolicy(first=2.0, factor=2.0, cap=10.0))
        gaps = [late.at - early.at for early, late in pairwise(world.polls)]
        assert 1.6 <= gaps[0] <= 2.0
        assert 3.0 <= gaps[1] <= 4.0
        assert all(8.0 <= gap <= 10.01 for gap in gaps[3:-2])


async def test_other_words_are_the_callers_choice() -> None:
    """Waits for one question with other words share reads and judge them each its own way."""
    words = AudioWords(complete="baked")
    async with a_world(audio_seconds=2.0, audio_words=words) as world:
        own = asyncio.ensure_future(world.wait(poll=PollPolicy(ready_words={"Baked"})))
        usual = asyncio.ensure_future(world.wait(timeout=30.0))
        await asyncio.wait([own, usual])
        assert own.result().transcription_status == "baked"
        assert isinstance(usual.exception(), AudioTimeoutError)


@pytest.mark.parametrize("wrong", [-1.0, math.nan, True, "60"])
async def test_a_timeout_that_cannot_be_one_is_refused(wrong: Any) -> None:
    """A negative timeout, or one that is no number, is refused before anything is sent."""
    async with a_world() as world:
        with pytest.raises(InvalidRequestError):
            await world.wait(timeout=wrong)
        assert not world.polls


# All of them


async def every(
    world: World, ids: Sequence[str], **options: Any
) -> tuple[list[Question | AudioGenerationError], Exception | None]:
    """Return what was given, and what was raised in the end."""
    seen = []
    try:
        async for each in world.gather.questions.wait_until_all_audio_ready(ids, **options):
            seen.append(each)  # noqa: PERF401 - what came before an error is wanted, too
    except GatherError as error:
        return seen, error
    return seen, None


async def test_each_is_given_as_it_ends() -> None:
    """Questions come in the order in which their audio is ready, a failure among them."""
    async with a_world(4) as world:
        world.fake.finish_audio(world.ids[2], after=3.0)
        world.fake.fail_audio(world.ids[0], after=20.0)
        world.fake.finish_audio(world.ids[3], after=60.0)
        world.fake.finish_audio(world.ids[1], after=120.0)
        ended = [
            each async for each in world.gather.questions.wait_until_all_audio_ready(world.ids)
        ]
        assert [type(each) for each in ended] == [
            Question,
            AudioGenerationError,
            Question,
            Question,
        ]
        ids = [
            each.question.id if isinstance(each, AudioGenerationError) else each.id
            for each in ended
        ]
        assert ids == [world.ids[number] for number in (2, 0, 3, 1)]


async def test_an_unknown_id_is_raised_after_the_rest() -> None:
    """404 of one question ends none of the others; it is raised when they are through."""
    async with a_world(3, audio_seconds=5.0) as world:
        seen, error = await every(world, ["nowhere", *world.ids])
        assert isinstance(error, NotFoundError)
        assert len(seen) == 3


async def test_all_time_out_together() -> None:
    """What is ready is given; at the deadline the rest is a timeout."""
    async with a_world(3) as world:
        world.fake.finish_audio(world.ids[1], after=2.0)
        seen, error = await every(world, world.ids, timeout=30.0)
        assert isinstance(error, AudioTimeoutError)
        assert [each.id for each in seen if isinstance(each, Question)] == [world.ids[1]]
        assert world.waited == pytest.approx(30.0, abs=0.05)


async def test_nothing_awaited_ends_at_once() -> None:
    """No ids: nothing is given, and nothing is sent."""
    async with a_world(0) as world:
        assert [e async for e in world.gather.questions.wait_until_all_audio_ready([])] == []
        assert not world.polls


async def test_one_id_twice_is_given_once() -> None:
    """An id that is named twice is given once."""
    async with a_world(audio_seconds=0.0) as world:
        ids = [world.ids[0], world.ids[0]]
        ended = [e async for e in world.gather.questions.wait_until_all_audio_ready(ids)]
        assert len(ended) == 1


async def test_breaking_off_leaves_nothing_behind() -> None:
    """Leaving the loop and closing the generator ends its waits and its task."""
    async with a_world(3) as world:
        world.fake.finish_audio(world.ids[0])
        iterator = world.gather.questions.wait_until_all_audio_ready(world.ids)
        async for _ in iterator:
            break
        assert coordinators() == 1
        await iterator.aclose()  # type: ignore[attr-defined]  # it is a generator
        assert coordinators() == 0


async def test_one_id_alone_is_refused_where_several_belong() -> None:
    """A single id isn't taken for a sequence of characters."""
    async with a_world() as world:
        with pytest.raises(InvalidRequestError):
            async for _ in world.gather.questions.wait_until_all_audio_ready(world.ids[0]):
                pass


# Cancellation and closing


async def test_cancelling_one_wait_disturbs_no_other() -> None:
    """Of three waits for two questions, one is cancelled; the others get their question."""
    async with a_world(2, audio_seconds=10.0) as world:
        tasks = [asyncio.ensure_future(world.wait(n)) for n in (0, 0, 1)]
        await world.clock.sleep(1.0)
        tasks[0].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert [getattr(each, "id", None) for each in done[1:]] == world.ids


async def test_the_last_wait_takes_the_task_with_it() -> None:
    """When the only wait is cancelled, polling has ended by the time the caller knows."""
    async with a_world() as world:
        task = asyncio.ensure_future(world.wait())
        await world.clock.sleep(1.0)
        assert coordinators() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert coordinators() == 0
        before = len(world.polls)
        await world.clock.sleep(100.0)
        assert len(world.polls) == before


async def test_a_read_whose_cancellation_takes_a_while_is_not_taken_for_the_next() -> None:
    """A wait that begins while the last one's read is being cancelled reads once, not twice."""
    reads: list[str] = []

    async def read(name: str, *rest: object) -> Question:
        reads.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
        raise AssertionError

    coordinator = Coordinator(
        evolve(audio_ready({}), read=read, page=None),
        budget=PollBudget(lambda: PLENTY),
        clock=VirtualClock(),
        rng=random.Random(1),
        is_alive=lambda: False,
    )
    first = asyncio.ensure_future(coordinator.wait("q", timeout=None))
    await settle()
    first.cancel()
    await asyncio.sleep(0)
    second = asyncio.ensure_future(coordinator.wait("q", timeout=None))
    await settle()
    assert reads == ["q", "q"]
    second.cancel()
    await asyncio.wait([first, second])


async def settle() -> None:
    """Let what can run without time passing do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_asyncio_timeout_and_a_task_group_work_around_it() -> None:
    """`asyncio.timeout` ends a wait; a failing sibling in a TaskGroup ends it, too."""
    async with a_world(audio_seconds=math.inf) as world:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await world.wait()

        async def together() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(world.wait())
                tasks.create_task(world.gather.questions.get("nowhere"))

        with pytest.raises(ExceptionGroup) as caught:
            await together()
        assert [type(each) for each in caught.value.exceptions] == [NotFoundError]
        assert coordinators() == 0


async def test_closing_the_client_ends_all_waits() -> None:
    """`aclose` ends waiting calls with ClientClosedError and leaves no task."""
    async with a_world(3) as world:
        waits = [asyncio.ensure_future(world.wait(n)) for n in range(3)]
        await world.clock.sleep(2.0)
        await world.gather.aclose()
        done = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(each, ClientClosedError) for each in done)
        assert coordinators() == 0
        with pytest.raises(ClientClosedError, match="make a new GatherClient"):
            await world.wait()


def test_one_client_waits_in_loops_one_after_the_other() -> None:
    """A client of a module waits under three `asyncio.run` in a row; one was cut short."""
    clock = VirtualClock()
    fake = FakeGather(clock=clock, audio_seconds=3.0)
    client: list[GatherClient] = []

    async def job(*, cut: bool) -> str:
        async with fake:
            if not client:
                client.append(fake.client())
            gather = client[0]
            question = await gather.questions.create(
                title="q", question_script="Why?", user_id=fake.user_id
            )
            wait = asyncio.ensure_future(gather.questions.wait_until_audio_ready(question))
            if cut:
                await clock.sleep(1.0)
                return "left waiting"
            return (await wait).audio_state

    assert [asyncio.run(job(cut=cut)) for cut in (False, True, False)] == [
        "ready",
        "left waiting",
        "ready",
    ]
    asyncio.run(client[0].aclose())


async def test_a_crash_of_the_coordinator_reaches_every_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug in polling ends all waits with its error; the next wait starts afresh."""
    async with a_world(3, audio_seconds=5.0) as world:
        waits = [asyncio.ensure_future(world.wait(n)) for n in range(3)]
        await world.clock.sleep(1.5)
        with monkeypatch.context() as broken:
            broken.setattr(Scheduler, "plan", lambda *_: 1 / 0)
            done = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(each, ZeroDivisionError) for each in done)
        assert (await world.wait()).id == world.ids[0]


# Candidate interviews


async def test_completion_returns_the_whole_candidate_interview() -> None:
    """Finished candidates are found in the list and then read alone, which shows all fields."""
    async with an_invite(6) as world:
        wait = world.gather.candidate_interviews.wait_until_completed
        waits = [asyncio.ensure_future(wait(each)) for each in world.ids]
        await world.clock.sleep(40.0)
        for each in world.ids:
            world.fake.complete_interview(each)
        done = await asyncio.gather(*waits)
        assert [link.id for link in done] == world.ids
        assert all(link.status == "new_response" and link.invite_token for link in done)
        singles = [each for each in world.polls if each.path.count("/") == 4]
        assert len(singles) == 6


async def test_a_finished_one_whose_read_fails_holds_up_no_one_else() -> None:
    """The list shows who has finished; where the read of one fails for ever, others return."""
    async with an_invite(4) as world:
        world.fake.complete_interview(world.ids[0])
        path = f"/qsi/gather/candidate-interviews/{world.ids[0]}"
        world.fake.fail_next(500, times=math.inf, path=path)
        wait = world.gather.candidate_interviews.wait_until_completed
        waits = [asyncio.ensure_future(wait(each, timeout=60.0)) for each in world.ids]
        await world.clock.sleep(20.0)
        for each in world.ids[1:]:
            world.fake.complete_interview(each)
        done = await asyncio.gather(*waits[1:])
        assert [link.id for link in done] == world.ids[1:]
        assert world.waited <= 40.0
        with pytest.raises(WaitTimeoutError):
            await waits[0]


@pytest.mark.parametrize(
    ("status", "ends"),
    [
        ("new_response", True),
        ("has_reviewed", True),
        ("hired", True),
        ("archived", True),
        ("partially_completed", False),
        ("invite_sent", False),
    ],
)
async def test_which_statuses_end_the_wait_for_completion(status: str, ends: bool) -> None:
    """A finished, reviewed, hired or archived one ends the wait; a started one doesn't."""
    async with an_invite() as world:
        await world.gather.candidate_interviews.update_status(world.ids[0], status)
        wait = world.gather.candidate_interviews.wait_until_completed(world.ids[0], timeout=5.0)
        if ends:
            assert (await wait).status == status
        else:
            with pytest.raises(WaitTimeoutError) as caught:
                await wait
            assert caught.value.last.status == status
            assert caught.value.waited == pytest.approx(5.0, abs=0.05)
            assert caught.value.maybe_processed is False


@pytest.mark.parametrize("early", ["processing", "missing"])
async def test_a_summary_is_returned_when_it_is_made(early: str) -> None:
    """Results that are processing, or not there yet, are waited for."""
    async with an_invite(early_results=early, summary_seconds=5.0) as world:
        task = asyncio.ensure_future(
            world.gather.candidate_interviews.wait_until_summarized(world.ids[0])
        )
        await world.clock.sleep(10.0)
        world.fake.complete_interview(world.ids[0])
        results = await task
        assert results.summary_status is SummaryStatus.COMPLETE
        assert results.summary
        assert world.waited >= 15.0


async def test_a_failed_summary_ends_the_wait_with_the_results() -> None:
    """``summaryStatus`` ``error`` ends the wait: the rest of the results is there."""
    async with an_invite(summary_seconds=0.0) as world:
        world.fake.complete_interview(world.ids[0], summary_fails=True)
        results = await world.gather.candidate_interviews.wait_until_summarized(world.ids[0])
        assert results.summary_status is SummaryStatus.ERROR
        assert results.summary is None


async def test_results_of_a_missing_candidate_interview_end_the_wait() -> None:
    """404 of the results ends the wait if the candidate interview doesn't exist either."""
    async with an_invite() as world:
        with pytest.raises(NotFoundError):
            await world.gather.candidate_interviews.wait_until_summarized("nowhere")
        assert len(world.polls) == 2


async def test_results_that_never_come_time_out() -> None:
    """404 of the results is endured to the deadline while the candidate interview exists."""
    async with an_invite(early_results="missing") as world:
        with pytest.raises(WaitTimeoutError) as caught:
            await world.gather.candidate_interviews.wait_until_summarized(
                world.ids[0], timeout=60.0
            )
        assert caught.value.last is None
        assert sum(1 for each in world.polls if each.path.endswith(world.ids[0])) == 1


async def test_waits_for_several_summaries_read_each_candidate_interview_once() -> None:
    """That results which are missing may still come is remembered for each."""
    async with an_invite(3, early_results="missing") as world:
        wait = world.gather.candidate_interviews.wait_until_summarized
        waits = (wait(each, timeout=60.0) for each in world.ids)
        await asyncio.gather(*waits, return_exceptions=True)
        for each in world.ids:
            assert sum(1 for poll in world.polls if poll.path.endswith(each)) == 1
