"""How close a job comes to what the quota allows, on the virtual clock."""

import logging
from collections.abc import Sequence

import pytest

from gather_async.protocol.rolling_windows import RateLimit
from gather_async.testing import FakeGather, VirtualClock

from .conftest import Bench, people

_LOG = logging.getLogger(__name__)
_RESERVE = 5
_REAL = (RateLimit(100, per=60), RateLimit(1000, per=3600))  # /getting-started/rate-limits
_SMALL = (RateLimit(25, per=60), RateLimit(145, per=3600))


def ideal_seconds(requests: int, limits: Sequence[RateLimit]) -> float:
    """Return when the last of so many requests can start, were each answered at once."""
    at: list[float] = []
    for number in range(requests):
        earliest = 0.0
        for limit in limits:
            if number >= limit.limit - _RESERVE:
                earliest = max(earliest, at[number - limit.limit + _RESERVE] + limit.per)
        at.append(earliest)
    return at[-1]


async def _run(count: int, limits: Sequence[RateLimit]) -> float:
    """Return how long inviting that many takes, against a server with these windows."""
    clock = VirtualClock()
    async with FakeGather(clock=clock, rate_limits=limits) as fake:
        bench = Bench(fake, clock)
        await bench.open()
        # The interview's own requests leave the windows first.
        await clock.sleep(3700)
        fake.set_latency(0.05, 0.3)
        began = clock.monotonic()
        report = await bench.job(
            people(count), client=bench.client(reserve=_RESERVE, rate_limits=limits)
        )
        took = clock.monotonic() - began
        assert (report.invited, report.requests) == (count, 1 + 2 * count)
        assert set(fake.invites_by_person.values()) == {1}
        assert [each.status for each in fake.requests if each.status == 429] == []
        await bench.aclose()
    return took


async def test_a_job_over_many_windows_finishes_as_soon_as_they_allow() -> None:
    """279 requests turn the short window often and the long one twice; nothing is refused."""
    took = await _run(139, _SMALL)
    # Each turn of a window loses its latency, 0.3 s at most.
    assert ideal_seconds(279, _SMALL) <= took <= ideal_seconds(279, _SMALL) * 1.01


@pytest.mark.slow
async def test_ten_thousand_people_finish_within_one_per_cent() -> None:
    """Twenty hours of quota: within 1 % of two requests a candidate over the ideal schedule."""
    took = await _run(10_000, _REAL)
    ideal = ideal_seconds(20_001, _REAL)
    _LOG.info("%.0f s, %.3f times the ideal %.0f s", took, took / ideal, ideal)
    assert ideal <= took <= ideal * 1.01
