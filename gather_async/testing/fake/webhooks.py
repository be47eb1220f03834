"""Signed deliveries: three attempts, five seconds each.

Source: /api-reference/webhooks
"""

import asyncio
from collections.abc import Collection, Generator, Mapping
from typing import Any, Self

import aiohttp
from attrs import define, field, frozen

from gather_async.clock import Clock
from gather_async.protocol.signatures import sign
from gather_async.testing.fake.messages import encode
from gather_async.testing.fake.state import Closing, Sleeps, iso

__all__ = ["Delivery", "WebhookTarget", "Webhooks"]

_WAITS = (0.0, 60.0, 300.0)  # before each attempt
_TIME_LIMIT = 5.0


@frozen
class Delivery:
    """One attempt to deliver one event.

    Attributes:
        event: The event's name.
        attempt: 1 to 3.
        at: Unix seconds of its start, on the server's clock.
        status: What the receiver answered; None if it didn't, or not within 5 seconds.
        body: The bytes sent; the same for each attempt.
    """

    event: str
    attempt: int
    at: float
    status: int | None
    body: bytes = field(repr=False)

    @property
    def was_accepted(self) -> bool:
        """Whether the receiver answered 2xx."""
        return self.status is not None and 200 <= self.status < 300


@define(eq=False)
class WebhookTarget:
    """One URL that receives events. Awaiting it returns it at once.

    Attributes:
        url: Where deliveries go.
        events: Names of the events it wants.
        deliveries: Attempts that are over, in their order.
    """

    url: str
    events: Collection[str]
    _secret: str = field(repr=False)
    _signs_anew: bool = field(repr=False)
    deliveries: list[Delivery] = field(factory=list, repr=False)
    _pending: set[asyncio.Task[None]] = field(factory=set, repr=False)

    async def wait_until_settled(self) -> None:
        """Return once every event so far is delivered or given up."""
        while self._pending:
            await asyncio.wait(set(self._pending))

    def __await__(self) -> Generator[Any, None, Self]:
        return self._itself().__await__()

    async def _itself(self) -> Self:
        return self


class Webhooks:
    """Sends events to all targets. Its session opens with the first delivery."""

    def __init__(self, clock: Clock, sleeps: Sleeps) -> None:
        self._clock = clock
        self._sleeps = sleeps
        self._targets: list[WebhookTarget] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._postings: set[asyncio.Task[int | None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def add(self, target: WebhookTarget) -> None:
        """Add a target of the events that happen from now on."""
        self._targets.append(target)

    @property
    def has_targets(self) -> bool:
        """Whether events have a target."""
        return bool(self._targets)

    def emit(self, event: str, data: Mapping[str, Any]) -> None:
        """Start the deliveries of an event that happened just now."""
        targets = [target for target in self._targets if event in target.events]
        if not targets:
            return
        timestamp = iso(self._clock.wall())
        body = encode({"event": event, "timestamp": timestamp, "data": data})
        for target in targets:
            self.send(target, event, body)

    def send(self, target: WebhookTarget, event: str, body: bytes) -> None:
        """Start the delivery of a body of your own."""
        task = asyncio.create_task(self._deliver(target, event, body))
        for tasks in (self._tasks, target._pending):  # noqa: SLF001 - kept for the target
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _deliver(self, target: WebhookTarget, event: str, body: bytes) -> None:
        """Try up to three times."""
        timestamp = str(int(self._clock.wall()))
        for attempt, wait in enumerate(_WAITS, start=1):
            if wait:
                try:
                    await self._sleeps.sleep(wait)
                except Closing:
                    return
            if target._signs_anew:  # noqa: SLF001 - an option that the target carries
                timestamp = str(int(self._clock.wall()))
            at = self._clock.wall()
            status = await self._post(target, timestamp, body)
            delivery = Delivery(event, attempt, at, status, body)
            target.deliveries.append(delivery)
            if delivery.was_accepted:
                return

    async def _post(self, target: WebhookTarget, timestamp: str, body: bytes) -> int | None:
        """Post once; returns the status, or None if none came in time."""
        posting = asyncio.create_task(self._exchange(target, timestamp, body))
        self._postings.add(posting)
        posting.add_done_callback(self._postings.discard)
        timer = self._clock.call_later(_TIME_LIMIT, posting.cancel)
        try:
            await asyncio.wait([posting])
        finally:
            timer.cancel()
            posting.cancel()
        return None if posting.cancelled() else posting.result()

    async def _exchange(self, target: WebhookTarget, timestamp: str, body: bytes) -> int | None:
        signature = sign(body, secret=target._secret, timestamp=timestamp)  # noqa: SLF001 - as above
        headers = {"Content-Type": "application/json", "X-Qualifi-Signature": signature}
        try:
            async with self._opened().post(
                target.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return response.status
        except (aiohttp.ClientError, OSError):
            return None

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout()
            )
        return self._session

    async def aclose(self) -> None:
        """Give up every delivery and close the session."""
        tasks = (*self._tasks, *self._postings)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()
