"""A server, a client that waits and what it waits for, on one virtual clock."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gather_async import GatherClient, Question, RateLimit
from gather_async.testing import FakeGather, VirtualClock

__all__ = ["DOCUMENTED", "PLENTY", "World", "a_world", "an_invite", "coordinators", "uniform"]

PLENTY = [RateLimit(1_000_000, per=60)]
DOCUMENTED = [RateLimit(100, per=60), RateLimit(1000, per=3600)]


class World:
    """A server, a client that waits, and the questions it waits for."""

    def __init__(self, fake: FakeGather, gather: GatherClient, clock: VirtualClock) -> None:
        self.fake, self.gather, self.clock = fake, gather, clock
        self.ids: list[str] = []
        self.began = clock.monotonic()
        self.requests_before = len(fake.requests)

    @property
    def polls(self) -> Sequence[Any]:
        """What was sent since the questions were created."""
        return self.fake.requests[self.requests_before :]

    @property
    def waited(self) -> float:
        """Seconds since the questions were created."""
        return self.clock.monotonic() - self.began

    async def wait(self, number: int = 0, **options: Any) -> Question:
        """Wait for one question."""
        return await self.gather.questions.wait_until_audio_ready(self.ids[number], **options)


@asynccontextmanager
async def a_world(
    count: int = 1,
    *,
    audio_seconds: float | Callable[[], float] = math.inf,
    rate_limits: Sequence[RateLimit] | None = None,
    signals: Any = None,
    **behaviour: Any,
) -> AsyncIterator[World]:
    """Open a server with that many questions, and a client with the documented limits."""
    clock = VirtualClock()
    async with (
        FakeGather(clock=clock, audio_seconds=audio_seconds, **behaviour) as fake,
        fake.client(rate_limits=PLENTY) as maker,
        fake.client(
            rng=random.Random(5),
            signals=signals,
            rate_limits=DOCUMENTED if rate_limits is None else rate_limits,
        ) as gather,
    ):
        world = World(fake, gather, clock)
        made = await asyncio.gather(
            *(
                maker.questions.create(title=f"q{n}", question_script="Why?", user_id=fake.user_id)
                for n in range(count)
            )
        )
        world.ids = [question.id for question in made]
        world.began, world.requests_before = clock.monotonic(), len(fake.requests)
        yield world
    assert clock.sleepers == 0, "a timer was left behind"
    assert coordinators() == 0, "a task was left behind"


def coordinators() -> int:
    """Return how many tasks of waits there are."""
    return sum(1 for task in asyncio.all_tasks() if "waiting for" in task.get_name())


def uniform(low: float, high: float, seed: int = 1) -> Callable[[], float]:
    """Return what draws generation times."""
    rng = random.Random(seed)
    return lambda: rng.uniform(low, high)


@asynccontextmanager
async def an_invite(count: int = 1, **behaviour: Any) -> AsyncIterator[World]:
    """Open a world whose ids are candidate interviews."""
    async with a_world(1, **behaviour) as world:
        gather, fake = world.gather, world.fake
        interview = await gather.interviews.create(
            title="Engineer", display_name="Engineer", question_ids=world.ids
        )
        links = [
            await gather.candidate_interviews.create(
                candidate_id=candidate, interview_id=interview.id, expiry_days=3
            )
            for candidate in fake.add_candidates(count)
        ]
        world.ids = [link.id for link in links]
        world.began, world.requests_before = world.clock.monotonic(), len(fake.requests)
        yield world
