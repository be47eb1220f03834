"""What the limiter foretells is what happens."""

import asyncio
import random
from typing import Any

import pytest

from gather_async.errors import ConfigurationError
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota import InProcessLimiter, Priority
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
