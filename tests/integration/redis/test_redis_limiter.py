"""The limiter whose quota is on a Redis server: secrets, outages, lost state, loops, forks."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from gather_async.errors import (
    ClientClosedError,
    ConfigurationError,
    GatherConnectionError,
    QuotaUnavailableError,
    QuotaWaitError,
)
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.protocol.server_quota import ServerQuota
from gather_async.quota import Priority, Slot
from gather_async.redis import RedisLease, RedisLimiter
from gather_async.testing import FakeGather
from tests.servers import RedisServer

_KEY = "qapi_0123456789_the_secret_key"
_WINDOW = (RateLimit(10, per=0.5),)
_WIDE = (RateLimit(100, per=60), RateLimit(1000, per=3600))


def _limiter(url: Any, **options: Any) -> RedisLimiter:
    return RedisLimiter(url, **{"key": _KEY, "rate_limits": _WIDE, "reserve": 0, **options})


async def _get(limiter: RedisLimiter, priority: Priority = "interactive") -> Slot:
    return await limiter.acquire(priority=priority, max_wait=None)


@pytest.fixture(autouse=True)
def old_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every server for one that was not just restarted, which would settle first."""
    monkeypatch.setattr("gather_async.redis.stepped_limiter.SETTLE", 0.0)


@pytest.fixture
async def limiter(redis_url: str) -> AsyncIterator[RedisLimiter]:
    """A limiter of the documented windows."""
    async with _limiter(redis_url) as made:
        yield made


@pytest.fixture
def paused(redis_server: RedisServer) -> Iterator[RedisServer]:
    """The server, which may be paused: it goes on after the test."""
    yield redis_server
    assert redis_server._process is not None
    redis_server._process.send_signal(signal.SIGCONT)


async def test_a_client_uses_it(redis_url: str) -> None:
    """Two clients, as in two processes, share one quota; neither closes the limiter."""
    async with (
        FakeGather(edition="A") as fake,
        _limiter(redis_url) as one,
        _limiter(redis_url) as other,
    ):
        for limiter in (one, other):
            async with fake.client(limiter=limiter) as gather:
                await gather.narrators.list()
        (await _get(other)).returned()
        assert [each.used for each in other.status().windows] == [2, 2]
        assert other.status().as_of is not None


async def test_processes_share_one_quota(redis_url: str) -> None:
    """What one limiter sent, another can't send again before the window has passed."""
    limits = (RateLimit(4, per=0.3),)
    async with (
        _limiter(redis_url, rate_limits=limits) as one,
        _limiter(redis_url, rate_limits=limits) as other,
    ):
        began = time.monotonic()
        for limiter in (one, other, one, other, one):
            (await _get(limiter)).answered(None)
        assert 0.3 <= time.monotonic() - began < 0.5


async def test_the_api_key_is_nowhere(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the server's keys, its MONITOR, logs, reprs nor errors show the API key."""
    caplog.set_level(logging.DEBUG)
    watcher = redis.asyncio.Redis.from_url(redis_url)
    seen: list[str] = []
    async with watcher.monitor() as monitor, _limiter(redis_url) as limiter:
        (await _get(limiter)).answered(None)
        (await _get(limiter)).answered(None)
        await watcher.get("that was all")
        while "that was all" not in (seen[-1:] or [""])[0]:
            seen.append(str(await monitor.next_command()))
        shown = f"{seen} {await watcher.keys()} {limiter!r} {vars(limiter)} {caplog.text}"
    await watcher.aclose()
    assert len(seen) > 1
    assert _KEY not in shown
    assert _KEY[-10:] not in shown
    with pytest.raises(ConfigurationError) as refused:
        _limiter(redis_url, key=_KEY, rate_limits=())
    assert _KEY not in str(refused.value)


async def test_every_key_expires_and_has_one_hash_tag(redis_url: str) -> None:
    """A cluster keeps all of a quota's state on one server, and it vanishes by itself."""
    async with _limiter(redis_url) as limiter:
        (await _get(limiter)).answered(None)
        slot = await _get(limiter)
        client = redis.Redis.from_url(redis_url)
        keys = [str(each, "ascii") for each in client.scan_iter()]
        assert len(keys) == 3
        assert len({each[each.index("{") : each.index("}")] for each in keys}) == 1
        assert all(3600 < client.ttl(each) < 3700 for each in keys)
        client.close()
        slot.returned()


async def test_keys_of_several_api_keys_are_apart(redis_url: str) -> None:
    """Each API key has a quota of its own."""
    limits = (RateLimit(1, per=60),)
    async with (
        _limiter(redis_url, key="one", rate_limits=limits) as one,
        _limiter(redis_url, key="other", rate_limits=limits) as other,
    ):
        (await _get(one)).answered(None)
        (await _get(other)).answered(None)
        assert one.identity != other.identity
        assert one.identity == _limiter(redis_url, key="one").identity


async def test_a_sequence_of_calls_costs_one_step_each(limiter: RedisLimiter) -> None:
    """A call that follows an answer reports it with its own step."""
    for _ in range(50):
        (await _get(limiter)).answered(None)
    assert limiter.steps <= 51


async def test_calls_together_share_steps(limiter: RedisLimiter) -> None:
    """Sixteen tasks need a step for every five of their calls, or fewer."""

    async def work() -> None:
        for _ in range(6):
            slot = await _get(limiter)
            await asyncio.sleep(0)
            slot.answered(None)

    await asyncio.gather(*(work() for _ in range(16)))
    assert limiter.steps <= 0.2 * 96


async def test_cancelled_calls_leave_nothing_in_flight(redis_url: str) -> None:
    """A thousand calls cancelled while they wait, or as they are served, hold no slot."""
    async with _limiter(redis_url, rate_limits=(RateLimit(50, per=60),)) as limiter:
        tasks = [asyncio.create_task(_get(limiter)) for _ in range(1000)]
        for each in tasks[::2]:
            await asyncio.sleep(0)
            each.cancel()
        served = [each for each in tasks if each.done() and not each.cancelled()]
        for each in tasks:
            each.cancel()
        for slot in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(slot, BaseException):
                slot.returned()
        assert len(served) <= 50
        slots = [await _get(limiter) for _ in range(50)]
        assert limiter.status().in_flight == 50
        for slot in slots:
            slot.returned()
        assert limiter.status().in_flight == 0
    async with _limiter(redis_url, rate_limits=(RateLimit(50, per=60),)) as other:
        (await _get(other)).returned()
        assert other.status().windows[0].used == 0


async def test_a_call_that_joins_after_all_others_left_is_served(redis_url: str) -> None:
    """A call that joins while a step says that none waits has the next step ask for it."""
    async with _limiter(redis_url, rate_limits=(RateLimit(1, per=0.3),)) as limiter:
        (await _get(limiter)).answered(None)
        gone = asyncio.create_task(_get(limiter))
        while limiter.steps < 2 or limiter._step is not None:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
        limiter.hold(time.time() + 0.01)  # begins a step, in which no call waits
        async with asyncio.timeout(10):
            (await _get(limiter)).returned()


async def test_max_wait_counts_what_other_processes_sent(redis_url: str) -> None:
    """A call that can't start in time is refused after one step, and nothing stays queued."""
    limits = (RateLimit(3, per=60),)
    async with (
        _limiter(redis_url, rate_limits=limits) as one,
        _limiter(redis_url, rate_limits=limits) as other,
    ):
        for _ in range(3):
            (await _get(one)).answered(None)
        await asyncio.sleep(0)
        with pytest.raises(QuotaWaitError) as refused:
            await other.acquire(priority="interactive", max_wait=1.0)
        assert 50 < refused.value.wait <= 121
        assert other.status().queued.interactive == 0


async def test_estimate_counts_what_other_processes_sent(redis_url: str) -> None:
    """A forecast starts from the use of all processes, as of the last step."""
    limits = (RateLimit(4, per=60),)
    async with (
        _limiter(redis_url, rate_limits=limits) as one,
        _limiter(redis_url, rate_limits=limits) as other,
    ):
        for _ in range(2):
            (await _get(one)).answered(None)
        (await _get(one)).answered(None)
        (await _get(other)).answered(None)
        assert other.estimate(1, priority="interactive").total_seconds() > 50


async def test_a_killed_process_keeps_its_slots_until_its_lease_ends(redis_url: str) -> None:
    """What it had in flight counts as answered when its lease ends."""
    limits = (RateLimit(2, per=0.4),)
    program = f"""
import asyncio, os, signal
from gather_async.redis import RedisLimiter
from gather_async.protocol.rolling_windows import RateLimit
async def main():
    limiter = RedisLimiter({redis_url!r}, key={_KEY!r}, rate_limits=[RateLimit(2, per=0.4)],
                           reserve=0, lease=0.6)
    for _ in range(2):
        await limiter.acquire(priority="interactive", max_wait=None)
    print("has them", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, check=False
    )
    assert done.stdout == b"has them\n", done.stderr
    began = time.monotonic()
    async with _limiter(redis_url, rate_limits=limits, lease=0.6) as limiter:
        (await _get(limiter)).answered(None)
    assert 0.4 < time.monotonic() - began < 1.6


async def test_headers_of_the_server_count(redis_url: str) -> None:
    """Use of the key elsewhere, which headers show, narrows the window."""
    async with _limiter(redis_url, rate_limits=(RateLimit(10, per=60),)) as limiter:
        (await _get(limiter)).answered(ServerQuota(10, 2, None))
        (await _get(limiter)).answered(ServerQuota(10, 1, None))
        (await _get(limiter)).returned()
        assert limiter.status().windows[0].external == 7


async def test_a_hold_holds_all_processes(redis_url: str) -> None:
    """A refusal that one process met holds the others back as well."""
    async with _limiter(redis_url) as one, _limiter(redis_url) as other:
        (await _get(other)).answered(None)
        until = time.time() + 1.0
        one.hold(until)
        began = time.time()
        while time.time() < until:  # the hold is on its way, then it holds
            began = time.time()
            (await _get(other)).returned()
        assert until - began > 0.5


@pytest.mark.parametrize("wait", [0.0, 0.4])
async def test_without_the_server_calls_fail_in_time(
    redis_url: str, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, wait: float
) -> None:
    """A server that is gone ends calls within ``outage_wait`` and half a second."""
    async with _limiter(redis_url, outage_wait=wait) as limiter:
        (await _get(limiter)).answered(None)
        redis_server.stop()
        began = time.monotonic()
        with pytest.raises(QuotaUnavailableError, match="on_outage") as failed:
            await _get(limiter)
        assert wait <= time.monotonic() - began < wait + 0.5
        assert isinstance(failed.value.__cause__, redis.RedisError)
        with pytest.raises(QuotaUnavailableError):  # and without waiting for it anew
            await _get(limiter, "bulk")
        assert time.monotonic() - began < wait + 1.0
        redis_server.start()
        (await _get(limiter)).answered(None)
    lines = [each for each in caplog.messages if "the quota" in each]
    assert ["can't be asked" in each for each in lines] == [True, False]
    assert "can be asked again" in lines[1]


async def test_a_server_that_hangs_is_as_good_as_gone(redis_url: str, paused: RedisServer) -> None:
    """A server that takes connections and answers nothing ends calls in time, too."""
    async with _limiter(redis_url, outage_wait=0.3) as limiter:
        (await _get(limiter)).answered(None)
        assert paused._process is not None
        paused._process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(QuotaUnavailableError):
            await _get(limiter)
        assert time.monotonic() - began < 0.8
        paused._process.send_signal(signal.SIGCONT)
        (await _get(limiter)).answered(None)


@pytest.mark.parametrize("how", ["gone", "paused"])
async def test_max_wait_that_ends_within_an_outage(
    redis_url: str, paused: RedisServer, how: str
) -> None:
    """A call whose ``max_wait`` ends before the outage is declared learns what it waited for."""
    async with _limiter(redis_url, outage_wait=5.0) as limiter:
        (await _get(limiter)).answered(None)
        process = paused._process
        assert process is not None
        paused.stop() if how == "gone" else process.send_signal(signal.SIGSTOP)
        with pytest.raises(QuotaWaitError, match=r"Redis at .* did not answer") as refused:
            await limiter.acquire(priority="interactive", max_wait=0.1)
        assert "room" not in str(refused.value)
        paused.start() if how == "gone" else process.send_signal(signal.SIGCONT)
        (await _get(limiter)).answered(None)


async def test_an_outage_is_named_by_the_servers_own_word(redis_url: str) -> None:
    """What the server refuses with, such as NOREPLICAS or MISCONF, is in the error."""
    server = redis.Redis.from_url(redis_url)
    server.config_set("min-replicas-to-write", 1)
    try:
        async with _limiter(redis_url, outage_wait=0.0) as limiter:
            with pytest.raises(QuotaUnavailableError, match="NOREPLICAS"):
                await _get(limiter)
        with pytest.raises(GatherConnectionError, match="NOREPLICAS"):
            await RedisLease(redis_url, "job").__aenter__()
    finally:
        server.config_set("min-replicas-to-write", 0)
        server.close()


async def test_a_short_outage_is_waited_for(redis_url: str, redis_server: RedisServer) -> None:
    """A server that is back within ``outage_wait`` costs time, and no error."""
    async with _limiter(redis_url, outage_wait=5.0) as limiter:
        (await _get(limiter)).answered(None)
        redis_server.stop()
        waiting = asyncio.create_task(_get(limiter))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        redis_server.start()
        (await waiting).answered(None)
        (await _get(limiter)).returned()
        assert limiter.status().windows[0].used == 2  # the server has what it had lost


async def test_without_the_server_a_process_uses_its_share(
    redis_url: str, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Two processes without their server use half of the window each, at the most."""
    limits = (RateLimit(10, per=0.5),)
    options: dict[str, Any] = {"rate_limits": limits, "on_outage": "local", "outage_wait": 0.1}
    ends: list[float] = []

    async def work(limiter: RedisLimiter, until: float) -> None:
        while time.monotonic() < until:
            slot = await _get(limiter)
            ends.append(time.monotonic())
            slot.answered(None)

    async with _limiter(redis_url, **options) as one, _limiter(redis_url, **options) as other:
        for limiter in (one, other, one):
            (await _get(limiter)).answered(None)
        await asyncio.sleep(0.6)
        for limiter in (one, other):  # each knows of the other
            (await _get(limiter)).answered(None)
        redis_server.stop()
        until = time.monotonic() + 1.6
        await asyncio.gather(*(work(each, until) for each in (one, other) for _ in range(3)))
        most = max(sum(0 <= at - since < 0.5 for at in ends) for since in ends)
        assert len(ends) >= 6
        assert most <= 10
        redis_server.start()
        until = time.monotonic() + 0.5
        await asyncio.gather(*(work(each, until) for each in (one, other)))
    lines = [each for each in caplog.messages if "the quota" in each]
    assert ["uses its share alone" in each for each in lines[:2]] == [True, True]
    assert len(lines) == 4


async def test_a_long_outage_holds_no_memory(redis_url: str, redis_server: RedisServer) -> None:
    """Without the server a process keeps no more answers to report than the server would."""
    options: dict[str, Any] = {"on_outage": "local", "outage_wait": 0}
    async with _limiter(redis_url, rate_limits=(RateLimit(5, per=0.05),), **options) as limiter:
        redis_server.stop()
        for number in range(80):
            slot = await limiter.acquire(priority="interactive", max_wait=5.0)
            slot.answered(ServerQuota(5, max(0, 4 - number), None))
        assert len(limiter._ended) < 50
        assert len(limiter._seen) < 50
        assert len(limiter._undecided) < 50


@pytest.mark.parametrize("how", ["restart", "flush"])
async def test_lost_state_is_restored(redis_url: str, redis_server: RedisServer, how: str) -> None:
    """After an empty restart or FLUSHALL, the processes' memory is the server's again."""
    limits = (RateLimit(6, per=60),)
    async with (
        _limiter(redis_url, rate_limits=limits) as one,
        _limiter(redis_url, rate_limits=limits) as other,
    ):
        (await _get(one)).answered(None)
        (await _get(one)).answered(None)
        (await _get(other)).answered(None)
        held = await _get(other)
        if how == "restart":
            redis_server.stop()
            redis_server.start()
        else:
            redis_server.clear()
        (await _get(other)).answered(None)
        (await _get(one)).answered(None)
        assert one.status().windows[0].used == 6
        assert not one.status().remaining
        held.answered(None)


def test_it_moves_between_loops(redis_url: str) -> None:
    """A limiter serves one `asyncio.run` after the other, and keeps the count."""
    limiter = _limiter(redis_url)

    async def call() -> None:
        (await _get(limiter)).answered(None)

    for _ in range(5):
        asyncio.run(call())
    asyncio.run(limiter.aclose())
    other = _limiter(redis_url)

    async def used() -> int:
        async with other:
            (await _get(other)).returned()
            return other.status().windows[0].used

    assert asyncio.run(used()) == 5


def test_it_serves_loops_in_threads(redis_url: str) -> None:
    """Loops of several threads share one limiter, and none waits for another."""
    limiter = _limiter(redis_url, rate_limits=(RateLimit(8, per=0.2),))
    starts: list[float] = []

    async def work() -> None:
        for _ in range(8):
            slot = await _get(limiter)
            starts.append(time.monotonic())
            slot.answered(None)

    threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    starts.sort()
    assert len(starts) == 32
    assert all(later - first >= 0.2 for first, later in zip(starts, starts[8:], strict=False))
    assert limiter.status().in_flight == 0
    asyncio.run(limiter.aclose())


def test_a_loop_that_ends_lets_others_go_on(redis_url: str) -> None:
    """What a loop had in flight counts as lost when it ended, and its waiters are gone."""
    limiter = _limiter(redis_url, rate_limits=(RateLimit(2, per=0.3),))

    async def leave() -> None:
        await _get(limiter)
        await _get(limiter)
        waiting = asyncio.create_task(_get(limiter))
        await asyncio.sleep(0)
        assert not waiting.done()

    async def go_on() -> None:
        (await _get(limiter)).answered(None)
        assert limiter.status().in_flight == 0
        await limiter.aclose()

    asyncio.run(leave())
    asyncio.run(go_on())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_a_process_of_its_own(redis_url: str) -> None:
    """Parent and child share the quota after a fork, also with a request in flight."""
    program = f"""
import asyncio, os, sys
from gather_async.redis import RedisLimiter
from gather_async.protocol.rolling_windows import RateLimit
limiter = RedisLimiter({redis_url!r}, key={_KEY!r}, rate_limits=[RateLimit(4, per=60)], reserve=0,
                       lease=0.6)
async def take(count):
    return [await limiter.acquire(priority="interactive", max_wait=5) for _ in range(count)]
async def refused():
    try:
        await take(1)
    except Exception as error:
        return type(error).__name__
async def main():
    (slot,) = await take(1)
    child = os.fork()
    if child == 0:
        asyncio.events._set_running_loop(None)
        async def in_child():
            for each in await take(2):
                each.answered(None)
            await limiter.aclose()
        asyncio.run(in_child())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    (last,) = await take(1)
    print(await refused())
    for each in (slot, last):
        each.answered(None)
    await limiter.aclose()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "QuotaWaitError\n", done.stderr


async def test_a_stopped_process_does_not_use_an_old_slot(
    limiter: RedisLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot whose lease ended before the call got it is given back, and another one taken."""
    waiting = asyncio.create_task(_get(limiter))
    while limiter.status().in_flight == 0:  # noqa: ASYNC110 - to go on in the same turn
        await asyncio.sleep(0)
    limiter._good_until = time.monotonic() - 1.0  # as if the process had slept since
    slot = await waiting
    assert limiter.steps >= 2
    assert limiter.status().in_flight == 1
    slot.returned()


async def test_closing_ends_calls_and_gives_back_what_is_in_flight(redis_url: str) -> None:
    """`aclose` ends waiting calls, reports what ended, and leaves no process behind."""
    limiter = _limiter(redis_url, rate_limits=(RateLimit(1, per=60),))
    slot = await _get(limiter)
    waiting = asyncio.create_task(_get(limiter))
    await asyncio.sleep(0)
    await limiter.aclose()
    await limiter.aclose()
    with pytest.raises(ClientClosedError):
        await waiting
    with pytest.raises(ClientClosedError):
        await _get(limiter)
    slot.answered(None)
    client = redis.Redis.from_url(redis_url)
    assert client.keys("*procs") == []
    assert client.llen(client.keys("*log")[0]) == 1
    client.close()


async def test_a_lent_client_may_decode_and_is_not_closed(redis_url: str) -> None:
    """A client with options of its own is used as it is."""
    lent = redis.asyncio.Redis.from_url(redis_url, decode_responses=True)
    async with _limiter(lent) as limiter:
        (await _get(limiter)).answered(None)
        (await _get(limiter)).answered(None)
    assert await lent.ping()
    await lent.aclose()


@pytest.mark.parametrize(
    "options",
    [
        {"key": ""},
        {"key": None},
        {"rate_limits": []},
        {"reserve": -1},
        {"pace": "slow"},
        {"lease": 0},
        {"on_outage": "wait"},
        {"outage_wait": -1},
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    """What can't work is refused before anything is opened."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        _limiter("redis://127.0.0.1:1", **options)
