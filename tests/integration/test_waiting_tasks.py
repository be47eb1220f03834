"""The task that polls for all waits: when it begins and ends, and in which event loop."""

import asyncio
import contextvars
import gc
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from gather_async import (
    AudioTimeoutError,
    ClientClosedError,
    ConfigurationError,
    InvalidRequestError,
    Question,
)
from gather_async.waiting.scheduler import Scheduler
from tests.waiting_memory import Audio, turns
from tests.waiting_world import a_world, coordinators


@contextmanager
def counted_turns() -> Iterator[Callable[[], int]]:
    """Count how often the event loop goes round meanwhile."""
    loop = asyncio.get_running_loop()
    handles: list[asyncio.Handle] = []

    def turn() -> None:
        handles.append(loop.call_soon(turn))

    turn()
    yield lambda: len(handles)
    handles[-1].cancel()


# The end of the last wait, and the beginning of the next


@pytest.mark.parametrize("later", range(6))
async def test_a_cancelled_wait_is_held_up_by_none_that_begins_just_then(later: int) -> None:
    """The task of waits that are over ends, though another wait begins before it has."""
    audio = Audio(a=1000.0, b=500.0)
    cancelled = audio.begin("a")
    await audio.clock.sleep(5.0)
    cancelled.cancel()
    await turns(later)
    other = audio.begin("b")
    await asyncio.wait([cancelled])
    assert audio.now == 5.0
    assert (await other).id == "b"
    assert coordinators() == 0


@pytest.mark.parametrize("later", range(16))
async def test_a_wait_that_ends_is_held_up_by_none_that_begins_just_then(later: int) -> None:
    """A wait returns when its question is ready, whatever begins in that moment."""
    audio = Audio(a=0.0, b=500.0)
    first = audio.begin("a")
    await turns(1 + later)
    other = audio.begin("b")
    assert (await first).id == "a"
    assert audio.now == 0.0
    assert (await other).id == "b"


async def test_a_wait_ends_only_when_what_still_polls_for_it_has_ended() -> None:
    """By the time a wait returns, a read that hangs was cancelled and is over."""
    audio = Audio()
    running: list[str] = []

    async def hang(name: str, *rest: object) -> Question:
        if name == "b":
            return await audio.read(name)
        running.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            await turns(5)
            running.remove(name)
        raise AssertionError

    audio.read_with(hang)
    hanging, other = audio.begin("a", 5.0), audio.begin("b")
    await other
    assert running == ["a"]
    with pytest.raises(AudioTimeoutError):
        await hanging
    assert not running
    assert coordinators() == 0


async def test_a_task_that_is_cancelled_ends_its_waits() -> None:
    """Who cancels all other tasks doesn't hang in a wait of his own."""
    audio = Audio(a=math.inf)
    waiting = audio.begin("a")
    await audio.clock.sleep(1.0)
    for task in asyncio.all_tasks() - {waiting, asyncio.current_task()}:
        task.cancel()
    with pytest.raises(ClientClosedError):
        await waiting


async def test_a_poll_is_made_in_the_context_of_no_caller() -> None:
    """What a caller keeps in context variables isn't kept alive, nor seen, by polls for all."""
    variable = contextvars.ContextVar("variable", default="none")
    audio, seen = Audio(), list[str]()
    audio.on_read = lambda: seen.append(variable.get())
    variable.set("the caller's")
    await audio.begin("a")
    assert seen == ["none"]


async def test_polls_that_ended_are_forgotten() -> None:
    """A wait of days keeps none of the tasks that polled for it."""
    audio, tasks = Audio(a=math.inf), list[weakref.ref[asyncio.Task[object]]]()

    def note() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(weakref.ref(task))

    audio.on_read = note
    waiting = audio.begin("a")
    await audio.clock.sleep(300.0)
    gc.collect()
    assert len(tasks) >= 20
    assert sum(each() is not None for each in tasks) <= 2
    waiting.cancel()
    await asyncio.wait([waiting])
    await turns(2)
    assert not audio.coordinator._tasks


async def test_what_has_no_id_is_refused() -> None:
    """Neither a number nor an object whose id is none is waited for."""
    audio = Audio()
    for wrong in (5, None, object()):
        with pytest.raises(InvalidRequestError):
            await audio.coordinator.wait(wrong, timeout=None)  # type: ignore[arg-type]
    assert not audio.reads


async def test_a_read_that_crashes_ends_all_waits() -> None:
    """A bug in a read reaches every wait, and the next one starts afresh."""
    audio = Audio(a=math.inf, b=math.inf)
    waits = [audio.begin("a"), audio.begin("b")]
    await audio.clock.sleep(1.0)
    audio.on_read = lambda: 1 / 0
    ended = await asyncio.gather(*waits, return_exceptions=True)
    assert all(isinstance(each, ZeroDivisionError) for each in ended)
    audio.on_read = list
    assert (await audio.begin("c")).id == "c"


async def test_an_error_that_ends_all_waits_is_the_cause_of_one_for_each() -> None:
    """Each wait raises an error of its own, with a traceback of its own."""
    audio, cause = Audio(a=math.inf, b=math.inf), ClientClosedError("This client is closed.")

    def refuse() -> None:
        raise cause

    audio.on_read = refuse
    waits = [audio.begin("a"), audio.begin("b")]
    first, second = await asyncio.gather(*waits, return_exceptions=True)
    assert first is not second
    assert first is not cause
    assert isinstance(first, ClientClosedError)
    assert isinstance(second, ClientClosedError)
    assert first.__cause__ is second.__cause__ is cause


async def test_a_wait_that_begins_while_others_rest_is_polled_for_at_once() -> None:
    """The task is woken for a new wait, whenever the next poll of the others is due."""
    audio = Audio(a=math.inf)
    waiting = audio.begin("a")
    await audio.clock.sleep(100.0)
    assert (await audio.begin("b")).id == "b"
    assert audio.now == 100.0
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_client_that_cannot_work_ends_all_waits() -> None:
    """No later poll could do better than one that was refused by our own settings."""
    audio = Audio()

    def refuse() -> None:
        raise ConfigurationError("There is no key.")

    audio.on_read = refuse
    with pytest.raises(ConfigurationError):
        await audio.begin("a")
    assert audio.reads == ["a"]
    audio.on_read = list
    assert (await audio.begin("a")).id == "a"


async def test_a_cancelled_read_that_ends_with_a_refusal_ends_no_later_wait() -> None:
    """What came of a poll that no one waits for any more is forgotten."""
    audio = Audio()

    async def refused(name: str, *rest: object) -> Question:
        try:
            await asyncio.Event().wait()
        finally:
            audio.read_with(audio.read)
            raise ClientClosedError("This client is closed.")

    audio.read_with(refused)
    waiting = audio.begin("a")
    await turns(10)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (await audio.begin("a")).id == "a"


async def test_a_sleep_is_never_too_short_for_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a time is a rounding error away, virtual time passes all the same."""
    audio, plan = Audio(), Scheduler.plan

    def hesitate(self: Scheduler[Question], now: float) -> tuple[str | int | None, float]:
        return plan(self, now) if audio.now > 0.0 else (None, 1e-30)

    monkeypatch.setattr(Scheduler, "plan", hesitate)
    assert (await audio.begin("a")).id == "a"


@pytest.mark.parametrize("later", range(4))
async def test_a_wait_that_begins_as_others_crash_is_polled(later: int) -> None:
    """It is never left to the task that is about to end."""
    audio = Audio(a=0.0, b=0.0)
    begun: list[asyncio.Task[Question]] = []

    async def begin() -> Question:
        await turns(later)
        return await audio.coordinator.wait("b", timeout=None)

    async def crash(*_: object) -> Question:
        audio.read_with(audio.read)
        begun.append(asyncio.ensure_future(begin()))
        raise ZeroDivisionError

    audio.read_with(crash)
    with pytest.raises(ZeroDivisionError):
        await audio.begin("a")
    with suppress(ZeroDivisionError):  # it may be one of those that crash
        assert (await begun[0]).id == "b"


# Closing


async def test_closing_waits_for_the_task() -> None:
    """When `close` returns, nothing polls any more, and nothing is awaited."""
    audio = Audio(a=math.inf)
    waiting = audio.begin("a")
    await audio.clock.sleep(1.0)
    await audio.coordinator.close()
    assert coordinators() == 0
    assert audio.now == 1.0
    with pytest.raises(ClientClosedError):
        await waiting
    with pytest.raises(ClientClosedError):
        await audio.begin("b")
    assert "b" not in audio.reads


async def test_closing_ends_the_waits_of_another_loop() -> None:
    """A client that is closed in another thread's loop ends its waits in their own, at once."""
    audio = Audio(a=math.inf)
    waiting = audio.begin("a")
    await audio.clock.sleep(1.0)
    with audio.clock.busy():
        await asyncio.to_thread(asyncio.run, audio.coordinator.close())
    with pytest.raises(ClientClosedError):
        await waiting
    assert audio.now == 1.0


async def test_waits_that_are_being_added_notice_that_the_client_was_closed() -> None:
    """A call that adds thousands of waits ends when the client is closed meanwhile."""
    audio = Audio()
    adding = asyncio.ensure_future(audio.all_of(1000))
    await turns(2)
    await audio.coordinator.close()
    with pytest.raises(ClientClosedError):
        await adding
    assert not audio.reads


async def test_adding_and_ending_many_waits_lets_others_run() -> None:
    """Waits are added by the hundred, and so they are ended."""
    audio, added_in = Audio(**{f"q{n}": math.inf for n in range(2000)}), list[int]()
    with counted_turns() as count:
        begun = asyncio.Event()

        def note() -> None:
            added_in.append(count())
            begun.set()

        audio.on_read = note
        waiting = asyncio.ensure_future(audio.all_of(2000))
        await begun.wait()
        assert added_in[0] >= 10
        before = count()
        await audio.coordinator.close()
        assert count() - before >= 10
    with pytest.raises(ClientClosedError) as caught:
        await waiting
    assert not hasattr(caught.value, "__notes__"), "what ends all waits needs no list of them"


async def test_what_is_no_sequence_is_refused() -> None:
    """One question instead of several, or a number, is refused before anything is sent."""
    async with a_world() as world:
        for wrong in (5, None, Question(id="q")):
            with pytest.raises(InvalidRequestError):
                async for _ in world.gather.questions.wait_until_all_audio_ready(wrong):  # type: ignore[arg-type]
                    pass
        assert not world.polls


async def test_a_task_that_is_cancelled_before_it_begins_leaves_no_wait_behind() -> None:
    """A server that ends cancels every task; none of its callers hangs, nor does the next."""
    async with a_world(1, audio_seconds=5.0) as world:
        waiting = asyncio.ensure_future(world.wait())
        await asyncio.sleep(0)  # it has made the task, which had no turn yet
        (polling,) = (each for each in asyncio.all_tasks() if "waiting for" in each.get_name())
        polling.cancel()
        with pytest.raises(ClientClosedError, match="loop is being closed"):
            await waiting
        assert (await world.wait()).audio_url
