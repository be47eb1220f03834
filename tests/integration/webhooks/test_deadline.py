"""One deadline for the whole answer: it leaves before the sender, who waits for 5 s, hangs up."""

import asyncio
import gc
import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from gather_async.protocol import signatures
from gather_async.testing import VirtualClock
from gather_async.webhooks import MemoryInbox, SignedSample, WebhookReceiver, WebhookReply, sample

SECRET = "s3cret"
DEADLINE = 4.0


class Hanging(MemoryInbox):
    """An inbox that opens, or stores, once it is let."""

    def __init__(self, *, opens: bool = True) -> None:
        super().__init__()
        self.going_on = asyncio.Event()
        self.opens = opens

    async def open(self) -> None:
        """Open, perhaps at once."""
        if not self.opens:
            await self.going_on.wait()

    async def put(self, *arguments: Any, **options: Any) -> Any:
        """Store, and return once it is let."""
        taken = await super().put(*arguments, **options)
        await self.going_on.wait()
        return taken


@pytest.fixture
def clock() -> VirtualClock:
    """Return a clock whose time passes by itself."""
    return VirtualClock()


def signed(clock: VirtualClock, **data: Any) -> SignedSample:
    """Return a delivery that is signed now."""
    at = datetime.fromtimestamp(clock.wall(), UTC)
    return sample("interview.updated", secret=SECRET, data=data, at=at)


async def receive(
    hooks: WebhookReceiver, delivery: SignedSample, headers: Mapping[str, str] | None = None
) -> WebhookReply:
    """Deliver to a tenant, if there are tenants."""
    return await hooks.receive(delivery.body, headers or delivery.headers, tenant="acme")


def reason(reply: WebhookReply) -> str:
    """Return why the sender shall try again."""
    assert (reply.status, reply.headers["retry-after"]) == (503, "60")
    return str(json.loads(reply.body)["reason"])


async def test_storage_that_hangs(clock: VirtualClock) -> None:
    """An inbox that takes longer than the sender waits is answered in time, with 503."""
    hooks, began = WebhookReceiver(SECRET, inbox=Hanging(), clock=clock), clock.monotonic()
    assert reason(await receive(hooks, signed(clock))) == "inbox_not_writable"
    assert clock.monotonic() == began + DEADLINE


async def test_slow_secrets_leave_the_storage_the_rest(clock: VirtualClock) -> None:
    """The look-up of the secret and the storing of the event share the time that there is."""

    async def slow(_: str) -> str:
        await clock.sleep(3.0)
        return SECRET

    began = clock.monotonic()
    hooks = WebhookReceiver(secrets=slow, inbox=Hanging(), clock=clock)
    assert reason(await receive(hooks, signed(clock))) == "inbox_not_writable"
    assert clock.monotonic() == began + DEADLINE


async def test_slow_start_leaves_the_rest(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A delivery that starts the receiver has no more time than others; the start goes on."""
    inbox = Hanging(opens=False)
    hooks, delivery = WebhookReceiver(SECRET, inbox=inbox, clock=clock), signed(clock)
    answers = list[Any]()

    async def body() -> dict[str, Any]:
        return {"type": "http.request", "body": delivery.body}

    async def answer(message: Any) -> None:
        answers.append(message)

    headers = [(name.encode(), value.encode()) for name, value in delivery.headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    began = clock.monotonic()
    await hooks.asgi()(scope, body, answer)
    assert clock.monotonic() == began + DEADLINE
    assert (answers[0]["status"], json.loads(answers[1]["body"])["reason"]) == (503, "not_started")
    assert not hooks.alive
    assert "isn't open yet" in caplog.text
    inbox.going_on.set()
    await clock.sleep(1.0)
    assert hooks.alive
    assert (await hooks.start_and_receive(delivery.body, delivery.headers)).status == 200
    await hooks.aclose()


async def test_large_bodies_that_wait_for_others(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A large body whose turn doesn't come is answered in time; one at a time is looked at."""
    going_on, began, active, peak = threading.Event(), asyncio.Event(), 0, 0
    verify, loop = signatures.verify_stringified, asyncio.get_running_loop()

    def slow_verify(*arguments: Any, **options: Any) -> Any:
        nonlocal active, peak
        active += 1
        peak = max(peak, active)
        loop.call_soon_threadsafe(began.set)
        going_on.wait()
        active -= 1
        return verify(*arguments, **options)

    monkeypatch.setattr(signatures, "verify_stringified", slow_verify)
    hooks, large = WebhookReceiver(SECRET, clock=clock), signed(clock, text="x" * 100_000)
    forged = {"x-qualifi-signature": signatures.sign(b"", secret="other", timestamp="1767225600")}
    waiting = [asyncio.create_task(receive(hooks, large, forged)) for _ in range(3)]
    await began.wait()
    clock.jump(DEADLINE)
    assert {reason(reply) for reply in await asyncio.gather(*waiting)} == {"too_busy"}
    last = asyncio.create_task(receive(hooks, large, forged))
    assert (await receive(hooks, large)).status == 200
    going_on.set()
    assert (await last).status == 401
    assert peak == 1
    await hooks.aclose()
    gc.collect()
    assert "never retrieved" not in caplog.text
