"""Webhooks: deliveries a second through ``receive``, and how soon the answer comes."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.figure import Figure
from gather_async.webhooks import (
    Inbox,
    MemoryInbox,
    SignedSample,
    SQLiteInbox,
    WebhookEvent,
    WebhookReceiver,
    sample,
)

SECRET = "benchmark"
CONCURRENCY = 100


def deliveries(count: int) -> list[SignedSample]:
    """Return distinct signed deliveries."""
    return [sample("candidate_interview.completed", secret=SECRET) for _ in range(count)]


async def send_all(hooks: WebhookReceiver, samples: Iterable[SignedSample]) -> list[float]:
    """Deliver all, 100 at once; return how long each answer took, in seconds."""
    queue, waits = iter(samples), list[float]()

    async def send() -> None:
        for each in queue:
            start = time.perf_counter()
            reply = await hooks.receive(each.body, each.headers)
            waits.append(time.perf_counter() - start)
            assert reply.status == 200

    await asyncio.gather(*(send() for _ in range(CONCURRENCY)))
    return waits


async def rate(inbox: Inbox, count: int) -> float:
    """Return verified and stored deliveries a second, with a handler registered, not yet run."""
    hooks = WebhookReceiver(SECRET, inbox=inbox)

    @hooks.on("*")
    async def handle(event: WebhookEvent) -> None:
        """Do nothing."""

    samples = deliveries(count)
    start = time.perf_counter()
    await send_all(hooks, samples)
    taken = time.perf_counter() - start
    await inbox.aclose()
    return count / taken


async def reply_p99(inbox: Inbox) -> float:
    """Return the 99th percentile of the answer, in ms, while ten handlers sleep for 10 s."""
    hooks = WebhookReceiver(SECRET, inbox=inbox)

    @hooks.on("*")
    async def slow(event: WebhookEvent) -> None:
        await asyncio.sleep(10)

    await hooks.start()
    waits = sorted(await send_all(hooks, deliveries(2000)))
    closing = asyncio.create_task(hooks.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    return waits[int(len(waits) * 0.99)] * 1000


def figures() -> Iterator[Figure]:
    """Measure, and give each figure as it is there."""
    with tempfile.TemporaryDirectory() as folder:
        files = (SQLiteInbox(Path(folder) / f"{n}.db") for n in range(3))
        memory = asyncio.run(rate(MemoryInbox(), 5000))
        yield Figure("webhooks received, MemoryInbox", f"{memory:,.0f} /s")
        sqlite = asyncio.run(rate(next(files), 5000))
        yield Figure("webhooks received, SQLiteInbox, fsync", f"{sqlite:,.0f} /s")
        for name, inbox in (("MemoryInbox", MemoryInbox()), ("SQLiteInbox", next(files))):
            p99 = asyncio.run(reply_p99(inbox))
            label = f"webhook reply p99, 10 s handlers, {name}"
            yield Figure(label, f"{p99:.1f} ms", "<= 50 ms", p99 <= 50)


if __name__ == "__main__":
    for figure in figures():
        print(figure)
