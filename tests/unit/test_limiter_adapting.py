"""The limiter against servers that count: alone, shared, and tighter than configured."""

import asyncio
import random
from collections import deque
from collections.abc import Sequence

import pytest

from gather_async.protocol.rolling_windows import RateLimit
from gather_async.protocol.server_quota import ServerQuota
from gather_async.quota import InProcessLimiter, Priority
from gather_async.testing.clock import VirtualClock


class _Server:
    """Rolling windows that stamp each request at random between sending and answer."""

    def __init__(
        self, clock: VirtualClock, limits: Sequence[RateLimit], rng: random.Random
    ) -> None:
        self.clock, self.limits, self.rng = clock, limits, rng
        self.logs: list[deque[float]] = [deque() for _ in limits]
        self.refused = 0
        self.counts_refused = False
        self.reported = 0

    def arrive(self) -> tuple[int, ServerQuota]:
        """Stamp a request now; return the status and what the headers say."""
        now = self.clock.monotonic()
        for log, limit in zip(self.logs, self.limits, strict=True):
            while log and now - log[0] >= limit.per:
                log.popleft()
        pairs = list(zip(self.logs, self.limits, strict=True))
        full = [log for log, limit in pairs if len(log) >= limit.limit]
        if not full or self.counts_refused:
            for log in self.logs:
                log.append(now)
        self.refused += bool(full)
        log, limit = min(pairs, key=lambda pair: pair[1].limit - len(pair[0]))
        reset = self.clock.wall() + (log[0] + limit.per - now if log else 0.0)
        remaining = max(0, limit.limit - len(log))
        return (429 if full else 200), ServerQuota(limit.limit, remaining, float(int(reset + 1)))

    async def serve(self) -> tuple[int, ServerQuota]:
        """Take a request through its latency of 20 to 400 ms."""
        latency, share = self.rng.uniform(0.02, 0.4), self.rng.random()
        await self.clock.sleep(latency * share)
        reply = self.arrive()
        await self.clock.sleep(latency * (1 - share))
        return reply


class _Client:
    """Calls as the session makes them: a refusal holds everybody, and is tried again."""

    def __init__(self, limiter: InProcessLimiter, server: _Server) -> None:
        self.limiter, self.server = limiter, server
        self.most_attempts = 0

    async def call(self, priority: Priority = "interactive") -> None:
        """Make one call until it succeeds."""
        for attempt in range(1, 50):
            slot = await self.limiter.acquire(priority=priority, max_wait=None)
            status, quota = await self.server.serve()
            slot.answered(quota)
            self.most_attempts = max(self.most_attempts, attempt)
            if status != 429:
                return
            assert quota.reset_at is not None
            self.limiter.hold(quota.reset_at)
        pytest.fail("starved")


_DOCUMENTED = (RateLimit(100, per=60), RateLimit(1000, per=3600))


@pytest.mark.parametrize("seed", range(3))
async def test_a_server_of_our_own_never_refuses(seed: int) -> None:
    """2500 calls from 64 tasks: no 429, as fast as the windows allow, and no phantom use."""
    clock, rng = VirtualClock(), random.Random(seed)
    server = _Server(clock, _DOCUMENTED, rng)
    limiter = InProcessLimiter(_DOCUMENTED, clock=clock, reserve=0)
    client, began = _Client(limiter, server), clock.monotonic()
    left = iter(range(2500))

    async def work() -> None:
        for _ in left:
            await client.call()
            assert all(window.external == 0 for window in limiter.status().windows)

    await asyncio.gather(*(work() for _ in range(64)))
    assert server.refused == 0
    assert len(limiter.status().windows) == 2
    assert clock.monotonic() - began < 2 * 3600 + 4 * 60 + 30


@pytest.mark.parametrize("counts_refused", [False, True])
@pytest.mark.parametrize(
    "limits",
    [
        (RateLimit(20, per=60),),
        (RateLimit(20, per=60), RateLimit(200, per=3600)),
        (RateLimit(20, per=10),),
    ],
)
async def test_sixty_calls_succeed_on_a_server_five_times_tighter(
    limits: Sequence[RateLimit], counts_refused: bool
) -> None:
    """The limit is learned from the first answers: one refusal each at most, then none."""
    clock = VirtualClock()
    server = _Server(clock, limits, random.Random(2))
    server.counts_refused = counts_refused
    limiter = InProcessLimiter(_DOCUMENTED, clock=clock)
    client = _Client(limiter, server)
    await asyncio.gather(*(client.call() for _ in range(60)))
    assert client.most_attempts <= 3
    refused = server.refused
    learned = [window for window in limiter.status().windows if window.learned]
    assert [window.limit for window in learned] == [20]
    await asyncio.gather(*(client.call() for _ in range(60)))
    assert server.refused == refused


async def test_a_learned_limit_is_dropped_when_the_server_raises_it() -> None:
    """Back at the configured limit, the client is as fast as before within a few minutes."""
    clock = VirtualClock()
    server = _Server(clock, (RateLimit(20, per=60),), random.Random(3))
    limiter = InProcessLimiter(_DOCUMENTED, clock=clock)
    client = _Client(limiter, server)
    await asyncio.gather(*(client.call() for _ in range(60)))
    await clock.sleep(60.0)
    server.limits = (RateLimit(100, per=60),)
    await asyncio.gather(*(client.call() for _ in range(60)))
    assert not any(window.learned for window in limiter.status().windows)
    await clock.sleep(60.0)
    began = clock.monotonic()
    await asyncio.gather(*(client.call() for _ in range(95)))
    assert clock.monotonic() - began < 2.0


async def test_a_higher_limit_in_the_headers_never_raises_the_configured_one() -> None:
    """The user's limit holds, whatever more the server would allow."""
    clock = VirtualClock()
    server = _Server(clock, (RateLimit(5000, per=60),), random.Random(4))
    limiter = InProcessLimiter((RateLimit(10, per=60),), clock=clock)
    client, began = _Client(limiter, server), clock.monotonic()
    await asyncio.gather(*(client.call() for _ in range(30)))
    assert clock.monotonic() - began >= 120.0


async def test_use_elsewhere_is_seen_and_forgotten() -> None:
    """Another user of the key shrinks our share without many refusals; when he ends, it grows."""
    clock, rng = VirtualClock(), random.Random(5)
    limits = (RateLimit(100, per=60),)
    server = _Server(clock, limits, rng)
    limiter = InProcessLimiter(limits, clock=clock)
    client = _Client(limiter, server)
    done = 0

    async def elsewhere() -> None:
        for _ in range(600):
            server.logs[0].append(
                clock.monotonic()
            )  # it is let in, though others are refused for it
            await clock.sleep(1.0)

    async def work() -> None:
        nonlocal done
        while not other.done():
            await client.call()
            done += 1

    other = asyncio.create_task(elsewhere())
    await asyncio.gather(*(work() for _ in range(16)))
    refused_here = server.refused
    assert done > 0.8 * 400  # 40 of each 100 are left to us, for ten minutes
    assert refused_here < 0.4 * done  # he is let in always, we compete for the last slot
    await clock.sleep(61.0)
    began = clock.monotonic()
    await asyncio.gather(*(client.call() for _ in range(100)))
    assert clock.monotonic() - began < 5.0
    assert server.refused == refused_here


async def test_a_window_full_of_others_is_probed_after_its_reset() -> None:
    """One request at a time finds out that the others are gone, long before a period is over."""
    clock = VirtualClock()
    limiter = InProcessLimiter((RateLimit(100, per=3600),), clock=clock)
    slot = await limiter.acquire(priority="interactive", max_wait=None)
    slot.answered(ServerQuota(100, 0, clock.wall() + 30.0))
    assert limiter.status().windows[0].external == 99
    began = clock.monotonic()
    probe = await limiter.acquire(priority="interactive", max_wait=None)
    assert clock.monotonic() - began == pytest.approx(30.0)
    waiting = asyncio.create_task(limiter.acquire(priority="interactive", max_wait=None))
    await clock.sleep(5.0)
    assert not waiting.done()
    probe.answered(ServerQuota(100, 98, clock.wall() + 60.0))
    await waiting
    assert clock.monotonic() - began == pytest.approx(35.0)
    assert limiter.status().windows[0].external <= 1


async def test_others_end_with_the_period_if_nothing_is_received() -> None:
    """Without another answer, what the server counted is gone after the window's length."""
    clock = VirtualClock()
    limiter = InProcessLimiter((RateLimit(10, per=60),), clock=clock, reserve=0)
    slot = await limiter.acquire(priority="interactive", max_wait=None)
    slot.answered(ServerQuota(10, 2, None))
    assert limiter.status().windows[0].remaining == 2
    await clock.sleep(60.0)
    assert limiter.status().windows[0].remaining == 10


async def test_a_server_that_names_ever_new_limits_fills_no_memory() -> None:
    """At most four learned windows are kept."""
    clock = VirtualClock()
    limiter = InProcessLimiter(_DOCUMENTED, clock=clock)
    for limit in range(200, 260):
        slot = await limiter.acquire(priority="interactive", max_wait=None)
        slot.answered(ServerQuota(limit, limit - 1, None))
    assert sum(window.learned for window in limiter.status().windows) == 4
