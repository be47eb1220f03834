"""A server that commits late and lists late: no one twice, no one lost, at what cost."""

import logging
import random
from pathlib import Path
from typing import Any

import pytest

from gather_async.bulk import BulkInvite, InviteReport
from gather_async.client import GatherClient
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.testing import VirtualClock

from .conftest import people
from .late_server import LateServer

_LOG = logging.getLogger(__name__)
_FREE = [RateLimit(1_000_000, per=60)]


async def _invite(
    server: LateServer,
    clock: VirtualClock,
    rows: int | list[dict[str, Any]],
    **options: Any,
) -> InviteReport:
    """Invite people, or so many, through a new client."""
    rows = people(rows) if isinstance(rows, int) else rows
    async with GatherClient(
        "key", base_url=server.base_url, clock=clock, rng=random.Random(1), rate_limits=_FREE
    ) as gather:
        job = BulkInvite(gather, rows, interview_id="interview", **options)
        return await job


@pytest.mark.parametrize(
    ("commits_after", "lists_after"), [(0.0, 0.0), (3.0, 0.0), (0.0, 30.0), (40.0, 40.0)]
)
async def test_no_one_is_invited_twice_by_a_late_server(
    commits_after: float, lists_after: float
) -> None:
    """14 % faults; what is given up is committed and listed within the in-flight timeout."""
    clock = VirtualClock()
    async with LateServer(
        clock, random.Random(5), commits_after=commits_after, lists_after=lists_after
    ) as server:
        report = await _invite(server, clock, 60)
        assert report.invited == 60
        assert sorted(server.candidates.values()) == [1] * 60
        assert sorted(server.invites.values()) == [1] * 60


async def test_a_list_that_lags_for_longer_is_not_promised() -> None:
    """A shorter in-flight timeout than the server's lag costs second invites: it decides."""
    clock = VirtualClock()
    async with LateServer(clock, random.Random(5), lists_after=30.0) as server:
        await _invite(server, clock, 60, in_flight_timeout=10.0)
        assert max(server.candidates.values()) > 1


async def test_other_rows_go_on_while_one_is_in_doubt() -> None:
    """A postponed row holds no place: with a single one, all others end before it is sent again."""
    clock = VirtualClock()
    server = LateServer(
        clock, random.Random(2), faults=0.0, lost_writes=frozenset({("candidates", 2)})
    )
    async with server:
        async with GatherClient(
            "key", base_url=server.base_url, clock=clock, rate_limits=_FREE
        ) as gather:
            began = clock.monotonic()
            job = BulkInvite(gather, people(20), interview_id="interview", concurrency=1)
            ended = [(outcome.row, clock.monotonic() - began) async for outcome in job]
            assert (await job).invited == 20
        assert [row for row, _ in ended] == [1, *range(3, 21), 2]
        assert [at for _, at in ended] == pytest.approx([0.0] * 19 + [120.0])
        assert sorted(server.invites.values()) == [1] * 20


async def test_a_lost_answer_is_found_early() -> None:
    """What was carried out is found after a tenth of the time, and costs one look-up."""
    clock = VirtualClock()
    server = LateServer(
        clock,
        random.Random(2),
        faults=0.0,
        unanswered_writes=frozenset({("candidateInterviews", 2)}),
    )
    async with server:
        began = clock.monotonic()
        report = await _invite(server, clock, 2, concurrency=1)
        assert (report.invited, report.requests) == (2, 1 + 4 + 1)
        assert clock.monotonic() - began == pytest.approx(12.0)
        assert sorted(server.invites.values()) == [1, 1]


async def test_a_duplicate_that_is_listed_late_is_waited_for() -> None:
    """409 for what the row's own lost request made is no refusal, though the list lags."""
    clock = VirtualClock()
    server = LateServer(
        clock,
        random.Random(2),
        faults=0.0,
        lists_after=200.0,
        refuses_duplicates=True,
        unanswered_writes=frozenset({("candidates", 2)}),
    )
    async with server:
        report = await _invite(server, clock, 3)
        assert (report.invited, report.failed) == (3, 0)
        assert sorted(server.candidates.values()) == [1, 1, 1]
        assert sorted(server.invites.values()) == [1, 1, 1]


async def test_another_person_under_the_external_id_is_not_the_lost_one() -> None:
    """Who has the row's own external id, and another address, is met by the caller's rule."""
    clock = VirtualClock()
    server = LateServer(
        clock, random.Random(2), faults=0.0, lost_writes=frozenset({("candidates", 1)})
    )
    async with server:
        other = {"externalId": "own-1", "email": "other@example.com"}
        clock.call_later(1.0, lambda: server.make("candidates", other))
        rows = people(1, external_id="own-1")
        report = await _invite(server, clock, rows, on_existing="skip")
        assert (report.invited, report.skipped) == (0, 1)
        assert server.invites.total() == 0


async def test_a_server_that_is_away_for_minutes_costs_no_row() -> None:
    """Rows on their way together fail once; then one row at a time tries, after longer pauses."""
    clock = VirtualClock()
    async with LateServer(clock, random.Random(2), faults=1.0) as server:
        clock.call_later(60.0, lambda: setattr(server, "faults", 0.0))
        report = await _invite(server, clock, 100)
        assert (report.invited, report.stopped) == (100, None)
        assert sorted(server.invites.values()) == [1] * 100


@pytest.mark.slow
@pytest.mark.parametrize("late", [3.0, 10.0, 30.0, 50.0])
async def test_three_hundred_people_of_a_late_server(late: float, tmp_path: Path) -> None:
    """Commits and lists late by as much, 14 % faults: once each, below three requests a row."""
    clock = VirtualClock()
    async with LateServer(clock, random.Random(7), commits_after=late, lists_after=late) as server:
        report = await _invite(server, clock, 300, journal=tmp_path / "j.db")
        _LOG.info(
            "%.0f s late: %.2f requests a row, %.0f s",
            late,
            server.requests.total() / 300,
            clock.monotonic(),
        )
        assert report.invited == 300
        assert sorted(server.candidates.values()) == [1] * 300
        assert sorted(server.invites.values()) == [1] * 300
        assert server.requests.total() / 300 < 3.0
