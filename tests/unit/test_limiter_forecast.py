"""What the limiter foretells is what happens."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from gather_async.errors import ConfigurationError
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota import InProcessLimiter, Priority, Slot
from gather_async.testing.clock import VirtualClock

_DOCUMENTED = (RateLimit(100, per=60), RateLimit(1000, per=3600))


@pytest.mark.parametrize("priority", ["interactive", "bulk"])
@pytest.mark.parametrize("pace", ["burst", "even"])
@pytest.mark.parametrize("seed", range(3))
async def test_the_estimate_comes_true(priority: Priority, pace: Any, seed: int) -> None:
    """From a random state, the last of many calls ends when the estimate said."""
    clock, rng = VirtualClock(), random.Random(seed)
    limits = (RateLimit(10, per=60), RateLimit(40, per=600))
    limiter = InProcessLimiter(limits, clock=clock, pace=pace)
    limiter.restore(clock.wall() - rng.uniform(0, 600) for _ in range(rng.randrange(40)))

    async def call() -> None:
        slot = await limiter.acquire(priority=priority, max_wait=None)
        await clock.sleep(0.25)
        slot.answered(None)

    await call()
    number, began = rng.randrange(50, 300), clock.monotonic()
    foretold = limiter.estimate(number, priority=priority).total_seconds()
    await asyncio.gather(*(call() for _ in range(number)))
    assert foretold == pytest.approx(clock.monotonic() - began, abs=0.5)


@pytest.mark.parametrize(
    ("requests", "seconds"),
    [(0, 0), (1, 0), (100, 0), (101, 60), (1000, 540), (1001, 3600), (6000, 18_540)],
)
def test_the_documented_limits_from_a_fresh_start(requests: int, seconds: float) -> None:
    """A hundred at once, a thousand in nine minutes, then a thousand an hour."""
    limiter = InProcessLimiter(_DOCUMENTED, clock=VirtualClock())
    foretold = limiter.estimate(requests, priority="interactive")
    assert foretold.total_seconds() == pytest.approx(seconds)


def test_a_huge_number_is_estimated_without_simulating_it() -> None:
    """A billion requests continue the periodic schedule; an absurd number hits the type's end."""
    limiter = InProcessLimiter(_DOCUMENTED, clock=VirtualClock())
    billion = limiter.estimate(10**9, priority="interactive").total_seconds()
    assert billion == pytest.approx((10**6 - 1) * 3600 + 540)
    assert limiter.estimate(10**30, priority="bulk").days == 999_999_999


@pytest.mark.parametrize("requests", [-1, 1.5, True, None])
def test_a_senseless_number_is_refused(requests: Any) -> None:
    """Only whole numbers from 0 can be estimated."""
    limiter = InProcessLimiter(_DOCUMENTED, clock=VirtualClock())
    with pytest.raises(ConfigurationError, match="requests"):
        limiter.estimate(requests, priority="interactive")


@pytest.mark.parametrize("pace", ["burst", "even"])
@pytest.mark.parametrize("seed", range(4))
async def test_a_burst_is_forecast_as_if_each_call_were_alone(pace: Any, seed: int) -> None:
    """A call that goes on from the forecast before it is given the time of a whole forecast."""
    clock, rng = VirtualClock(), random.Random(seed)
    limits = (RateLimit(7, per=60), RateLimit(40, per=3600))
    limiter = InProcessLimiter(limits, reserve=2, clock=clock, pace=pace)

    def ask(priority: Priority) -> Coroutine[Any, Any, Slot]:
        return limiter.acquire(priority=priority, max_wait=None)

    slots = [await ask("interactive") for _ in range(7)]
    joined: list[asyncio.Task[Slot]] = []
    for _ in range(250):
        match rng.randrange(12):
            case 0 if slots:
                slots.pop().answered(None)
            case 1:
                limiter.restore([clock.wall() - 5.0])
            case 2:
                limiter.hold(clock.wall() + rng.uniform(0.0, 100.0))
            case 3 if joined:
                joined.pop(rng.randrange(len(joined))).cancel()
                await asyncio.sleep(0)
        priority: Priority = rng.choice(["interactive", "bulk", "bulk", "bulk"])
        now, bulk = clock.monotonic(), priority == "bulk"
        alone = limiter._forecast(now, bulk=bulk, count=1)
        assert limiter._next_start(now, bulk=bulk) == pytest.approx(alone, abs=1e-3)
        if rng.random() < 0.9:  # the rest was refused
            joined.append(asyncio.create_task(ask(priority)))
            await asyncio.sleep(0)
    for task in joined:
        task.cancel()
    await asyncio.gather(*joined, return_exceptions=True)
