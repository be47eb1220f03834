"""Signals through Redis: events of one process wake the waits of another."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis, RedisCluster

from gather_async import RateLimit
from gather_async.clock import SystemClock
from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.redis import RedisInbox, RedisSignals
from gather_async.testing import FakeGather
from gather_async.webhooks import WebhookReceiver, sample
from tests.servers import RedisServer

SECRET = "whsec_test"
AUDIO = "question.audio_generated"
CHANNEL = "gather:signals:webhooks"


class Ear:
    """A listener that remembers what it was called with."""

    def __init__(self, signals: RedisSignals) -> None:
        self.events: list[tuple[str, frozenset[str]]] = []
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.end = signals.subscribe(self)

    def __call__(self, event: str, ids: frozenset[str]) -> None:
        """Remember an event."""
        self.events.append((event, ids))
        self._loop.call_soon_threadsafe(self._news.set)

    async def wait_for(self, count: int) -> None:
        """Return once so many events were received."""
        async with asyncio.timeout(10):
            while len(self.events) < count:
                self._news.clear()
                await self._news.wait()


class _Ahead(SystemClock):
    """A clock that can be put forward."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        """Return real seconds, and those that it is ahead."""
        return time.monotonic() + self.seconds


class _Stopped(SystemClock):
    """The clock of a process that does nothing any more."""

    async def sleep(self, seconds: float) -> None:
        """Sleep for ever."""
        await asyncio.Event().wait()


async def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it is another process's, or thread's
            await asyncio.sleep(0.005)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What closes at the end of the test."""
    async with AsyncExitStack() as stack:
        yield stack


async def test_every_process_hears_of_every_event(redis_url: str, stack: AsyncExitStack) -> None:
    """What one publishes all get, itself included, once each and in order."""
    boxes = [await stack.enter_async_context(RedisSignals(redis_url)) for _ in range(3)]
    ears = [Ear(box) for box in boxes]
    for n in range(500):
        boxes[0].publish(AUDIO, {f"q{n}"})
    for ear in ears:
        await ear.wait_for(500)
        assert ear.events == [(AUDIO, frozenset({f"q{n}"})) for n in range(500)]
    ears[1].end()
    boxes[2].publish("x", ())
    await ears[0].wait_for(501)
    assert ears[0].events[-1] == ("x", frozenset())
    assert len(ears[1].events) == 500


async def test_it_is_alive_while_a_receiver_lives(redis_url: str, stack: AsyncExitStack) -> None:
    """Signals are alive from the start of a receiver anywhere to the end of the last one."""
    hooks = WebhookReceiver(SECRET)
    waiter = await stack.enter_async_context(RedisSignals(redis_url, beat=0.05))
    async with RedisSignals(redis_url, beat=0.05, receivers=[hooks]) as signals:
        assert not waiter.alive
        async with hooks:
            await until(lambda: waiter.alive and signals.alive)
            async with RedisSignals(redis_url, beat=600) as late:
                # It receives the next beat.
                await until(lambda: late.alive)
        await until(lambda: not waiter.alive)
        assert not signals.alive
    assert not signals.alive


async def test_it_is_not_alive_after_a_receiver_was_killed(
    redis_url: str, stack: AsyncExitStack
) -> None:
    """Without a goodbye a receiver is believed for two beats and a half, and no longer."""
    clock, stopped = _Ahead(), _Stopped()
    waiter = await stack.enter_async_context(RedisSignals(redis_url, clock=clock))
    killed = await stack.enter_async_context(RedisSignals(redis_url, clock=stopped))
    killed.publish(AUDIO, {"q"})
    await until(lambda: waiter.alive)
    clock.seconds += 4.0
    assert waiter.alive
    clock.seconds += 1.0
    assert not waiter.alive


async def test_events_of_receivers_in_other_threads(redis_url: str, stack: AsyncExitStack) -> None:
    """Loops in several threads publish at the same time, and lose nothing."""
    signals = await stack.enter_async_context(RedisSignals(redis_url))
    other = await stack.enter_async_context(RedisSignals(redis_url))
    ear, own = Ear(other), Ear(signals)

    async def publish_in_a_loop(n: int) -> None:
        for m in range(50):
            signals.publish(AUDIO, {f"{n}/{m}"})
            await asyncio.sleep(0)

    threads = [
        threading.Thread(target=lambda n=n: asyncio.run(publish_in_a_loop(n))) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    await ear.wait_for(300)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(set(ear.events)) == len(own.events) == 300


async def test_nothing_runs_after_the_end(redis_url: str, stack: AsyncExitStack) -> None:
    """After it was closed it publishes nothing, beats no more, and may start again."""
    other = await stack.enter_async_context(RedisSignals(redis_url))
    signals = RedisSignals(redis_url)
    ear = Ear(signals)
    signals.publish(AUDIO, {"before"})
    async with signals:
        with pytest.raises(ClientClosedError):
            await signals.start()
        signals.publish(AUDIO, {"q"})
        await ear.wait_for(1)
        await until(lambda: other.alive)
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "RedisSignals"]
    assert len(tasks) == 1
    await until(lambda: not other.alive)
    signals.publish(AUDIO, {"after"})
    await signals.aclose()
    async with signals:
        signals.publish(AUDIO, {"again"})
        await ear.wait_for(2)
    assert [ids for _, ids in ear.events] == [{"q"}, {"again"}]


async def test_a_cancelled_start_leaves_nothing(redis_url: str) -> None:
    """Wherever the start or the stay is cancelled, all ends at once."""

    async def stay() -> None:
        async with RedisSignals(redis_url) as signals:
            signals.publish(AUDIO, {"q"})
            await asyncio.sleep(3600)

    for steps in range(60):
        task = asyncio.create_task(stay())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done == {task}
        assert task.cancelled()
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert "RedisSignals" not in names


async def test_closing_while_the_connection_breaks(redis_url: str) -> None:
    """It ends at once, though its connection is lost at that very moment."""
    async with Redis.from_url(redis_url) as redis:
        for steps in range(40):
            signals = RedisSignals(redis_url)
            await signals.start()
            await redis.client_kill_filter(_type="pubsub")
            for _ in range(steps):
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await signals.aclose()
    assert "RedisSignals" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_server_that_goes_and_comes(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the server nothing is alive, and own events still come; one log line each way."""
    with caplog.at_level(logging.INFO, "gather_async"):
        async with (
            RedisSignals(redis_url) as waiter,
            RedisSignals(redis_url) as receiver,
        ):
            ear, own = Ear(waiter), Ear(receiver)
            receiver.publish(AUDIO, {"before"})
            await ear.wait_for(1)
            redis_server.stop()
            await until(lambda: not waiter.alive and not receiver.alive)
            receiver.publish(AUDIO, {"meanwhile"})
            await own.wait_for(2)
            redis_server.start()
            await until(lambda: waiter.alive)
            # What was missed makes every wait poll once.
            assert (AUDIO, frozenset()) in ear.events
            assert ("candidate_interview.completed", frozenset()) in own.events
    lines = [(each.levelname, each.getMessage().rpartition(" is ")[2]) for each in caplog.records]
    assert [line for line in lines if line[0] == "INFO"] == [("INFO", "there again")] * 2
    assert len([line for line in lines if line[0] == "WARNING"]) == 2
    fields = [vars(each) for each in caplog.records]
    assert {each["gather_place"] for each in fields} == {f"Redis at 127.0.0.1:{redis_server.port}"}
    assert all(("gather_error" in each) is (each["levelname"] == "WARNING") for each in fields)


async def test_no_server_at_the_start() -> None:
    """A server that is away doesn't keep a program from starting, and no password is logged."""
    async with RedisSignals("redis://:hunter2@127.0.0.1:1/0") as signals:
        assert not signals.alive
        assert "hunter2" not in repr(signals)


async def test_messages_of_others_are_passed_over(redis_url: str, stack: AsyncExitStack) -> None:
    """What isn't a message of signals on the channel disturbs nothing."""
    signals = await stack.enter_async_context(RedisSignals(redis_url))
    ear = Ear(signals)
    good = {"from": "x", "for": 5, "events": [["e", ["i"]]]}
    async with Redis.from_url(redis_url) as redis:
        for text in ("", "{", "[]", "{}", "null", '{"from": 1, "for": "x", "events": []}'):
            assert await redis.publish(CHANNEL, text) == 1
        await redis.publish(CHANNEL, json.dumps(good))
    await ear.wait_for(1)
    assert ear.events == [("e", frozenset({"i"}))]
    assert signals.alive


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 2}, {"protocol": 3}])
async def test_a_lent_client(options: dict[str, Any], redis_url: str) -> None:
    """A client of either protocol, which may decode replies, will do, and stays open."""
    async with Redis.from_url(redis_url, **options) as client:
        async with RedisSignals(client, beat=0.02) as signals:
            async with RedisSignals(redis_url) as other:
                ear = Ear(signals)
                for n in range(20):  # answers to pings come meanwhile
                    other.publish(AUDIO, {f"q{n}"})
                    await ear.wait_for(n + 1)
                    await asyncio.sleep(0.01)
            assert len(ear.events) == 20
        assert await client.ping()


async def test_a_shared_inbox_is_not_published_again(redis_url: str, stack: AsyncExitStack) -> None:
    """What a shared inbox shows to another receiver is not published a second time."""
    boxes = []
    for _ in range(2):
        hooks = WebhookReceiver(SECRET, inbox=RedisInbox(redis_url))
        signals = RedisSignals(redis_url, receivers=[hooks])
        boxes.append((await stack.enter_async_context(signals), hooks))
        await stack.enter_async_context(hooks)
    waiter = await stack.enter_async_context(RedisSignals(redis_url))
    ears = [Ear(waiter), *(Ear(signals) for signals, _ in boxes)]
    for n, (_, hooks) in enumerate(boxes * 2):
        delivery = sample(AUDIO, secret=SECRET, data={"question": {"id": f"q{n}"}})
        await hooks.receive(delivery.body, delivery.headers)
    last = len(ears[0].events)
    position = (await boxes[0][1].inbox.published(None)).position
    assert position == 4
    for ear in ears:
        await ear.wait_for(4)
    # By then each worker has polled the inbox for events of the other.
    await until(lambda: all(hooks._worker._position == 4 for _, hooks in boxes))
    boxes[0][0].publish("last", ())
    for ear in ears:
        await ear.wait_for(5)
        assert len(ear.events) == 5, last


RECEIVER = """
import asyncio, socket, sys
from aiohttp import web
from gather_async.redis import RedisSignals
from gather_async.webhooks import WebhookReceiver
async def main():
    hooks = WebhookReceiver("whsec_test")
    app = web.Application()
    app.router.add_post("/", hooks.aiohttp_handler())
    runner = web.AppRunner(app)
    async with RedisSignals(sys.argv[1], receivers=[hooks]), hooks:
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        print(listening.getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()
asyncio.run(main())
"""


async def test_a_webhook_of_another_process_wakes_a_wait(
    redis_server: RedisServer, redis_url: str, stack: AsyncExitStack
) -> None:
    """A delivery to one process ends a wait in another within 0.2 s; without Redis, polls do."""
    with subprocess.Popen(  # noqa: ASYNC220 - it lives as long as the test
        [sys.executable, "-c", RECEIVER, redis_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as receiver:
        assert receiver.stdout is not None
        port = int(receiver.stdout.readline())
        signals = await stack.enter_async_context(RedisSignals(redis_url))
        fake = await stack.enter_async_context(FakeGather(audio_seconds=3600.0))
        gather = await stack.enter_async_context(
            fake.client(
                signals=signals,
                user_id=fake.user_id,
                rate_limits=[RateLimit(10_000, per=60)],
            )
        )
        http = await stack.enter_async_context(aiohttp.ClientSession())
        await until(lambda: signals.alive)
        delays = []
        for _ in range(5):
            question = await gather.questions.create(title="q", question_script="s")
            fake.clear_requests()
            waiting = asyncio.ensure_future(gather.questions.wait_until_audio_ready(question))
            await until(lambda: bool(fake.requests))
            fake.finish_audio(question.id)
            delivery = sample(AUDIO, secret=SECRET, data={"question": {"id": question.id}})
            began = time.perf_counter()
            async with http.post(
                f"http://127.0.0.1:{port}/", data=delivery.body, headers=delivery.headers
            ) as response:
                assert response.status == 200
            await waiting
            delays.append(time.perf_counter() - began)
            assert len(fake.requests) == 2
        assert sorted(delays)[2] < 0.2
        redis_server.stop()
        await until(lambda: not signals.alive)
        question = await gather.questions.create(title="q", question_script="s")
        waiting = asyncio.ensure_future(gather.questions.wait_until_audio_ready(question))
        fake.finish_audio(question.id)
        assert (await waiting).audio_url is not None
        receiver.stdin.close()  # type: ignore[union-attr]  # it is a pipe


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"beat": 0},
        {"redis": "file:x"},
        {"redis": RedisCluster(host="127.0.0.1")},
        {"receivers": WebhookReceiver(SECRET)},
        {"receivers": ["hooks"]},
    ],
)
def test_wrong_arguments_are_reported_at_once(wrong: dict[str, Any]) -> None:
    """An argument that can't work is refused at construction."""
    with pytest.raises(ConfigurationError):
        RedisSignals(**{"redis": "redis://127.0.0.1/0", **wrong})
