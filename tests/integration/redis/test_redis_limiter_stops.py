"""Processes that are late, or were stopped for longer than their lease, and come back.

All others count what such a process had in flight as answered at the end of its lease. That
is a guess: it knows better.
"""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota import Slot
from gather_async.redis import RedisLimiter
from gather_async.redis.step import EndedRequest
from tests.integration.redis.script_process import NAMES, TICK, ScriptProcess
from tests.servers import RedisServer

_LEASE = 5.0


@pytest.fixture(scope="module")
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A synchronous client."""
    if not redis_server.is_running:
        redis_server.start()
    with redis.Redis.from_url(redis_server.url) as made:
        made.ping()
        yield made


def _two(client: redis.Redis, *limits: tuple[int, float]) -> tuple[ScriptProcess, ScriptProcess]:
    quota = f"q{next(NAMES)}"
    stopped, other = (ScriptProcess(client, quota, limits, lease=_LEASE) for _ in range(2))
    return stopped, other


@pytest.mark.parametrize(("limits", "back_at"), [([(4, 60)], 1010), ([(4, 60), (4, 600)], 1200)])
def test_what_was_guessed_is_taken_back(client: redis.Redis, limits: Any, back_at: float) -> None:
    """What was answered counts once, and what was not sent not at all, in every window."""
    stopped, other = _two(client, *limits)
    assert stopped.step(1000.0, i=4) == (4, 0)
    assert other.step(1006.0, i=4) == (0, 0)
    assert other.windows.count(0.0) == 4
    assert other.step(back_at - 1.0, i=4) == (0, 0)
    stopped.flying = 1  # one was answered, and two were granted to a process that was not there
    stopped.step(back_at, answers=[back_at - 0.5])
    assert other.step(back_at + 1.0, i=4) == (2, 0)
    assert other.windows.count(0.0) == 1
    assert stopped.windows.count(0.0) == 1


def test_a_report_from_before_the_stop_counts_once(client: redis.Redis) -> None:
    """A process that heard no reply before it was stopped repeats its report without effect."""
    stopped, other = _two(client, (4, 60))
    stopped.step(1000.0, i=2)
    stopped.flying = 1
    stopped.ask(1001.0, answers=[1001.0])
    reported = EndedRequest(stopped.number, 1001.0)
    assert other.step(1010.0) == (0, 0)
    stopped.flying = 0
    reply = stopped.ask(1011.0, ended=[reported])
    assert stopped.state.record(reply, asked_at=1011.0, flying=0)
    assert other.step(1012.0, i=4) == (3, 0)


def test_what_was_taken_back_leaves_what_stood_before_it(client: redis.Redis) -> None:
    """A log that is full of guesses keeps the facts that it would need without them."""
    stopped, other = _two(client, (3, 60))
    other.step(1000.0, i=3)
    other.flying = 0
    other.step(1001.0, answers=[1001.0] * 3)
    stopped.flying = 2  # aiohttp sent them again on its own
    stopped.step(1001.0)
    other.step(1010.0)
    stopped.flying = 0
    stopped.step(1011.0)
    assert other.step(1012.0, i=3) == (0, 0)
    assert other.step(1061.0, i=3) == (3, 0)


def test_one_that_never_comes_back_is_forgotten(client: redis.Redis) -> None:
    """Of a process that died nothing is left once its requests count no more."""
    stopped, other = _two(client, (3, 60), (3, 600))
    stopped.step(1000.0, i=3)
    for at in (1006.0, 1604.0):
        other.step(at)
        assert client.hlen(other.keys[2]) == 2
    other.step(1606.0)
    assert client.hkeys(other.keys[2]) == [other.name.encode()]


@given(
    st.lists(
        st.tuples(st.integers(1, 8), st.integers(1, 40)),
        min_size=1,
        max_size=3,
        unique_by=lambda each: each[1],
    ),
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["ask", "answer", "stop", "wake", "pass", "lost reply"]),
            st.integers(0, 8),
            st.integers(0, 12),
        ),
        max_size=60,
    ),
    st.randoms(use_true_random=False),
)
def test_no_server_ever_counts_too_many(  # noqa: C901 - a branch for each kind of step
    client: redis.Redis, limits: Any, steps: Any, rng: random.Random
) -> None:
    """However processes ask, answer, are stopped for any time, and come back.

    The server stamps each request at any time between its slot and its answer; one of a
    process that was stopped, until its lease ends.
    """
    quota = f"q{next(NAMES)}"
    processes = [ScriptProcess(client, quota, limits, lease=_LEASE) for _ in range(4)]
    in_flight: list[list[float]] = [[] for _ in processes]
    stopped: dict[int, float] = {}
    now, stamps = 10_000.0, list[float]()

    def answer(which: int, count: int, *, until: float) -> None:
        for _ in range(min(count, len(in_flight[which]))):
            stamps.append(rng.uniform(in_flight[which].pop(0), until))
            processes[which].flying -= 1

    for which, kind, count, seconds in steps:
        process = processes[which]
        target = now + (seconds if kind == "pass" else TICK)
        while now < target:
            now = min(target, now + _LEASE / 3)
            for number, each in enumerate(processes):
                if number not in stopped:
                    each.step(now)
        if (which in stopped) is not (kind == "wake"):
            continue
        if kind == "ask":
            in_flight[which] += [now] * process.step(now, i=count)[0]
        elif kind == "lost reply":
            process.ask(now, i=count)
        elif kind == "stop":
            stopped[which] = now
        elif kind in {"answer", "wake"}:
            before = len(stamps)
            answer(which, count, until=min(now, stopped.pop(which, now) + _LEASE))
            if kind == "wake":  # the rest was not sent
                process.flying, in_flight[which] = 0, []
            process.step(now, answers=[now] * (len(stamps) - before))
    for which, since in stopped.items():
        answer(which, 99, until=min(now, since + _LEASE))
    stamps.sort()
    for limit, period in limits:
        pairs = zip(stamps, stamps[limit:], strict=False)
        assert all(later - first >= period for first, later in pairs)


async def test_all_that_a_process_woke_up_for_is_one_step(redis_url: str) -> None:
    """On a busy machine each step waits for the CPU: what came meanwhile needs none of its own."""
    limits = [RateLimit(10, per=60)]
    async with RedisLimiter(redis_url, key="k", rate_limits=limits, lease=600.0) as limiter:
        limiter._settings = attrs.evolve(limiter._settings, settle=0.0)
        slots = list[Slot]()

        async def acquire() -> None:
            slots.append(await limiter.acquire(priority="interactive", max_wait=None))

        await asyncio.gather(*(acquire() for _ in range(3)))
        assert limiter.steps == 1
        acquiring = asyncio.create_task(acquire())
        await asyncio.sleep(0)
        slots.pop().answered(None)
        await acquiring
        assert limiter.steps == 2
        assert limiter._windows.count(0.0) == 1
        for slot in slots:
            slot.returned()
