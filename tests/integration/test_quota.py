"""The client's quota against FakeGather, over real sockets and on one virtual clock."""

import asyncio
import time

import pytest

from gather_async import RateLimit
from gather_async.testing import FakeGather, VirtualClock

_DOCUMENTED = (RateLimit(100, per=60), RateLimit(1000, per=3600))


async def test_an_hour_of_quota_meets_no_429_and_takes_seconds() -> None:
    """1100 calls need the second hour's quota, are all accepted, and take little real time."""
    clock, real = VirtualClock(), time.monotonic()
    async with FakeGather(rate_limits=_DOCUMENTED, clock=clock, seed=0) as fake:
        async with fake.client() as gather:
            began = clock.monotonic()
            left = iter(range(1100))

            async def work() -> None:
                for _ in left:
                    await gather.narrators.list()

            await asyncio.gather(*(work() for _ in range(32)))
            spent = clock.monotonic() - began
            status = gather.rate_limit_status
        assert len(fake.requests) == 1100
    assert 3600 <= spent < 3620
    assert all(window.external == 0 and not window.learned for window in status.windows)
    assert time.monotonic() - real < 20


@pytest.mark.parametrize("rate_limits", [_DOCUMENTED, (RateLimit(20, per=60),)])
async def test_sixty_calls_at_once_all_succeed(rate_limits: tuple[RateLimit, ...]) -> None:
    """A server five times tighter than configured refuses some, and every call succeeds."""
    clock = VirtualClock()
    async with (
        FakeGather(rate_limits=rate_limits, clock=clock, seed=0) as fake,
        fake.client() as gather,
    ):
        pages = await asyncio.gather(*(gather.narrators.list() for _ in range(60)))
        assert len(pages) == 60
        status = gather.rate_limit_status
        refused = len(fake.requests) - 60
    learned = [window.limit for window in status.windows if window.learned]
    if rate_limits == _DOCUMENTED:
        assert (refused, learned) == (0, [])
    else:
        assert 0 < refused <= 40
        assert learned == [20]
