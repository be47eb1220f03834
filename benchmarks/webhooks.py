"""Webhooks: deliveries a second through ``receive``, and how soon the answer comes."""

import asyncio
import contextlib
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.figure import Figure
from gather_async.postgres import PostgresInbox
from gather_async.redis import RedisInbox
from gather_async.webhooks import (
    Inbox,
    MemoryInbox,
    SignedSample,
    SQLiteInbox,
    WebhookEvent,
    WebhookReceiver,
    sample,
    verify,
)
from tests.servers import PostgresServer, RedisServer

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


async def handled(inbox: Inbox, count: int) -> float:
    """Return deliveries a second until each was handled, by a handler that does nothing."""
    hooks = WebhookReceiver(SECRET, inbox=inbox)
    left, over = count, asyncio.Event()

    @hooks.on("*")
    async def handle(event: WebhookEvent) -> None:
        nonlocal left
        left -= 1
        if not left:
            over.set()

    async with hooks:
        samples = deliveries(count)
        start = time.perf_counter()
        await send_all(hooks, samples)
        await over.wait()
        return count / (time.perf_counter() - start)


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


def by_store(make: Callable[[], Inbox], name: str) -> Iterator[Figure]:
    """Give the deliveries a second of one kind of inbox, whose events two objects share."""
    yield Figure(
        f"webhooks received: {name}",
        f"{asyncio.run(rate(make(), 2000)):,.0f} /s",
        detail="100 senders at once",
    )
    yield Figure(
        f"webhooks received and handled: {name}", f"{asyncio.run(handled(make(), 2000)):,.0f} /s"
    )


@contextlib.contextmanager
def running(server: RedisServer | PostgresServer) -> Iterator[str]:
    """Start a server, and give its URL."""
    try:
        server.start()
        yield server.url
    finally:
        server.delete()


def _verify() -> float:
    """Return the microseconds of one verification, from the quickest of many rounds."""
    one = sample("candidate_interview.completed", secret=SECRET)
    header = one.headers["x-qualifi-signature"]
    seconds = timeit.repeat(lambda: verify(one.body, header, secret=SECRET), number=500, repeat=15)
    return min(seconds) / 500 * 1e6


async def _tenants(*, forged: bool) -> float:
    """Return the CPU of a delivery to one of 500 tenants by path, beside that of one secret."""
    names = [f"t{number}" for number in range(500)]
    hooks = {
        "/": WebhookReceiver(SECRET),
        "/webhooks/gather/t499": WebhookReceiver(secrets={name: SECRET + name for name in names}),
    }
    ratios = list[float]()
    for _ in range(15):
        costs = list[float]()
        for (path, receiver), secret in zip(hooks.items(), (SECRET, f"{SECRET}t499"), strict=True):
            signed_with = "another" if forged else secret
            sent = [sample("interview.updated", secret=signed_with) for _ in range(500)]
            began = time.process_time()
            for each in sent:
                reply = await receiver.receive(each.body, each.headers, path=path)
                assert reply.status == (401 if forged else 200)
            costs.append(time.process_time() - began)
        ratios.append(costs[1] / costs[0])
    return statistics.median(ratios)


def figures() -> Iterator[Figure]:
    """Measure, and give each figure as it is there."""
    yield Figure("webhook verified", f"{_verify():.0f} us")
    for name in ("valid", "forged"):
        ratio = asyncio.run(_tenants(forged=name == "forged"))
        label = f"webhook of one of 500 tenants by path, {name}"
        yield Figure(label, f"{ratio:.2f} x one secret", "<= 1.5", ratio <= 1.5)
    with tempfile.TemporaryDirectory() as folder:
        files = (SQLiteInbox(Path(folder) / f"{n}.db") for n in range(5))
        yield from by_store(MemoryInbox, "MemoryInbox")
        yield from by_store(lambda: next(files), "SQLiteInbox, fsync")
        with running(RedisServer()) as url:
            yield from by_store(lambda: RedisInbox(url), "RedisInbox, no persistence")
        with running(PostgresServer()) as url:
            yield from by_store(lambda: PostgresInbox(url), "PostgresInbox, no fsync")
        for name, inbox in (("MemoryInbox", MemoryInbox()), ("SQLiteInbox", next(files))):
            p99 = asyncio.run(reply_p99(inbox))
            label = f"webhook reply p99, 10 s handlers, {name}"
            yield Figure(label, f"{p99:.1f} ms", "<= 50 ms", p99 <= 50)


if __name__ == "__main__":
    for figure in figures():
        print(figure)
