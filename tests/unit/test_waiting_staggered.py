"""What waits cost that begin one after the other."""

import asyncio
import math
import random
from collections.abc import Sequence
from functools import partial

import pytest
from attrs import evolve, frozen
from hypothesis import example, given
from hypothesis import strategies as st

from gather_async import PollPolicy, Question
from gather_async.pager import Page
from gather_async.protocol.polling import PollBudget
from gather_async.quota import Priority
from gather_async.testing import VirtualClock
from gather_async.waiting.conditions import audio_ready
from gather_async.waiting.coordinator import Coordinator
from tests.waiting_lists import Simulated, names
from tests.waiting_world import DOCUMENTED

ONCE = PollPolicy(first=1.0, factor=1e9, cap=1e6)
LATENCY = 0.01  # seconds


def first_polls(world: Simulated, ids: Sequence[str], gap: float) -> list[float]:
    """Begin a wait every so many seconds; return how long each was without a poll."""
    delays: dict[str, float] = {}
    begun = 0
    while len(delays) < len(ids):
        while begun < len(ids) and world.now >= begun * gap:
            world.wait_for([ids[begun]], ONCE)
            begun += 1
        poll, seconds = world.scheduler.plan(world.now)
        if poll is not None:
            world.now += LATENCY
            world.answer(poll)
        else:
            world.now += max(min(seconds, begun * gap - world.now), 0.001)
        for each in world.scheduler.targets.values():
            if each.polled_at > -math.inf:
                delays.setdefault(each.id, each.polled_at - each.began)
    return list(delays.values())


@frozen
class Case:
    """A list, and what is awaited of it."""

    total: int
    size: int
    wanted: int
    missing: int
    counts: bool
    gap: float
    seed: int


CASES = st.builds(
    Case,
    total=st.integers(1, 600),
    size=st.integers(1, 100),
    wanted=st.integers(1, 80),
    missing=st.integers(0, 20),
    counts=st.booleans(),
    gap=st.floats(0.01, 2.0),
    seed=st.integers(0, 1000),
)


@example(Case(1000, 50, 200, 0, counts=True, gap=0.1, seed=1))
@example(Case(1000, 50, 200, 0, counts=False, gap=0.1, seed=1))
@example(Case(600, 1, 200, 20, counts=True, gap=0.1, seed=2))
@example(Case(10_000, 100, 200, 200, counts=True, gap=0.1, seed=3))
@given(case=CASES)
async def test_first_polls_one_after_the_other_cost_what_they_cost_together(case: Case) -> None:
    """A round costs the single reads and a short search at most, however the waits begin.

    Each eighth wait pays for one page more, as it may be in a list that others were not in.
    None waits longer for its first poll than for the second after it.
    """
    ids = names(case.total)
    world = Simulated(ids, case.size, counts=case.counts)
    awaited = random.Random(case.seed).sample(ids, min(case.wanted, case.total))
    awaited += [f"gone{number}" for number in range(case.missing)]
    delays = first_polls(world, awaited, case.gap)
    pages, requests = math.ceil(case.total / case.size), world.pages + world.singles
    most = len(awaited) * 9 / 8 + 10
    assert requests <= most + (pages if pages < len(awaited) + 10 else 0)
    assert max(delays) <= ONCE.first + LATENCY * (requests + 1)


class Memory:
    """Questions in memory that take some seconds from the beginning of their waits."""

    def __init__(self, ids: Sequence[str], *, size: int) -> None:
        self.ids, self.size = ids, size
        self.clock = VirtualClock()
        self.requests = 0
        self.ready_at: dict[str, float] = {}
        self.delays: list[float] = []
        self.coordinator = Coordinator(
            evolve(audio_ready({}), read=self._read, page=self._page),
            budget=PollBudget(lambda: DOCUMENTED),
            clock=self.clock,
            rng=random.Random(1),
            is_alive=lambda: False,
        )

    def _show(self, name: str) -> Question:
        is_ready = self.ready_at.get(name, math.inf) <= self.clock.monotonic()
        return Question(
            id=name,
            transcription_status="complete" if is_ready else "processing",
            audio_url="https://audio.invalid/a.mp3" if is_ready else None,
        )

    async def _read(self, name: str, *_: object) -> Question:
        self.requests += 1
        await asyncio.sleep(0)
        return self._show(name)

    async def _page(self, number: int, priority: Priority) -> Page[Question]:
        self.requests += 1
        await asyncio.sleep(0)
        shown = self.ids[(number - 1) * self.size : number * self.size]
        return Page(
            items=tuple(map(self._show, shown)),
            page=number,
            total=len(self.ids),
            has_next=number * self.size < len(self.ids),
            fetch_next=partial(self._page, number + 1, priority),
        )

    async def wait_for(self, ids: Sequence[str], *, gap: float) -> None:
        """Wait for each, one after the other."""
        rng = random.Random(1)

        async def wait(number: int, name: str) -> None:
            await self.clock.sleep(number * gap)
            self.ready_at[name] = self.clock.monotonic() + rng.uniform(5.0, 30.0)
            await self.coordinator.wait(name, timeout=None)
            self.delays.append(self.clock.monotonic() - self.ready_at[name])

        await asyncio.gather(*(wait(number, name) for number, name in enumerate(ids)))


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("size", [50, 100])
@pytest.mark.parametrize("newest_first", [True, False])
async def test_two_hundred_waits_share_pages_however_they_begin(
    gap: float, size: int, newest_first: bool
) -> None:
    """The newest 200 of 1000 are found in the list, and fit in the documented limits.

    That needs no more than a page every two seconds, and what is ready is known in the minute.
    """
    ids = names(1000)
    memory = Memory(ids[::-1] if newest_first else ids, size=size)
    await memory.wait_for(ids[-200:], gap=gap)
    assert memory.requests <= 45 + 200 * gap / 2
    assert sum(memory.delays) / 200 <= 30.0
    assert max(memory.delays) <= 60.0
