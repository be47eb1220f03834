"""Questions in memory, and a coordinator that waits for them without a server."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from attrs import evolve

from gather_async import Question
from gather_async.protocol.polling import PollBudget
from gather_async.testing import VirtualClock
from gather_async.waiting.conditions import audio_ready
from gather_async.waiting.coordinator import Coordinator
from tests.waiting_world import PLENTY

__all__ = ["Audio", "turns"]


class Audio:
    """Questions in memory, each ready at an instant, and a coordinator that reads them."""

    def __init__(self, **ready_at: float) -> None:
        self.clock = VirtualClock()
        self.began = self.clock.monotonic()
        self.ready_at = ready_at
        self.reads: list[str] = []
        self.on_read: Callable[[], object] = list
        self.coordinator = Coordinator(
            evolve(audio_ready({}), read=self.read, page=None),
            budget=PollBudget(lambda: PLENTY),
            clock=self.clock,
            rng=random.Random(1),
            is_alive=lambda: False,
        )

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.clock.monotonic() - self.began

    def read_with(self, read: Callable[..., Awaitable[Question]]) -> None:
        """Read in another way from now on."""
        coordinator = self.coordinator
        coordinator._condition = evolve(coordinator._condition, read=read)

    async def read(self, name: str, *_: object) -> Question:
        """Return a question as it is now."""
        self.reads.append(name)
        self.on_read()
        await asyncio.sleep(0)
        is_ready = self.ready_at.get(name, 0.0) <= self.now
        return Question(id=name, transcription_status="complete" if is_ready else "processing")

    def begin(self, name: str, timeout: float | None = None) -> "asyncio.Task[Question]":
        """Begin to wait for a question."""
        return asyncio.ensure_future(self.coordinator.wait(name, timeout=timeout))

    async def all_of(self, count: int) -> None:
        """Wait for that many questions in one call."""
        async for _ in self.coordinator.wait_each((f"q{n}" for n in range(count)), timeout=None):
            pass


async def turns(count: int) -> None:
    """Let other tasks run so many times."""
    for _ in range(count):
        await asyncio.sleep(0)
