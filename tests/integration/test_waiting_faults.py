"""Waiting on servers whose list or single reads are old, incomplete or missing."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gather_async import (
    AudioGenerationError,
    AudioTimeoutError,
    GatherError,
    NotFoundError,
    Question,
)
from gather_async.testing.fake import server
from gather_async.testing.fake.messages import not_found
from gather_async.testing.fake.questions import get_question, list_questions
from tests.waiting_world import World, a_world

LIST = "/qsi/gather/questions"


def singles(world: World) -> int:
    """Return how many questions were read alone."""
    return sum(1 for each in world.polls if each.path.startswith(LIST + "/"))


def list_shows(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any, Any], None]) -> None:
    """Change each row that the list shows; the first argument is the request."""

    def listed(call: Any) -> Any:
        reply = list_questions(call)
        for row in reply.data["questions"]:
            change(call, row)
        return reply

    monkeypatch.setitem(server._OPERATIONS, ("GET", "questions"), listed)


def processing(_: Any, row: Any) -> None:
    """Show a question as it was at first."""
    row.update(transcriptionStatus="processing", audioURL=None)


async def all_of(world: World, **options: Any) -> Sequence[Question | BaseException]:
    """Wait for every question at once; return how each wait ended."""
    waits = (world.wait(number, **options) for number in range(len(world.ids)))
    return await asyncio.gather(*waits, return_exceptions=True)


# Lists that are old


@pytest.mark.parametrize(("count", "timeout"), [(1, 20.0), (5, 20.0), (5, 300.0), (40, 300.0)])
async def test_a_list_that_never_changes_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, count: int, timeout: float
) -> None:
    """Audio that only single reads show as ready is returned before the deadline."""
    list_shows(monkeypatch, processing)
    async with a_world(count, audio_seconds=2.0) as world:
        ended = await all_of(world, timeout=timeout)
        assert all(isinstance(each, Question) and each.audio_url for each in ended)
        assert world.waited <= timeout


async def test_a_list_that_never_changes_is_found_out_without_a_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Waits without a deadline read each question alone from time to time, too."""
    list_shows(monkeypatch, processing)
    async with a_world(5, audio_seconds=2.0) as world:
        ended = await all_of(world, timeout=None)
        assert all(isinstance(each, Question) for each in ended)
        assert world.waited <= 150.0


async def test_a_list_that_is_some_seconds_behind_costs_no_single_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list that shows the end eight seconds late is waited for."""

    def late(call: Any, row: Any) -> None:
        if call.world.clock.monotonic() - began < 11.0:
            processing(call, row)

    list_shows(monkeypatch, late)
    async with a_world(100, audio_seconds=3.0) as world:
        began = world.began
        ended = await all_of(world)
        assert all(isinstance(each, Question) for each in ended)
        assert world.waited <= 25.0
        assert singles(world) == 0


async def test_waiting_without_end_costs_few_single_reads() -> None:
    """What the list shows is read alone at growing intervals, while half the share is free."""
    async with a_world(30) as world:
        waits = asyncio.ensure_future(all_of(world, timeout=3600.0))
        await world.clock.sleep(3500.0)
        assert 30 <= singles(world) <= 30 * 5
        waits.cancel()
        await asyncio.wait([waits])


@pytest.mark.parametrize("lag", [2.0, 20.0])
@pytest.mark.parametrize("count", [20, 200])
async def test_a_list_that_shows_what_was_created_later_is_searched_again(
    lag: float, count: int
) -> None:
    """What a list didn't show at first is found in it half a minute later."""
    async with a_world(count, audio_seconds=30.0) as world:
        world.fake.set_list_lag(lag)
        ended = await all_of(world, timeout=600.0)
        assert all(isinstance(each, Question) for each in ended)
        assert world.waited <= 90.0
        assert len(world.polls) <= 60


# Lists that are missing


@pytest.mark.parametrize(("count", "timeout"), [(20, 40.0), (60, 60.0), (40, 30.0)])
@pytest.mark.parametrize("style", ["missing", "empty"])
async def test_without_a_list_each_gets_a_last_poll(style: str, count: int, timeout: float) -> None:
    """However short the share is, audio that is ready in time is returned."""
    async with a_world(count, audio_seconds=4.0, questions_list=style) as world:
        ended = await all_of(world, timeout=timeout)
        assert all(isinstance(each, Question) for each in ended)
        assert len(world.polls) <= 2 * count + 12


async def test_without_a_list_single_reads_are_spread() -> None:
    """Where they take most of the share, not all are made before audio can be ready."""
    async with a_world(20, audio_seconds=4.0, questions_list="missing") as world:
        await all_of(world, timeout=120.0)
        assert sum(1 for each in world.polls if each.at < world.polls[0].at + 4.0) <= 6
        assert world.waited <= 70.0


# Failures that are not the list's own


@pytest.mark.parametrize(("status", "seconds"), [(429, 20.0), (503, 75.0), (408, 75.0)])
async def test_a_list_that_failed_for_a_moment_is_used_again_soon(
    status: int, seconds: float
) -> None:
    """Where everything failed for a while, hundreds of waits don't end up with single reads."""
    async with a_world(400, audio_seconds=2.0) as world:
        world.fake.fail_next(status, times=5)
        ended = await all_of(world, timeout=600.0)
        assert all(isinstance(each, Question) for each in ended)
        assert world.waited <= seconds
        assert len(world.polls) <= 60


async def test_a_list_that_always_fails_is_tried_once_a_minute() -> None:
    """After three failures in a row one more is enough to go on with single reads."""
    async with a_world(30) as world:
        world.fake.fail_next(500, times=math.inf, path=LIST)
        await all_of(world, timeout=400.0)
        pages = sum(1 for each in world.polls if each.path == LIST)
        assert 3 <= pages <= 3 + 400 / 60


async def test_a_quota_that_was_held_delays_no_later_final_poll() -> None:
    """A poll that waited an hour for the quota doesn't make all later answers look slow."""
    async with a_world(1) as world:
        world.gather.limiter.hold(world.clock.wall() + 3600.0)
        with pytest.raises(AudioTimeoutError):
            await world.wait(timeout=3610.0)
        for timeout in (20.0, 60.0):
            world.fake.finish_audio(world.ids[0], after=timeout - 2.0)
            assert (await world.wait(timeout=timeout)).audio_url


async def test_a_clock_that_jumps_delays_no_later_final_poll() -> None:
    """A read during which the machine slept for an hour doesn't make answers look slow."""
    async with a_world(1) as world:
        world.fake.slow_next(0.5)
        waiting = asyncio.ensure_future(world.wait(timeout=7200.0))
        await world.clock.sleep(0.2)
        world.clock.jump(3600.0)
        await world.clock.sleep(30.0)
        world.fake.finish_audio(world.ids[0], after=58.0)
        assert (await world.wait(timeout=60.0)).audio_url
        assert (await waiting).audio_url


async def test_a_clock_that_jumps_past_deadlines_ends_the_waits_at_once() -> None:
    """Waits that are late by then time out; the others go on."""
    async with a_world(2, audio_seconds=5000.0) as world:
        late = asyncio.ensure_future(world.wait(0, timeout=1800.0))
        other = asyncio.ensure_future(world.wait(1, timeout=7200.0))
        await world.clock.sleep(1.0)
        world.clock.jump(3600.0)
        with pytest.raises(AudioTimeoutError):
            await late
        assert world.waited == pytest.approx(3601.0, abs=0.05)
        assert (await other).audio_url


@pytest.mark.parametrize("count", [1, 3])
async def test_a_failure_before_a_poll_that_succeeded_is_no_cause_of_a_timeout(count: int) -> None:
    """What was seen since says why the wait isn't over: the audio isn't ready."""
    async with a_world(count) as world:
        world.fake.fail_next(503)
        for each in await all_of(world, timeout=20.0):
            assert isinstance(each, AudioTimeoutError)
            assert each.__cause__ is None


async def test_an_old_failure_is_not_the_cause_of_a_later_timeout() -> None:
    """The cause is what kept this wait from seeing anything, not an earlier one."""
    async with a_world() as world:
        world.fake.fail_next(503, times=math.inf)
        with pytest.raises(AudioTimeoutError) as caught:
            await world.wait(timeout=10.0)
        assert caught.value.__cause__ is not None
        world.gather.limiter.hold(world.clock.wall() + 3600.0)
        with pytest.raises(AudioTimeoutError) as caught:
            await world.wait(timeout=10.0)
        assert caught.value.__cause__ is None


# Lists that say too little


@pytest.mark.parametrize("shown", [None, ""])
async def test_a_list_item_without_its_audio_is_read_before_it_is_returned(
    monkeypatch: pytest.MonkeyPatch, shown: str | None
) -> None:
    """What the list calls complete without an audio URL is read alone once."""
    list_shows(monkeypatch, lambda _, row: row.update(audioURL=shown))
    async with a_world(5, audio_seconds=1.0) as world:
        ended = await all_of(world, timeout=20.0)
        assert all(isinstance(each, Question) and each.audio_url for each in ended)
        assert singles(world) == 5


async def test_a_list_item_that_failed_needs_no_read_of_its_own() -> None:
    """A failure has no audio to be read, so that the list says all."""
    async with a_world(5) as world:
        for each in world.ids:
            world.fake.fail_audio(each, after=2.0)
        ended = await all_of(world, timeout=20.0)
        assert all(isinstance(each, AudioGenerationError) for each in ended)
        assert singles(world) == 0


async def test_a_list_that_calls_audio_ready_too_early_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Single reads decide: the first that disagrees ends the use of the list for a minute."""
    list_shows(monkeypatch, lambda _, row: row.update(transcriptionStatus="complete"))
    async with a_world(50, audio_seconds=20.0) as world:
        ended = await all_of(world, timeout=600.0)
        assert all(isinstance(each, Question) and each.audio_url for each in ended)
        early = [each for each in world.polls if each.at < world.polls[0].at + 20.0]
        assert len(early) <= 20
        assert world.waited >= 20.0


# Reads that don't find what was just created


def hidden(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let single reads answer 404 for that many seconds."""
    began: list[float] = []

    def late(call: Any) -> Any:
        now = call.world.clock.monotonic()
        began.append(now)
        if now - began[0] < seconds:
            raise not_found("Question", call.id)
        return get_question(call)

    monkeypatch.setitem(server._OPERATIONS, ("GET", "questions/*"), late)


@pytest.mark.parametrize("count", [1, 2])
async def test_404_right_after_creation_is_endured(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """A question that the caller has is waited for although it can't be read yet."""
    hidden(monkeypatch, 3.0)
    async with a_world(count, audio_seconds=5.0, questions_list="empty") as world:
        made = [Question(id=each) for each in world.ids]
        ready = [each async for each in world.gather.questions.wait_until_all_audio_ready(made)]
        assert len(ready) == count
        assert world.waited <= 20.0


async def test_404_that_stays_ends_the_wait_after_some_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A question that was deleted is reported, though later than an unknown id."""
    hidden(monkeypatch, math.inf)
    async with a_world(1) as world:
        with pytest.raises(NotFoundError):
            await world.gather.questions.wait_until_audio_ready(Question(id=world.ids[0]))
        assert 10.0 <= world.waited <= 30.0


async def test_404_of_an_id_alone_ends_its_wait_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two waits for one question, the one that has only an id ends."""
    hidden(monkeypatch, 3.0)
    async with a_world(1, audio_seconds=4.0) as world:
        has_it = world.gather.questions.wait_until_audio_ready(Question(id=world.ids[0]))
        known, unknown = await asyncio.gather(has_it, world.wait(0), return_exceptions=True)
        assert isinstance(known, Question)
        assert isinstance(unknown, NotFoundError)


# Several failures


async def failure_of(world: World, ids: Sequence[str], **options: Any) -> GatherError:
    """Return what waiting for all of these ids raises in the end."""
    with pytest.raises(GatherError) as caught:
        async for _ in world.gather.questions.wait_until_all_audio_ready(ids, **options):
            pass
    return caught.value


async def test_several_unknown_ids_are_all_named() -> None:
    """The error of the first has a note that names every id that ended so."""
    async with a_world(1, audio_seconds=1.0) as world:
        error = await failure_of(world, ["gone-1", "gone-2", world.ids[0], "gone-3"])
        assert isinstance(error, NotFoundError)
        assert error.__notes__ == ["NotFoundError of 3: gone-1, gone-2, gone-3"]


async def test_failures_of_several_kinds_are_named_by_kind() -> None:
    """Unknown ids and those that were not ready in time have a note each."""
    async with a_world(3, audio_seconds=math.inf) as world:
        error = await failure_of(world, ["gone-1", "gone-2", *world.ids], timeout=20.0)
        assert isinstance(error, NotFoundError)
        notes = error.__notes__
        assert notes[0] == "NotFoundError of 2: gone-1, gone-2"
        assert notes[1].startswith("AudioTimeoutError of 3: ")
        assert all(each in notes[1] for each in world.ids)


async def test_a_single_failure_needs_no_note() -> None:
    """One unknown id is in the error's own message."""
    async with a_world(1, audio_seconds=1.0) as world:
        error = await failure_of(world, ["gone-1", world.ids[0]])
        assert "gone-1" in str(error)
        assert not hasattr(error, "__notes__")


async def test_many_failures_are_named_up_to_a_number() -> None:
    """A note stays readable: of 300 ids 200 are named, the rest is counted."""
    async with a_world(300) as world:
        error = await failure_of(world, world.ids, timeout=1.0)
        assert isinstance(error, AudioTimeoutError)
        [note] = error.__notes__
        assert note.startswith("AudioTimeoutError of 300: ")
        assert note.endswith(" and 100 more")
