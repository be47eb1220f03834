"""What a thousand API keys in one process cost, against one client."""

import asyncio
import gc
import statistics
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import aiohttp

from benchmarks.canned_server import QUESTION_ID, canned_server
from benchmarks.figure import Figure
from gather_async import GatherClient, GatherPool, RateLimit

__all__ = ["figures"]

_KEYS = 1000
_BYTES_PER_KEY = 40_000
_CONNECTIONS = 100
_RATIO = 1.2
_ROUNDS = 15
_CALLS = 200
_ROOMY = (RateLimit(1_000_000, per=60), RateLimit(10_000_000, per=3600))

_Call = Callable[[int], Awaitable[object]]


def _memory(keys: int) -> float:
    """Return the bytes that each of so many keys takes, its client in use once."""
    pool = GatherPool()
    pool.for_key("warm-up")
    gc.collect()
    tracemalloc.start()
    for number in range(keys):
        pool.for_key(f"key-{number}")
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / keys


@asynccontextmanager
async def _counted(url: str) -> AsyncIterator[tuple[GatherPool, list[object]]]:
    """Yield a pool, and what its HTTP session opens."""
    opened: list[object] = []

    async def note(_: object, __: object, created: object) -> None:
        opened.append(created)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(note)
    async with GatherPool(base_url=url, rate_limits=_ROOMY, trace_configs=[trace]) as pool:
        yield pool, opened


async def _cpu(call: _Call) -> float:
    """Return this process's CPU seconds per call, over one round."""
    gc.collect()
    start = time.process_time()
    for number in range(_CALLS):
        await call(number)
    return (time.process_time() - start) / _CALLS


async def _run() -> list[Figure]:
    with canned_server() as url:
        async with _counted(url) as (pool, opened):
            await asyncio.gather(
                *(
                    pool.for_key(f"key-{number}").questions.get(QUESTION_ID)
                    for number in range(_KEYS)
                )
            )
            connections = len(opened)
        async with (
            GatherPool(base_url=url, rate_limits=_ROOMY) as pool,
            GatherClient("key", base_url=url, rate_limits=_ROOMY) as gather,
        ):
            clients = [pool.for_key(f"key-{number}") for number in range(_KEYS)]

            async def pooled(number: int) -> object:
                key = f"key-{number * 7 % len(clients)}"
                return await pool.for_key(key).questions.get(QUESTION_ID)

            async def single(_: int) -> object:
                return await gather.questions.get(QUESTION_ID)

            ratios = [await _cpu(pooled) / await _cpu(single) for _ in range(_ROUNDS)]
    ratio = statistics.median(ratios)
    return [
        Figure(
            f"calls of {_KEYS} keys at once, connections opened",
            f"{connections}",
            f"<= {_CONNECTIONS}",
            connections <= _CONNECTIONS,
        ),
        Figure(
            f"a call among {_KEYS} keys, client CPU",
            f"{ratio:.2f} x one client",
            f"<= {_RATIO}",
            ratio <= _RATIO,
        ),
    ]


def figures() -> Iterator[Figure]:
    """Yield the memory of a key at two sizes, connections, and CPU."""
    for keys in (_KEYS, 4 * _KEYS):
        size = _memory(keys)
        yield Figure(
            f"each of {keys} keys, memory",
            f"{size / 1000:.1f} kB",
            f"<= {_BYTES_PER_KEY // 1000} kB",
            size <= _BYTES_PER_KEY,
        )
    yield from asyncio.run(_run())
