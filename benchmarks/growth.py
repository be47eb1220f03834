"""What numbers do to the cost of one: callers with max_wait, items of a list, stored events.

Each cost is CPU, of a large number beside a small one in the same process. Waits are measured
in `benchmarks.waiting`, a journal's rows in `benchmarks.bulk`.
"""

import asyncio
import gc
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from benchmarks.waiting import TimedSelector
from gather_async.clock import SystemClock
from gather_async.endpoint import candidates_endpoint
from gather_async.protocol.requests import Request
from gather_async.protocol.rolling_windows import DEFAULT_RATE_LIMITS
from gather_async.quota import InProcessLimiter
from gather_async.testing.inbox_laws import event
from gather_async.webhooks import ClaimReport, SQLiteInbox, StoredEvent

__all__ = ["figures"]

_FLAT, _HELD = 1.3, 20.0


def figures() -> Iterator[Figure]:
    """Yield the figures; about five minutes."""
    yield from _callers(1_000, 6_000)
    yield from _listed(1_000, 100_000)
    yield from _stored(10_000, 1_000_000)


def _run(work: Callable[[], Coroutine[Any, Any, float]]) -> tuple[float, float]:
    """Return what the work returns, and the milliseconds for which it held its loop at most."""
    selector = TimedSelector()
    with asyncio.Runner(loop_factory=partial(asyncio.SelectorEventLoop, selector)) as runner:

        async def measured() -> float:
            gc.collect()
            gc.freeze()
            await asyncio.sleep(0)
            selector.longest = 0.0
            return await work()

        result = runner.run(measured())
    return result, selector.longest * 1000


def _ratio(name: str, few: int, many: int, cost: dict[int, float]) -> Figure:
    ratio = cost[many] / cost[few]
    return Figure(
        f"{name}: {many:,} beside {few:,}, CPU of each",
        f"{ratio:.2f} x",
        f"<= {_FLAT}",
        ratio <= _FLAT,
        detail=f"{cost[many] * 1e6:.1f} us",
    )


def _held(name: str, milliseconds: float) -> Figure:
    return Figure(
        f"{name}: event loop held at most",
        f"{milliseconds:.1f} ms",
        f"<= {_HELD:.0f} ms",
        milliseconds <= _HELD,
    )


def _callers(few: int, many: int) -> Iterator[Figure]:
    """Compare the cost of joining the queue, for calls that all come in one step of the loop."""
    cost, held = dict[int, float](), 0.0
    for count in (few, many):
        cost[count], held = min(_run(partial(_join, count)) for _ in range(5))
    name = "callers with max_wait at once"
    yield _ratio(name, few, many, cost)
    yield _held(f"{many:,} {name}", held)


async def _join(count: int) -> float:
    """Let so many calls begin; return the CPU of each until all have joined."""
    limiter = InProcessLimiter(DEFAULT_RATE_LIMITS, clock=SystemClock())
    for _ in range(100):
        (await limiter.acquire(priority="interactive", max_wait=None)).answered(None)
    calls = [limiter.acquire(priority="interactive", max_wait=1e6) for _ in range(count)]
    gc.collect()
    await asyncio.sleep(0)
    began = time.process_time()
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(1.0)  # they take no CPU once they have joined
    each = (time.process_time() - began) / count
    for task in tasks:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return each


class _Listing:
    """Stands in for a session: it answers each request for a page of a list at once."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def send(self, request: Request, *, decode: Callable[[Any], Any], **_: object) -> Any:
        """Return a page of 100."""
        await asyncio.sleep(0)
        first = (int(request.query["page"]) - 1) * 100
        items = [{"id": f"c{number}", "firstName": "A"} for number in range(first, first + 100)]
        return decode({"data": {"candidates": items}, "meta": {"totalCount": self._count}})


async def _read(count: int) -> float:
    """Read a list; return the CPU of each item."""
    listing: Any = _Listing(count)
    began, found = time.process_time(), 0
    async for _ in candidates_endpoint(listing).list():
        found += 1
        if found == count:
            break
    assert found == count
    return (time.process_time() - began) / count


def _listed(few: int, many: int) -> Iterator[Figure]:
    cost, held = dict[int, float](), 0.0
    for count in (few, many):
        cost[count], held = min(_run(partial(_read, count)) for _ in range(3))
    yield _ratio("items of a list", few, many, cost)
    yield _held(f"{many:,} items of a list", held)
    tracemalloc.start()
    asyncio.run(_read(many))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    yield Figure(f"{many:,} items of a list, read one by one: memory", f"{peak / 1e6:.1f} MB")


_AT_ONCE = 500


def _event(number: int) -> StoredEvent:
    return event(f"k{number}", subjects=(f"s{number}",), state="completed")


async def _store(path: Path, count: int) -> float:
    """Put, claim and end so many events; return the CPU of each."""
    inbox = SQLiteInbox(path, synchronous="NORMAL")
    began = time.process_time()
    for first in range(0, count, _AT_ONCE):
        numbers = range(first, first + _AT_ONCE)
        await asyncio.gather(*(inbox.put(_event(number)) for number in numbers))
    ended = 0
    while ended < count:
        claims = await inbox.claim("", [], limit=_AT_ONCE, lease=60.0)
        await inbox.report([ClaimReport(claimed=claimed) for claimed in claims.events])
        ended += len(claims.events)
    each = (time.process_time() - began) / count
    await inbox.aclose()
    return each


async def _prune(path: Path, count: int) -> float:
    """Forget all of them; return the CPU of each."""
    inbox = SQLiteInbox(path)
    began = time.process_time()
    assert await inbox.prune(older_than=0.0) == count - 1  # the newest keeps its number
    each = (time.process_time() - began) / count
    await inbox.aclose()
    return each


def _stored(few: int, many: int) -> Iterator[Figure]:
    cost, pruned = dict[int, float](), dict[int, float]()
    held = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for count in (few, many):
            path = Path(folder) / f"{count}.db"
            cost[count], held = _run(partial(_store, path, count))
            full = path.stat().st_size
            pruned[count], held_pruning = _run(partial(_prune, path, count))
        left = path.stat().st_size
    yield _ratio("events put, claimed and ended in SQLite", few, many, cost)
    yield _ratio("events pruned in SQLite", few, many, pruned)
    yield _held(f"{many:,} events in SQLite", max(held, held_pruning))
    yield Figure(
        f"{many:,} events in SQLite: the file after pruning",
        f"{left / 1e6:.1f} MB",
        detail=f"{full / 1e6:.0f} MB before",
        ok=left < full / 10,
        target="< a tenth",
    )
