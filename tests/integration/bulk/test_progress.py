"""Telling how far a job is, and what it will cost."""

import gc
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from gather_async.bulk import InviteProgress, InviteStatus, LookupStrategy
from gather_async.bulk.execution import JobExecution
from gather_async.bulk.runner import Runner
from gather_async.protocol.rolling_windows import RateLimit

from .conftest import Bench, content, names_in, people


async def test_progress_is_notified_at_most_ten_times_a_second(bench: Bench) -> None:
    """However fast rows end, the callback comes every tenth of a second and at the end."""
    bench.fake.set_latency(0.03, 0.03)
    reported: list[tuple[float, InviteProgress]] = []
    rows = [*people(60), {}]
    await bench.job(
        rows,
        concurrency=2,
        on_progress=lambda progress: reported.append((bench.clock.monotonic(), progress)),
    )
    assert all(later - earlier >= 0.099 for (earlier, _), (later, _) in pairwise(reported[:-1]))
    assert len(reported) > 3
    last = reported[-1][1]
    assert (last.done, last.total, last.requests_left, last.requests_sent) == (61, 61, 0, 121)
    assert last.counts == {InviteStatus.INVITED: 60, InviteStatus.REJECTED: 1}
    assert last.remaining == timedelta(0)
    assert all(0 <= progress.done <= 61 for _, progress in reported)


async def test_the_finish_follows_from_the_quota(bench: Bench) -> None:
    """With 20 requests a minute, 99 rows take nine more windows: progress says so at once."""
    limits = [RateLimit(25, per=60)]
    reported: list[InviteProgress] = []
    client = bench.client(rate_limits=limits)
    began = bench.clock.wall()
    await bench.job(people(99), client=client, on_progress=reported.append)
    finished = bench.clock.wall()
    first = reported[0]
    assert first.total == 99
    assert first.requests_left == pytest.approx(200, abs=40)
    assert first.finish_at.timestamp() == pytest.approx(finished, abs=30)
    assert finished - began == pytest.approx(9 * 60, abs=5)


async def test_a_generators_length_is_unknown_until_its_end_or_given(bench: Bench) -> None:
    """``total`` is None for a generator, unless the caller knows it."""
    reported: list[InviteProgress] = []
    await bench.job(iter(people(300)), on_progress=reported.append)
    assert reported[0].total is None
    assert reported[-1].total == 300
    reported.clear()
    await bench.job(iter(people(300)), on_progress=reported.append, total=300)
    assert reported[0].total == 300


async def test_a_callback_that_raises_is_dropped(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken progress bar is logged once and stops nothing."""
    caplog.set_level("WARNING", logger="gather_async")  # whatever frameworks set up before

    def broken(progress: InviteProgress) -> None:
        raise RuntimeError("no terminal")

    report = await bench.job(people(5), on_progress=broken)
    assert report.invited == 5
    assert [record.message for record in caplog.records] == [
        "on_progress raised, and will not be called again"
    ]


async def test_a_dry_run_checks_and_estimates_and_sends_nothing(bench: Bench) -> None:
    """Every row is validated; requests and finish follow from the real quota."""
    rows = [*people(1000), {}, people(1)[0]]
    client = bench.client(rate_limits=[RateLimit(100, per=60), RateLimit(1000, per=3600)])
    job = bench.job(rows, dry_run=True, client=client)
    report = await job
    assert bench.sent == []
    assert (report.ready, report.rejected, report.invited) == (1000, 2, 0)
    plan = report.plan
    assert plan is not None
    assert (plan.rows, plan.writes, plan.requests) == (1002, 2000, 2001)
    assert plan.lookups is LookupStrategy.UNDECIDED
    # 995 an hour beside the reserve, 95 a minute within it.
    assert plan.duration.total_seconds() == pytest.approx(2 * 3600, abs=60)
    assert plan.finish_at.timestamp() == pytest.approx(
        bench.clock.wall() + plan.duration.total_seconds()
    )
    statuses = [outcome.status for outcome in report.outcomes]
    assert statuses.count(InviteStatus.READY) == 1000


async def test_a_dry_run_over_a_journal_counts_what_is_left(bench: Bench, tmp_path: Path) -> None:
    """What earlier runs did isn't planned again, and the journal's file isn't touched."""
    journal = tmp_path / "j.db"
    await bench.job(people(10), journal=journal)
    held = content(journal)
    sent = len(bench.sent)
    report = await bench.job(people(15), journal=journal, dry_run=True)
    assert (report.invited, report.ready) == (10, 5)
    assert report.plan is not None
    assert report.plan.requests == 1 + 10
    assert len(bench.sent) == sent
    assert content(journal) == held
    assert names_in(tmp_path) == ["j.db"]
    assert len(list(report.outcomes)) == 15


async def test_the_job_shows_itself(bench: Bench) -> None:
    """``repr``, ``plan``, ``progress`` and ``report`` work before, during and after."""
    job = bench.job(people(3))
    assert repr(job) == "<BulkInvite new, 0 rows done>"
    assert job.report is None
    assert job.plan.requests == 0
    report = await job
    assert repr(job) == "<BulkInvite over, 3 rows done>"
    assert job.report is report
    assert job.progress.done == 3
    assert "row-1" not in repr([*report.outcomes])


async def test_no_part_of_a_job_shows_its_rows(bench: Bench) -> None:
    """Error reporters print the locals of frames, and so each `self`."""
    shown = list[str]()

    def show(_: InviteProgress) -> None:
        parts = (each for each in gc.get_objects() if type(each) in {JobExecution, Runner})
        shown.extend(map(repr, parts))

    await bench.job(people(2, last_name="Secret"), on_progress=show)
    assert any("JobExecution" in each for each in shown)
    assert any("Runner" in each for each in shown)
    assert not [each for each in shown if "Secret" in each]
