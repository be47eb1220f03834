"""The life cycle of a receiver: starts, closes and cancellations in any order, at any moment."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gather_async.errors import ClientClosedError
from gather_async.webhooks import MemoryInbox, WebhookEvent, WebhookReceiver, sample

SECRET = "s3cret"


class Store(MemoryInbox):
    """An inbox that takes some turns of the loop to open and to close, or fails at it."""

    is_shared: Any = True
    is_open = hangs = False
    turns = 0
    fails_to_open = fails_to_close = fails_to_count = False

    async def open(self) -> None:
        """Open, within some turns; one that is cancelled later may be open all the same."""
        await self._pass()
        self.is_open = True
        await self._pass()
        if self.fails_to_open:
            raise OSError("disk I/O error")

    async def aclose(self) -> None:
        """Close, unless that is cancelled first."""
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        self.is_open = False
        if self.fails_to_close:
            raise OSError("disk I/O error")

    async def counts(self) -> Any:
        """Fail, or count."""
        if self.fails_to_count:
            raise OSError("disk I/O error")
        return await super().counts()

    async def _pass(self) -> None:
        for _ in range(self.turns):
            await asyncio.sleep(0)


@pytest.fixture
def store() -> Store:
    """Return an inbox."""
    return Store()


async def status(hooks: WebhookReceiver) -> int:
    """Return the status of the answer to a new delivery."""
    delivery = sample("interview.updated", secret=SECRET)
    return (await hooks.receive(delivery.body, delivery.headers)).status


async def passing(turns: int) -> None:
    """Let the loop turn."""
    for _ in range(turns):
        await asyncio.sleep(0)


def workers() -> int:
    """Return how many workers run."""
    return sum(each.get_name() == "webhook worker" for each in asyncio.all_tasks())


@pytest.mark.parametrize("turns", range(1, 13))
async def test_closed_while_the_inbox_is_opened(store: Store, turns: int) -> None:
    """A close during a start leaves nothing open once it returns, whenever it comes."""
    store.turns = 4
    hooks = WebhookReceiver(SECRET, inbox=store)
    starting = asyncio.create_task(hooks.start())
    await passing(turns)
    await hooks.aclose()
    assert (store.is_open, hooks.alive, workers()) == (False, False, 0)
    await starting
    assert (store.is_open, hooks.alive, await status(hooks)) == (False, False, 503)


@pytest.mark.parametrize("turns", range(1, 14))
async def test_cancelled_start_changes_nothing(store: Store, turns: int) -> None:
    """It runs, or all is as it was before: a closed receiver is closed, with nothing open."""
    store.turns = 4
    hooks = WebhookReceiver(SECRET, inbox=store)
    for before in ("not started", "closed"):
        starting = asyncio.create_task(hooks.start())
        await passing(turns)
        starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled() is not hooks.alive
        assert store.is_open is hooks.alive
        assert before in repr(hooks) or hooks.alive
        await hooks.aclose()


async def test_failed_start_changes_nothing(store: Store) -> None:
    """A closed receiver that can't start again refuses deliveries, a new one takes them."""
    hooks = WebhookReceiver(SECRET, inbox=store)
    for expected in (200, 503):
        store.fails_to_open = True
        with pytest.raises(OSError, match="disk"):
            await hooks.start()
        assert (store.is_open, await status(hooks)) == (False, expected)
        store.fails_to_open = False
        async with hooks:
            assert await status(hooks) == 200


async def test_failed_start_keeps_what_memory_holds() -> None:
    """An inbox that ends with its process isn't closed by a start that failed."""
    store = Store()
    store.is_shared = False
    store.fails_to_open = True
    with pytest.raises(OSError, match="disk"):
        await WebhookReceiver(SECRET, inbox=store).start()
    assert store.is_open


@pytest.mark.parametrize("fault", ["fails_to_close", "fails_to_count"])
async def test_failed_close_is_a_close(store: Store, fault: str) -> None:
    """Whatever fails on the way, the inbox is closed, deliveries are refused, and it may start."""
    hooks = WebhookReceiver(SECRET, inbox=store)
    store.is_shared = fault == "fails_to_close"
    await hooks.start()
    setattr(store, fault, True)
    with pytest.raises(OSError, match="disk"):
        await hooks.aclose()
    assert (store.is_open, workers(), await status(hooks)) == (False, 0, 503)
    setattr(store, fault, False)
    async with hooks:
        assert await status(hooks) == 200


async def test_cancelled_close_is_a_close(store: Store) -> None:
    """A close that is cancelled while it waits for handlers closes the inbox all the same."""
    hooks, began = WebhookReceiver(SECRET, inbox=store), asyncio.Event()
    store.turns = 2

    @hooks.on("*")
    async def endless(_: WebhookEvent) -> None:
        began.set()
        await asyncio.Event().wait()

    await hooks.start()
    assert await status(hooks) == 200
    await began.wait()
    closing = asyncio.create_task(hooks.aclose())
    await passing(3)
    assert "closing" in repr(hooks)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert (store.is_open, workers(), await status(hooks)) == (False, 0, 503)


async def test_no_start_while_it_closes(store: Store) -> None:
    """A close ends before the next start begins: it would close the inbox of that one."""
    hooks = WebhookReceiver(SECRET, inbox=store)
    await hooks.start()
    closing = [asyncio.create_task(hooks.aclose())]
    await asyncio.sleep(0)
    closing.append(asyncio.create_task(hooks.aclose()))
    while not all(each.done() for each in closing):
        for begin in (hooks.start, hooks.lifespan().__aenter__):
            with pytest.raises(ClientClosedError, match="closing"):
                await begin()
        await asyncio.sleep(0)
    async with hooks.lifespan():
        assert (hooks.alive, store.is_open) == (True, True)


async def test_taken_over_while_the_inbox_is_opened(store: Store) -> None:
    """What a delivery began to start is the user's by `start`, though the delivery is cancelled."""
    store.turns = 4
    hooks = WebhookReceiver(SECRET, inbox=store)
    delivering = asyncio.create_task(hooks.ensure_started())
    await passing(2)
    starting = asyncio.create_task(hooks.start())
    await passing(2)
    delivering.cancel()
    await starting
    assert hooks.alive
    with pytest.raises(ClientClosedError, match="running already"):
        await hooks.start()
    await hooks.aclose()


async def test_a_delivery_that_gives_up_starts_it(store: Store) -> None:
    """A sender that hangs up doesn't end the start that others wait for."""
    store.turns = 4
    hooks = WebhookReceiver(SECRET, inbox=store)
    delivering = asyncio.create_task(hooks.ensure_started())
    await passing(2)
    delivering.cancel()
    await passing(20)
    assert hooks.alive
    await hooks.aclose()


async def test_failure_of_a_start_by_a_delivery_is_reported_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, unless the user's `start` took it over, which raises it."""
    store.turns, store.fails_to_open = 4, True
    hooks = WebhookReceiver(SECRET, inbox=store)
    with caplog.at_level(logging.ERROR, "gather_async.webhooks"):
        delivering = asyncio.create_task(hooks.ensure_started())
        await passing(2)
        with pytest.raises(OSError, match="disk"):
            await hooks.start()
        assert not await delivering
        assert caplog.messages == []
        assert not await hooks.ensure_started()
    assert caplog.messages == ["The webhook receiver can't start: disk I/O error"]


def test_loop_that_ended_within_a_close(store: Store) -> None:
    """It leaves a receiver that is closed, and may start again."""
    hooks = WebhookReceiver(SECRET, inbox=store)
    store.hangs = True
    loop = asyncio.new_event_loop()
    loop.run_until_complete(hooks.start())
    call = hooks.aclose()
    closing = loop.create_task(call)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert "closing" in repr(hooks)
    loop.close()
    store.hangs = False

    async def again() -> None:
        assert await status(hooks) == 503
        async with hooks:
            assert await status(hooks) == 200
            call.close()  # as the garbage of the other loop is collected
            assert hooks.alive

    asyncio.run(again())
    assert "closed" in repr(hooks)
    assert not closing.done()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "deliver", "close", "cancel", "break", "mend"]),
        st.integers(0, 7),
    ),
    max_size=12,
)


@given(STEPS, st.integers(0, 3))
@example([("start", 1), ("close", 1), ("cancel", 1), ("cancel", 0)], 0)
@example([("close", 1), ("start", 1), ("cancel", 1), ("cancel", 0)], 0)
def test_any_order(steps: list[tuple[str, int]], turns: int) -> None:
    """After any calls and cancellations it runs with an open inbox, or nothing of it is left."""
    asyncio.run(_carry_out(steps, turns))


async def _carry_out(steps: list[tuple[str, int]], turns: int) -> None:
    store, calls = Store(), list[asyncio.Task[Any]]()
    store.turns = turns
    hooks = WebhookReceiver(SECRET, inbox=store)
    does: dict[str, Callable[[], Awaitable[Any]]] = {
        "start": hooks.start,
        "deliver": hooks.ensure_started,
        "close": hooks.aclose,
    }
    for step, pause in steps:
        if step in does:
            calls.append(asyncio.ensure_future(does[step]()))
        elif step == "cancel" and calls:
            calls[-1].cancel()
        elif step != "cancel":
            store.fails_to_open = store.fails_to_close = step == "break"
        await passing(pause)
    store.fails_to_close = store.fails_to_open = False
    await asyncio.gather(*calls, return_exceptions=True)
    await passing(30)  # a start goes on without the delivery that began it
    state = repr(hooks).split(", ", 1)[0].removeprefix("<WebhookReceiver ")
    assert state in ("not started", "running", "closed")
    assert workers() == hooks.alive == (state == "running")
    assert store.is_open or not hooks.alive
    assert not store.is_open or state != "closed"
    await hooks.aclose()
    assert (store.is_open, workers(), await status(hooks)) == (False, 0, 503)
    async with hooks:
        assert (store.is_open, workers(), await status(hooks)) == (True, 1, 200)
