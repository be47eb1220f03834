"""How much of the quota is used, what a slot costs, and what waiting costs.

    python -m benchmarks.quota

Three hours of the documented limits pass on the virtual clock against a server
that stamps each request anywhere between sending and answer; the same with
windows of 1 s and 6 s passes in real time.
"""

import asyncio
import gc
import random
import time
import tracemalloc
from collections import deque
from collections.abc import Iterator, Sequence

from attrs import frozen

from benchmarks.figure import Figure, table
from gather_async.clock import Clock, SystemClock
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.protocol.server_quota import ServerQuota
from gather_async.quota import InProcessLimiter
from gather_async.testing.clock import VirtualClock

__all__ = ["figures"]

_DOCUMENTED = (RateLimit(100, per=60), RateLimit(1000, per=3600))
_SCALED = (RateLimit(100, per=1), RateLimit(500, per=6))
_TASKS = 64
_HEADERS = ServerQuota(100, 99, None)


class _Server:
    """Rolling windows; 20 to 400 ms of latency, divided at random around the stamp."""

    def __init__(self, limits: Sequence[RateLimit], clock: Clock, *, scale: float) -> None:
        self.limits, self.clock, self.scale = limits, clock, scale
        self.rng = random.Random(20)
        self.logs: list[deque[float]] = [deque() for _ in limits]
        self.accepted = self.refused = 0

    async def serve(self) -> ServerQuota:
        """Answer one request."""
        latency, share = self.rng.uniform(0.02, 0.4) * self.scale, self.rng.random()
        await self.clock.sleep(latency * share)
        quota = self._count(self.clock.monotonic())
        await self.clock.sleep(latency * (1 - share))
        return quota

    def _count(self, now: float) -> ServerQuota:
        for log, limit in zip(self.logs, self.limits, strict=True):
            while log and now - log[0] >= limit.per:
                log.popleft()
        pairs = list(zip(self.logs, self.limits, strict=True))
        if any(len(log) >= limit.limit for log, limit in pairs):
            self.refused += 1
        else:
            self.accepted += 1
            for log in self.logs:
                log.append(now)
        log, limit = min(pairs, key=lambda pair: pair[1].limit - len(pair[0]))
        return ServerQuota(limit.limit, limit.limit - len(log), None)


@frozen
class _Outcome:
    accepted: int
    refused: int
    ideal: int

    @property
    def share(self) -> float:
        """Return the part of the ideal schedule that was used."""
        return self.accepted / self.ideal


async def _saturate(
    limits: Sequence[RateLimit], clock: Clock, *, seconds: float, scale: float
) -> _Outcome:
    """Ask for as much as possible from 64 tasks, for that long."""
    server = _Server(limits, clock, scale=scale)
    limiter = InProcessLimiter(limits, clock=clock, reserve=0)
    ends = clock.monotonic() + seconds

    async def work() -> None:
        while clock.monotonic() < ends:
            slot = await limiter.acquire(priority="interactive", max_wait=None)
            if clock.monotonic() >= ends:
                slot.returned()
                return
            slot.answered(await server.serve())

    await asyncio.gather(*(work() for _ in range(_TASKS)))
    ideal = min(
        limit.limit * int(seconds / limit.per) if seconds % limit.per == 0 else 10**9
        for limit in limits
    )
    return _Outcome(server.accepted, server.refused, ideal)


async def _next_free_slot() -> tuple[float, float]:
    """Return how late an interactive call started behind 10 000 bulk ones, and the burst's rank."""
    clock = VirtualClock()
    limiter = InProcessLimiter(_DOCUMENTED, clock=clock)

    async def bulk() -> None:
        slot = await limiter.acquire(priority="bulk", max_wait=None)
        await clock.sleep(0.1)
        slot.answered(None)

    waiting = [asyncio.create_task(bulk()) for _ in range(10_000)]
    await clock.sleep(100.0)
    for _ in range(limiter.status().remaining):
        (await limiter.acquire(priority="interactive", max_wait=None)).answered(None)
    due = limiter.status().next_slot
    asked = clock.monotonic()
    slot = await limiter.acquire(priority="interactive", max_wait=None)
    late = clock.monotonic() - asked - (due or 0.0)
    slot.answered(None)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return late, due or 0.0


async def _cost(quota: ServerQuota | None, number: int = 5_000) -> float:
    """Return microseconds per uncontended acquire and answer, best of forty short runs."""
    clock, best = SystemClock(), float("inf")
    for _ in range(40):  # other work on the machine hits some of them
        limiter = InProcessLimiter(
            [RateLimit(100_000, per=60), RateLimit(1_000_000, per=3600)], clock=clock
        )
        began = time.perf_counter()
        for _ in range(number):
            slot = await limiter.acquire(priority="interactive", max_wait=None)
            slot.answered(quota)
        best = min(best, time.perf_counter() - began)
    return best / number * 1e6


async def _documented_cost() -> float:
    """Return the same on the documented windows with their headers, full and sliding."""
    clock, number, best = VirtualClock(autojump=False), 2_000, float("inf")
    limiter = InProcessLimiter(_DOCUMENTED, clock=clock)
    for _ in range(40):
        spent = 0.0
        for _ in range(number):
            clock.jump(3.7)
            began = time.perf_counter()
            slot = await limiter.acquire(priority="interactive", max_wait=None)
            slot.answered(_HEADERS)
            spent += time.perf_counter() - began
        best = min(best, spent)
    return best / number * 1e6


async def _waiting(number: int = 100_000) -> tuple[float, float, float]:
    """Return bytes a waiting task, bytes left after cancelling, and microseconds a join."""
    clock = VirtualClock(autojump=False)
    limiter = InProcessLimiter([RateLimit(1, per=3600)], clock=clock)
    await limiter.acquire(priority="interactive", max_wait=None)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = [
        asyncio.create_task(limiter.acquire(priority="interactive", max_wait=None))
        for _ in range(number)
    ]
    await asyncio.sleep(0)
    each = (tracemalloc.get_traced_memory()[0] - before) / number
    for index in range(number):  # no name may keep the last of them
        tasks[index].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
    await asyncio.sleep(0)
    gc.collect()
    left = (tracemalloc.get_traced_memory()[0] - before) / number
    tracemalloc.stop()
    return each, left, await _join_and_leave(limiter, number)


async def _join_and_leave(limiter: InProcessLimiter, number: int) -> float:
    """Return microseconds for a task to be made, to queue, and to be cancelled."""
    began = time.perf_counter()
    tasks = [
        asyncio.create_task(limiter.acquire(priority="interactive", max_wait=None))
        for _ in range(number)
    ]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return (time.perf_counter() - began) / number * 1e6


def _saturation(name: str, outcome: _Outcome) -> Iterator[Figure]:
    yield Figure(f"{name}: answers 429", str(outcome.refused), "0", outcome.refused == 0)
    share = f"{outcome.share:.2%} ({outcome.accepted} of {outcome.ideal})"
    yield Figure(f"{name}: of the ideal", share, ">= 99 %", outcome.share >= 0.99)


def figures() -> Iterator[Figure]:
    """Yield each figure as it is measured."""
    began = time.perf_counter()
    outcome = asyncio.run(_saturate(_DOCUMENTED, VirtualClock(), seconds=3 * 3600.0, scale=1.0))
    spent = time.perf_counter() - began
    yield from _saturation("3 hours, 64 tasks, virtual", outcome)
    yield Figure("3 hours on the virtual clock take", f"{spent:.2f} s", "< 3 s", spent < 3.0)
    outcome = asyncio.run(_saturate(_SCALED, SystemClock(), seconds=18.0, scale=1 / 60))
    yield from _saturation("18 s of 1 s and 6 s windows, real", outcome)
    late, due = asyncio.run(_next_free_slot())
    yield Figure(
        "interactive behind 10 000 bulk: after next free slot",
        f"{late * 1e6:.0f} us of {due:.1f} s",
        "< 1 ms",
        abs(late) < 0.001,
    )
    for name, cost in (
        ("acquire and answer, uncontended", asyncio.run(_cost(None))),
        ("the same with rate headers", asyncio.run(_cost(ServerQuota(100_000, 99_999, None)))),
        ("the same, documented windows sliding", asyncio.run(_documented_cost())),
    ):
        yield Figure(name, f"{cost:.2f} us", "< 5 us", cost < 5.0)
    each, left, join = asyncio.run(_waiting())
    yield Figure("100 000 waiting tasks, each", f"{each:.0f} B")
    yield Figure("after cancelling them, each", f"{left:.1f} B", "< 64 B", left < 64)
    yield Figure("make a task, queue, cancel", f"{join:.1f} us")


if __name__ == "__main__":
    for line in table(figures()):
        print(line, flush=True)
