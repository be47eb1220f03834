"""The lease on a Redis server: one holder, lost in time, given back at the end."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gather_async import RateLimit
from gather_async.bulk import StopReason
from gather_async.clock import SystemClock
from gather_async.errors import ConfigurationError, GatherConnectionError, LeaseHeldError
from gather_async.redis import RedisLease
from gather_async.testing import FakeGather
from tests.servers import RedisServer

KEY = "gather:lease:job"


class HandClock(SystemClock):
    """A clock that moves when it is moved: time on the server passes by itself."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleepers: list[tuple[float, asyncio.Event]] = []

    def monotonic(self) -> float:
        """Return the seconds that it was moved."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Return once it was moved that far."""
        sleeper = (self.now + seconds, asyncio.Event())
        self.sleepers.append(sleeper)
        try:
            await sleeper[1].wait()
        finally:
            self.sleepers = [each for each in self.sleepers if each is not sleeper]

    async def advance(self, seconds: float) -> None:
        """Move it, and let those go on whose time has come."""
        self.now += seconds
        for at, over in self.sleepers:
            if at <= self.now + 1e-9:
                over.set()
        while any(over.is_set() for _, over in self.sleepers):  # noqa: ASYNC110 - they go on
            await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Return once a condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it depends on a server
            await asyncio.sleep(0.002)


async def test_one_holder_at_a_time(redis_url: str) -> None:
    """A second holder is refused with the time left, and gets the lease after the first."""
    async with RedisLease(redis_url, "job") as first:
        assert first.is_held
        with pytest.raises(LeaseHeldError, match="'job'") as refused:
            await RedisLease(redis_url, "job").__aenter__()
        assert 20.0 < refused.value.wait <= 30.0
        with pytest.raises(LeaseHeldError):
            await first.__aenter__()
        async with RedisLease(redis_url, "another job"):
            assert first.is_held
    assert not first.is_held
    async with RedisLease(redis_url, "job") as second:
        assert not second.lost.is_set()
    async with first:
        assert first.is_held


async def test_a_key_without_an_end(redis_url: str) -> None:
    """A key of that name that never expires is another's: the lease is refused."""
    async with Redis.from_url(redis_url) as redis:
        await redis.set(KEY, "not of ours")
        with pytest.raises(LeaseHeldError):
            await RedisLease(redis_url, "job").__aenter__()
        assert await redis.get(KEY) == b"not of ours"


async def test_racing_holders(redis_url: str) -> None:
    """Of many that begin at the same moment one gets the lease."""
    leases = [RedisLease(redis_url, "job") for _ in range(10)]
    results = await asyncio.gather(*(each.__aenter__() for each in leases), return_exceptions=True)
    kinds = [type(each).__name__ for each in results]
    assert sorted(kinds) == ["LeaseHeldError"] * 9 + ["RedisLease"]
    await leases[kinds.index("RedisLease")].__aexit__(None, None, None)


async def test_a_living_holder_renews(redis_url: str) -> None:
    """The lease outlives its time to live by far, and is gone at the end."""
    clock = HandClock()
    async with Redis.from_url(redis_url) as redis:
        async with RedisLease(redis_url, "job", ttl=30, clock=clock) as lease:
            for _ in range(20):
                await redis.pexpire(KEY, 15_000)
                await clock.advance(10)
                await until(lambda: clock.sleepers)
                assert await redis.pttl(KEY) > 25_000
            assert lease.is_held
        assert await redis.exists(KEY) == 0


@pytest.mark.parametrize("how", ["forgotten", "taken"])
async def test_a_lease_that_is_not_ours_any_more_is_lost(redis_url: str, how: str) -> None:
    """A server that forgot the lease, or gave it to another, ends it; the other's stays."""
    clock = HandClock()
    async with Redis.from_url(redis_url) as redis:
        async with RedisLease(redis_url, "job", clock=clock) as lease:
            await redis.delete(KEY)
            if how == "taken":
                await redis.set(KEY, "another")
            await clock.advance(10)
            async with asyncio.timeout(10):
                await lease.lost.wait()
            assert not lease.is_held
        assert await redis.get(KEY) == (b"another" if how == "taken" else None)


async def test_a_holder_without_the_server_gives_up_in_time(
    redis_server: RedisServer, redis_url: str
) -> None:
    """A holder that can't renew knows that it lost the lease before the server gives it away."""
    clock = HandClock()
    async with RedisLease(redis_url, "job", clock=clock) as lease:
        redis_server.stop()
        while clock.monotonic() < 26.9:
            assert not lease.lost.is_set()
            await until(lambda: clock.sleepers)
            await clock.advance(min(clock.sleepers)[0] - clock.monotonic())
        async with asyncio.timeout(10):
            await lease.lost.wait()
        assert clock.monotonic() == pytest.approx(27)
    redis_server.start()


async def test_a_short_outage_costs_nothing(redis_server: RedisServer, redis_url: str) -> None:
    """A renewal that fails is tried again soon."""
    clock = HandClock()
    async with RedisLease(redis_url, "job", clock=clock) as lease:
        token = await _value(redis_url)
        redis_server.stop()
        await clock.advance(10)
        await until(lambda: clock.sleepers)
        redis_server.start()
        async with Redis.from_url(redis_url) as redis:
            await redis.set(KEY, token, px=15_000)  # as a server with persistence has it
            await clock.advance(0.6)
            await until(lambda: clock.sleepers)
            assert await redis.pttl(KEY) > 25_000
        assert lease.is_held


async def _value(url: str) -> Any:
    async with Redis.from_url(url) as redis:
        return await redis.get(KEY)


async def test_no_server_is_a_typed_error() -> None:
    """A server that can't be reached is named, without the password."""
    lease = RedisLease("redis://:hunter2@127.0.0.1:1/0", "job")
    with pytest.raises(GatherConnectionError, match=r"127\.0\.0\.1:1") as failed:
        await lease.__aenter__()
    assert not lease.is_held
    assert "hunter2" not in f"{failed.value} {lease!r}"


@pytest.mark.parametrize("wrong", [{"name": " "}, {"name": 5}, {"ttl": 0.5}, {"ttl": float("inf")}])
def test_wrong_arguments_are_reported_at_once(wrong: dict[str, Any]) -> None:
    """An argument that can't work is refused at construction."""
    with pytest.raises(ConfigurationError):
        RedisLease("redis://127.0.0.1/0", **{"name": "job", **wrong})


async def test_leases_of_a_process_share_connections(redis_url: str) -> None:
    """A hundred leases take a few connections, which close with the last of them."""
    async with Redis.from_url(redis_url) as redis:
        before = len(await redis.client_list())
        async with AsyncExitStack() as stack:
            leases = [RedisLease(redis_url, f"job {n}") for n in range(100)]
            await asyncio.gather(*(stack.enter_async_context(each) for each in leases))
            assert all(each.is_held for each in leases)
            assert 0 < len(await redis.client_list()) - before <= 16
        async with asyncio.timeout(10):  # the server learns of it in its own time
            while len(await redis.client_list()) > before:  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.005)


def test_leases_in_several_loops_at_once(redis_url: str) -> None:
    """Threads with loops of their own lease at the same time; each ends by itself."""
    together = threading.Barrier(4)
    ended: list[str] = []

    async def hold(name: str) -> None:
        for n in range(20):
            async with RedisLease(redis_url, f"{name} {n}") as lease:
                await asyncio.to_thread(together.wait, 10.0)
                assert lease.is_held
        ended.append(name)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(hold(str(n)))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 4


async def test_a_cancelled_holder_gives_the_lease_back(redis_url: str) -> None:
    """Wherever its task is cancelled, nothing is held afterwards."""

    async def hold() -> None:
        async with RedisLease(redis_url, "job"):
            await asyncio.sleep(3600)

    for steps in range(25):
        task = asyncio.create_task(hold())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _value(redis_url) is None


@pytest.mark.parametrize("steps", range(2, 9))
async def test_a_second_cancellation_keeps_no_lease(steps: int, redis_url: str) -> None:
    """Those whose release waits for its turn, and is cancelled again, give the lease back, too."""

    async def hold(name: str) -> None:
        async with RedisLease(redis_url, name):
            held.add(name)
            await asyncio.sleep(3600)

    held = set[str]()
    names = [f"job {n}" for n in range(60)]
    tasks = [asyncio.create_task(hold(name)) for name in names]
    while len(held) < len(names):  # noqa: ASYNC110 - of all of them
        await asyncio.sleep(0)
    for _ in range(2):
        for task in tasks:
            task.cancel()
        for _ in range(steps):
            await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {asyncio.CancelledError}
    async with Redis.from_url(redis_url) as client:
        assert await client.keys("gather:lease:*") == []


HOLDER = """
import asyncio, sys
from gather_async.redis import RedisLease
async def main():
    async with RedisLease(sys.argv[1], "job", ttl=1):
        print("held", flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""


async def test_a_dead_holder_is_succeeded(redis_url: str) -> None:
    """Another gets the lease of a killed process once its time to live is over."""
    with subprocess.Popen(  # noqa: ASYNC220 - it lives for a moment
        [sys.executable, "-c", HOLDER, redis_url], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        lease = RedisLease(redis_url, "job")
        with pytest.raises(LeaseHeldError):
            await lease.__aenter__()
        holder.kill()
    async with asyncio.timeout(10):
        while True:
            try:
                async with lease:
                    break
            except LeaseHeldError as refused:
                await asyncio.sleep(refused.wait)  # the server's own time, a second at most
    assert await _value(redis_url) is None


async def test_a_bulk_invite_stops_when_its_lease_is_lost(redis_url: str, tmp_path: Path) -> None:
    """One machine runs the job; what is left after a loss is done by the next, each once."""
    clock = HandClock()
    async with FakeGather() as fake, fake.client(rate_limits=[RateLimit(9_999, per=60)]) as gather:
        question = await gather.questions.create(
            title="q", question_script="s", user_id=fake.user_id, audio_url="https://e.com/a.mp3"
        )
        interview = await gather.interviews.create(
            title="i", display_name="i", question_ids=[question.id]
        )

        def job() -> Any:
            return gather.bulk_invite(
                [
                    {
                        "first_name": "P",
                        "last_name": str(n),
                        "email": f"p{n}@example.com",
                        "phone": f"+1202555{n:04d}",
                    }
                    for n in range(60)
                ],
                interview_id=interview.id,
                journal=tmp_path / "j.db",
                concurrency=2,
                lease=RedisLease(redis_url, "campaign", clock=clock),
            )

        fake.set_latency(0.1, 0.1)
        running = asyncio.ensure_future(job())
        await until(lambda: len(fake.invites_by_person) > 2)
        with pytest.raises(LeaseHeldError):
            await job()
        async with Redis.from_url(redis_url) as redis:
            await redis.delete("gather:lease:campaign")
        await clock.advance(10)
        report = await running
        assert report.stopped is StopReason.LEASE_LOST
        assert 0 < report.invited < 60
        fake.set_latency(0.0, 0.0)
        report = await job()
        assert (report.invited, report.stopped) == (60, None)
        assert set(fake.invites_by_person.values()) == {1}
