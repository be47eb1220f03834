"""The inbox on a Redis server: the laws of all inboxes, and what only this one has."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from redis.asyncio import Redis, RedisCluster

from gather_async.errors import ConfigurationError
from gather_async.redis import RedisInbox, RedisSignals
from gather_async.redis.connection import RedisClient, RedisError
from gather_async.testing.inbox_laws import LAWS, Law, event
from gather_async.webhooks import (
    ClaimReport,
    EventState,
    HandlerFailure,
    PutResult,
    sample,
)
from tests.servers import RedisServer

BASE = "gather:{inbox:webhooks}"


class _ClusterServer(RedisServer):
    """A cluster of one server, which refuses keys of different hash tags in one script."""

    def _command(self) -> Sequence[str]:
        return [*super()._command(), "--cluster-enabled", "yes"]

    def start(self) -> None:
        """Start the server, and give it all slots."""
        super().start()
        assert self._send("CLUSTER ADDSLOTSRANGE 0 16383") == b"+OK"
        while self._send("GET x") != b"$-1":
            time.sleep(0.01)  # it is read-only for its first two seconds


@pytest.fixture(scope="module")
def cluster_url(redis_server: RedisServer) -> Iterator[str]:
    """The URL of a cluster."""
    server = _ClusterServer()
    try:
        server.start()
        yield server.url.removesuffix("/0")
    finally:
        server.delete()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the server, which has no data."""
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def inbox(redis_url: str) -> AsyncIterator[RedisInbox]:
    """An empty inbox."""
    inbox = RedisInbox(redis_url)
    yield inbox
    await inbox.aclose()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
async def test_law(law: Law, redis_url: str) -> None:
    """The inbox keeps each law of inboxes, in the server's own time."""
    inbox, other = RedisInbox(redis_url), RedisInbox(redis_url)
    await law(inbox, other, asyncio.sleep)
    await inbox.aclose()
    await other.aclose()


async def test_laws_with_a_lent_client(redis_url: str, cluster_url: str) -> None:
    """A client that decodes replies, or that knows a cluster, will do, and stays open."""
    decoding: RedisClient = Redis.from_url(redis_url, decode_responses=True)
    clients: list[RedisClient] = [decoding, RedisCluster.from_url(cluster_url)]
    # All at once: they wait for leases most of the time.
    await asyncio.gather(*(_keep_laws(client) for client in clients))
    for client in clients:
        assert await client.ping()
        await client.aclose()


async def _keep_laws(client: RedisClient) -> None:
    boxes = [[RedisInbox(client, name=law.__name__) for _ in range(2)] for law in LAWS]
    laws = zip(LAWS, boxes, strict=True)
    await asyncio.gather(*(law(inbox, other, asyncio.sleep) for law, (inbox, other) in laws))
    for pair in boxes:
        for each in pair:
            await each.aclose()


async def _claim(inbox: RedisInbox, **options: Any) -> list[str]:
    defaults: dict[str, Any] = {"receiver": "", "handlers": (), "limit": 10, "lease": 60.0}
    return [each.event.key for each in (await inbox.claim(**(defaults | options))).events]


async def _over(inbox: RedisInbox, **report: Any) -> None:
    (claimed,) = (await inbox.claim("", (), limit=1, lease=60)).events
    await inbox.report([ClaimReport(claimed=claimed, **report)])


async def test_all_keys_have_one_hash_tag(redis_url: str, inbox: RedisInbox, redis: Redis) -> None:
    """Whatever is recorded begins with the inbox's name: two inboxes share nothing."""
    dead = {"a": HandlerFailure(failures=1, error="e")}
    await inbox.announce("", {"a": {"*"}}, keep_for=60)
    for key in "xyz":
        await inbox.put(event(key, subjects=("s",), state=key))
    await _over(inbox, dead=dead)
    await _over(inbox)
    await _over(inbox, waits_for="a", due_in=5.0)
    keys = [key async for key in redis.scan_iter("*")]
    assert len(keys) == 16
    assert {key[: len(BASE) + 1] for key in keys} == {BASE + ":"}
    other = RedisInbox(redis_url, name="other")
    assert await other.put(event("x")) is PutResult.NEW
    await other.aclose()


async def test_pruning_leaves_nothing(inbox: RedisInbox, redis: Redis) -> None:
    """Once its events are forgotten, only a number is left of what they were."""
    for n in range(2500):
        await inbox.put(event(f"k{n}", subjects=(f"s{n}",), state="A"))
    while claims := (await inbox.claim("", (), limit=500, lease=60)).events:
        await inbox.report([ClaimReport(claimed=each) for each in claims])
    assert await inbox.prune() == 0
    assert await inbox.prune(older_than=0) == 2500
    assert [key async for key in redis.scan_iter("*")] == [f"{BASE}:n"]


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({}, ["keeps nothing on disk"]),
        ({"appendonly": "yes"}, []),
        ({"save": "60 1"}, []),
        (
            {"save": "60 1", "maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"},
            ["allkeys-lru"],
        ),
    ],
)
async def test_a_server_that_loses_events_is_warned_of_once(
    settings: dict[str, str],
    warned: list[str],
    redis_url: str,
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first use logs one line where a restart, or a full memory, loses events."""
    before: dict[str, Any] = {name: (await redis.config_get(name))[name] for name in settings}
    inbox = RedisInbox(redis_url)
    try:
        for name, value in settings.items():
            await redis.config_set(name, value)
        with caplog.at_level(logging.WARNING, "gather_async"):
            await inbox.open()
            await asyncio.gather(*(inbox.put(event(key)) for key in "abc"))
            await inbox.aclose()
            await inbox.open()
    finally:
        await inbox.aclose()
        for name, value in before.items():
            await redis.config_set(name, value)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(warned)
    assert all(part in message for part, message in zip(warned, messages, strict=True))
    places = [vars(record)["gather_place"] for record in caplog.records]
    assert all(place in text for place, text in zip(places, messages, strict=True))
    assert {place.rpartition(":")[0] for place in places} <= {"Redis at 127.0.0.1"}


async def test_a_server_that_does_not_say_is_believed(
    redis_url: str, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A user without the right to ask for the settings can use an inbox."""
    await redis.acl_setuser(
        "app", enabled=True, passwords=["+pw"], keys=["gather:*"], commands=["+@all", "-@dangerous"]
    )
    inbox = RedisInbox(redis_url.replace("redis://", "redis://app:pw@"))
    with caplog.at_level(logging.WARNING, "gather_async"):
        await inbox.open()
        assert await inbox.put(event()) is PutResult.NEW
    assert caplog.records == []
    await inbox.aclose()
    await redis.acl_deluser("app")


async def test_a_full_server_lets_events_end(
    redis_url: str, redis: Redis, inbox: RedisInbox
) -> None:
    """Without memory new events are refused, and those that are there are finished."""
    for key in "abcd":
        await inbox.put(event(key))
    try:
        await redis.config_set("maxmemory", "1")
        with pytest.raises(RedisError):
            await inbox.put(event("refused"))
        claims = (await inbox.claim("", ["h"], limit=9, lease=60)).events
        assert set(await inbox.renew(claims, lease=60)) == set("abcd")
        await inbox.complete(claims[0], "h")
        dead = {"h": HandlerFailure(failures=1, error="e")}
        await inbox.report([ClaimReport(claimed=claims[0], dead=dead)])
        await inbox.report([ClaimReport(claimed=claims[1], dead=dead)])
        assert await inbox.discard(["b", "c"]) == 2
    finally:
        await redis.config_set("maxmemory", "0")
    assert {state: n for state, n in (await inbox.counts()).items() if n} == {
        EventState.DONE: 3,
        EventState.WAITING: 1,
    }


async def test_a_burst_of_events(inbox: RedisInbox, redis: Redis) -> None:
    """Hundreds of deliveries at once are all stored, over a few connections."""
    results = await asyncio.gather(*(inbox.put(event(f"k{n}")) for n in range(500)))
    assert set(results) == {PutResult.NEW}
    assert len(await redis.client_list()) <= 20


@pytest.mark.slow
async def test_many_events_change_their_queue_in_parts(inbox: RedisInbox) -> None:
    """Thousands that wait for one handler wait for any, in their order, once one is new."""
    await inbox.announce("", {"a": {"*"}, "b": {"*"}}, keep_for=60)
    keys = [f"k{n:04d}" for n in range(2500)]
    for key in keys:
        await inbox.put(event(key))
    while claims := (await inbox.claim("", ["a"], limit=500, lease=60)).events:
        reports = [ClaimReport(claimed=each, due_in=0.0, waits_for="b") for each in claims]
        await inbox.report(reports)
    assert await _claim(inbox, handlers=["a"]) == []
    await inbox.announce("", {"c": {"*"}}, keep_for=60)
    assert await _claim(inbox, handlers=["c"], limit=9999) == keys


async def test_a_process_that_dies_while_it_announces(inbox: RedisInbox) -> None:
    """What it left half moved is moved by the next claims of any process."""
    await inbox.announce("", {"a": {"*"}, "b": {"*"}}, keep_for=60)
    for n in range(2500):
        await inbox.put(event(f"k{n:04d}"))
    while claims := (await inbox.claim("", ["a"], limit=500, lease=60)).events:
        reports = [ClaimReport(claimed=each, due_in=0.0, waits_for="b") for each in claims]
        await inbox.report(reports)
    await inbox._run("announce", "", 60_000, '[["c", "[]"]]', "[]")
    assert [len(await _claim(inbox, limit=9999)) for _ in range(3)] == [2000, 500, 0]


async def test_a_clock_that_went_back(inbox: RedisInbox, redis: Redis) -> None:
    """What was put off by a clock that was a day ahead is due now, the pauses, too."""
    await inbox.put(event())
    failed = {"h": HandlerFailure(failures=1, error="e", retry_in=86_400.0)}
    await _over(inbox, failed=failed, due_in=86_400.0)
    assert (await inbox.claim("", (), limit=0, lease=1)).next_due_in == 0.0
    (claimed,) = (await inbox.claim("", (), limit=9, lease=60)).events
    assert claimed.failures["h"].retry_in == 0.0
    assert await redis.zcard(f"{BASE}:q:0:") == 1


async def test_an_evicted_event_is_passed_over(inbox: RedisInbox, redis: Redis) -> None:
    """An event that the server dropped holds nothing up."""
    for key in "abc":
        await inbox.put(event(key))
    await redis.delete(f"{BASE}:e:a")
    assert await _claim(inbox) == ["b", "c"]
    assert [entry.event.key for entry in await inbox.list()] == ["b", "c"]


async def test_a_server_that_forgot_everything(redis: Redis, inbox: RedisInbox) -> None:
    """Readers of what is published go on with a server that counts anew."""
    for key in "abc":
        await inbox.put(event(key))
    position = (await inbox.published(None)).position
    await redis.flushall()
    await inbox.put(event("new"))
    found = await inbox.published(position)
    assert ([each.key for each in found.events], found.position) == (["new"], 1)


async def test_a_server_that_is_away(redis_server: RedisServer, redis_url: str) -> None:
    """Opening names the server and no password; later calls fail, and work again with it."""
    inbox = RedisInbox(redis_url.replace("redis://", "redis://:hunter2@"))
    plain = RedisInbox(redis_url)
    await plain.put(event("before"))
    redis_server.stop()
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1.*Start the server") as failed:
        await inbox.open()
    assert "hunter2" not in f"{failed.value} {inbox!r}"
    with pytest.raises(RedisError):
        await plain.put(event())
    redis_server.start()
    assert await plain.put(event()) is PutResult.NEW
    for each in (inbox, plain):
        await each.aclose()


async def test_a_server_that_refuses_to_write(redis: Redis, redis_url: str) -> None:
    """It is refused at the start: by a user who may only read, and by a replica."""
    execute: Any = redis.execute_command
    rights = ("on", ">hunter2", "~*", "+@read", "+info", "+eval", "+evalsha")
    await execute("ACL", "SETUSER", "reader", *rights)
    reader = RedisInbox(redis_url.replace("redis://", "redis://reader:hunter2@"))
    replica = RedisInbox(redis_url)
    try:
        with pytest.raises(ConfigurationError, match="may write") as failed:
            await reader.open()
        assert "hunter2" not in str(failed.value)
        await execute("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(ConfigurationError, match="ReadOnlyError"):
            await replica.open()
    finally:
        await execute("REPLICAOF", "NO", "ONE")
        await redis.acl_deluser("reader")
        await reader.aclose()
        await replica.aclose()


async def test_more_claims_are_renewed_than_a_script_takes(inbox: RedisInbox) -> None:
    """Thousands of claims are kept, and of one that was lost that is said."""
    await inbox.put(event("k"))
    (held,) = (await inbox.claim("", (), limit=1, lease=60)).events
    lost = [evolve(held, token=str(number)) for number in range(4500)]
    assert await inbox.renew([*lost, held], lease=60) == {"k"}
    assert await inbox.renew(lost, lease=60) == set()


async def test_lists_go_through_all_events(inbox: RedisInbox) -> None:
    """A filter finds what stands behind thousands of other events."""
    for n in range(2100):
        await inbox.put(event(f"k{n}", "x" if n % 700 else "y", tenant="ö" if n % 2 else None))
    found = [entry.event.key for entry in await inbox.list(event="y")]
    assert found == ["k0", "k700", "k1400"]
    assert len(await inbox.list(limit=2050)) == 2050
    assert len(await inbox.list(tenant="ö", limit=5000)) == 1050
    assert len(await inbox.list(tenant="umbrella")) == 0


async def test_text_is_kept_as_it_is(inbox: RedisInbox) -> None:
    """Any text comes back, from a megabyte to lone surrogates."""
    texts = ["\ud800 \0 ü 🎉", "x" * 1_000_000, '{"event": "x", "data": {"a": "\\ud83d"}}']
    for n, text in enumerate(texts):
        await inbox.put(event(f"k{n}", text=text, receiver="ä{b}\n7:"))
    await inbox.announce("ä{b}\n7:", {"h:\n{1}": {"*"}}, keep_for=60)
    result = await inbox.claim("ä{b}\n7:", ["h:\n{1}"], limit=9, lease=60)
    assert [each.event.text for each in result.events] == texts
    assert set(result.handlers) == {"h:\n{1}"}
    dead = {"h:\n{1}": HandlerFailure(failures=2, error="a:b:\nc")}
    await inbox.report([ClaimReport(claimed=result.events[2], dead=dead)])
    (letter,) = await inbox.dead_letters(receiver="ä{b}\n7:")
    assert (letter.key, letter.handler, letter.error) == ("k2", "h:\n{1}", "a:b:\nc")


async def test_letters_of_one_receiver_among_many(inbox: RedisInbox) -> None:
    """The letters of one receiver are found behind those of another, up to the limit."""
    for n in range(250):
        await inbox.put(event(f"k{n:03d}", receiver="web" if n < 240 else "crm"))
    dead = {"h": HandlerFailure(failures=1, error="e")}
    for receiver in ("web", "crm"):
        claims = (await inbox.claim(receiver, (), limit=250, lease=60)).events
        await inbox.report([ClaimReport(claimed=each, dead=dead) for each in claims])
    assert len(await inbox.dead_letters(receiver="crm")) == 10
    assert len(await inbox.dead_letters(receiver="crm", limit=3)) == 3
    assert len(await inbox.dead_letters(limit=1000)) == 250


@pytest.mark.parametrize(
    "wrong", [{"keep_for": 60.0}, {"name": ""}, {"name": "a{b"}, {"name": 5}, {"redis": "file:x"}]
)
def test_wrong_arguments_are_reported_at_once(wrong: dict[str, Any]) -> None:
    """An argument that can't work is refused at construction."""
    with pytest.raises(ConfigurationError):
        RedisInbox(**{"redis": "redis://127.0.0.1/0", **wrong})


async def test_the_program_of_the_page(
    redis_url: str,
    inbox: RedisInbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The page's program handles an event, and wakes waits meanwhile."""
    page = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n((?:(?!```).)*?REDIS_URL.*?)```", page, re.DOTALL)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("GATHER_WEBHOOK_SECRET", "s")
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(program, "webhooks.md", "exec"), names)
    async with RedisSignals(redis_url) as signals:
        running = asyncio.create_task(names["main"]())
        notified = asyncio.Event()
        signals.subscribe(lambda *_: notified.set())
        while not signals.alive:  # noqa: ASYNC110 - the program says so
            await asyncio.sleep(0.01)
        signed = sample("candidate_interview.completed", secret="s")
        assert (await names["hooks"].receive(signed.body, signed.headers)).status == 200
        await notified.wait()
        while not (await inbox.counts())[EventState.DONE]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert capsys.readouterr().out.startswith("completed: ")
