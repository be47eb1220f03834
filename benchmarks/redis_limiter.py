"""What a slot costs when the quota is on a Redis server, beside one of this process.

    python -m benchmarks.redis_limiter

The server runs on loopback. The windows are the documented ones, made large enough that none
fills; in the last figures sixteen processes wait for two slots a second.
"""

import asyncio
import time
from collections.abc import Iterator

import redis
from attrs import frozen

from benchmarks.figure import Figure, table
from gather_async.clock import SystemClock
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota import InProcessLimiter, Limiter
from gather_async.redis import RedisLimiter
from tests.servers import RedisServer

__all__ = ["figures"]

_WIDE = (RateLimit(100_000, per=60), RateLimit(1_000_000, per=3600))
_ROUNDS = 5  # the best counts: other work on the machine hits some of them
_SECONDS = 10.0


@frozen
class _Cost:
    """What a slot cost."""

    microseconds: float
    steps: float


async def _cost(limiter: Limiter, *, tasks: int, number: int = 2_000) -> _Cost:
    """Return what a slot costs tasks that take one after the other, and answer at once."""
    best, steps = float("inf"), 0.0

    async def work() -> None:
        for _ in range(number // tasks):
            slot = await limiter.acquire(priority="interactive", max_wait=None)
            await asyncio.sleep(0)
            slot.answered(None)

    for _ in range(_ROUNDS):
        before = getattr(limiter, "steps", 0)
        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(tasks)))
        spent = time.perf_counter() - began
        if spent < best:
            best, steps = spent, getattr(limiter, "steps", 0) - before
    return _Cost(best / number * 1e6, steps / number)


async def _waiting(url: str) -> float:
    """Return the steps for each slot while sixteen processes wait for two slots a second."""
    limits = (RateLimit(20, per=10), RateLimit(1000, per=3600))
    limiters = [RedisLimiter(url, key="waiting", rate_limits=limits) for _ in range(16)]
    granted = 0

    async def work(limiter: RedisLimiter) -> None:
        nonlocal granted
        while True:
            slot = await limiter.acquire(priority="interactive", max_wait=None)
            granted += 1
            await asyncio.sleep(0.01)
            slot.answered(None)

    tasks = [asyncio.create_task(work(each)) for each in limiters]
    await asyncio.sleep(_SECONDS + 1.0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    steps = sum(each.steps for each in limiters)
    for each in limiters:
        await each.aclose()
    return steps / granted


async def _documented(url: str) -> None:
    """Fill the documented windows' log: a thousand answers."""
    limits = (RateLimit(1000, per=3600),)
    async with RedisLimiter(url, key="full", rate_limits=limits, lease=0.1) as limiter:
        for _ in range(1000):
            (await limiter.acquire(priority="interactive", max_wait=None)).answered(None)


async def _measure(url: str) -> list[Figure]:
    local = InProcessLimiter(_WIDE, clock=SystemClock())
    found: list[Figure] = []
    async with RedisLimiter(url, key="wide", rate_limits=_WIDE, lease=1.0) as shared:
        for tasks, most in ((1, 1.0), (16, 0.2)):
            here = await _cost(local, tasks=tasks, number=20_000)
            there = await _cost(shared, tasks=tasks)
            who = "one task" if tasks == 1 else f"{tasks} tasks"
            value = f"{there.microseconds:.0f} us, in-process {here.microseconds:.1f} us"
            found.append(Figure(f"a slot by Redis: {who}", value))
            is_met = there.steps <= most + 0.01
            value = f"{there.steps:.2f}"
            found.append(Figure(f"calls of Redis per slot: {who}", value, f"<= {most}", is_met))
    steps = await _waiting(url)
    name = "calls of Redis per slot: 16 processes wait for 2 a second"
    found.append(Figure(name, f"{steps:.2f}", "<= 5", steps <= 5))
    return found


def figures() -> Iterator[Figure]:
    """Yield the figures of the limiter whose quota is on a server."""
    server = RedisServer()
    server.start()
    try:
        yield from asyncio.run(_measure(server.url))
        with redis.Redis.from_url(server.url) as client:
            took = client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]
            client.flushall()
            asyncio.run(_documented(server.url))
            used = sum(client.memory_usage(key) or 0 for key in client.scan_iter())
        yield Figure("a step, on the server", f"{took:.0f} us", "<= 200 us", took <= 200)
        yield Figure("a key with 1000 answers, on the server", f"{used / 1024:.0f} KB")
    finally:
        server.delete()


if __name__ == "__main__":
    for line in table(figures()):
        print(line)
