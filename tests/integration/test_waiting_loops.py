"""Waits in event loops that rest, end, or follow each other."""

import asyncio
import math

import pytest

from gather_async import ClientClosedError, Question
from tests.waiting_memory import Audio


async def test_waits_move_to_another_loop_when_none_is_left_in_the_first() -> None:
    """A coordinator works in one loop at a time, and goes where it is needed next."""
    audio = Audio()
    await audio.begin("a")

    async def elsewhere() -> str:
        return (await audio.coordinator.wait("b", timeout=None)).id

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == "b"
    assert (await audio.begin("a")).id == "a"


async def test_waits_of_a_running_loop_are_not_disturbed_from_another() -> None:
    """A loop that finds a coordinator in use is refused, and the waits go on."""
    audio = Audio(a=5.0)
    waiting = audio.begin("a")
    await audio.clock.sleep(1.0)

    async def elsewhere() -> None:
        with pytest.raises(ClientClosedError):
            await audio.coordinator.wait("b", timeout=None)

    with audio.clock.busy():
        await asyncio.to_thread(asyncio.run, elsewhere())
    assert (await waiting).id == "a"
    assert audio.reads.count("b") == 0


def test_closing_joins_no_task_of_a_loop_that_rests() -> None:
    """What was left in another loop can't end before that loop runs again."""
    audio = Audio(old=math.inf, new=math.inf)

    async def begin() -> "asyncio.Task[Question]":
        waiting = audio.begin("old")
        await audio.clock.sleep(1.0)
        return waiting

    async def close() -> None:
        waiting = audio.begin("new")
        await audio.clock.sleep(1.0)
        await audio.coordinator.close()
        with pytest.raises(ClientClosedError):
            await waiting

    with asyncio.Runner() as resting:
        old = resting.run(begin())
        asyncio.run(close())
    assert old.cancelled()


def test_waits_of_a_loop_that_rests_give_way_to_those_of_the_next() -> None:
    """What was left waiting in one loop is neither polled for in the next, nor ends it."""
    audio = Audio(old=math.inf, new=20.0)
    tasks: list[asyncio.Task[Question]] = []

    async def begin(name: str) -> None:
        tasks.append(audio.begin(name))
        await audio.clock.sleep(5.0)

    async def finish() -> str:
        return (await tasks[1]).id

    with asyncio.Runner() as second:
        with asyncio.Runner() as first:
            first.run(begin("old"))
            audio.reads.clear()
            second.run(begin("new"))
        assert tasks[0].cancelled()
        assert second.run(finish()) == "new"
    assert set(audio.reads) == {"new"}


def test_a_loop_that_was_closed_with_waits_in_it_disturbs_no_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A listener never raises, as one receiver serves many clients, and neither does `close`."""
    audio = Audio(a=5.0)

    async def begin() -> "asyncio.Task[Question]":
        waiting = audio.begin("a")
        await audio.clock.sleep(1.0)
        return waiting

    def refuse() -> None:
        raise RuntimeError("Event loop is closed")

    with asyncio.Runner() as runner:
        waiting = runner.run(begin())
        with monkeypatch.context() as closed:  # a loop that really is makes noise when collected
            closed.setattr(audio.coordinator._changed, "set", refuse)
            audio.coordinator.notify("question.audio_generated", frozenset({"a"}))
            asyncio.run(audio.coordinator.close())
        assert not waiting.done()
    assert waiting.cancelled()
