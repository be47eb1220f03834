"""A bulk invite from its rows to its report."""

import asyncio
import csv
import random
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gather_async import errors
from gather_async.bulk import InviteStatus, StopReason, read_candidates
from gather_async.models.candidate import NewCandidate

from .conftest import Bench, people

CANDIDATES = ("POST", "/qsi/gather/candidates")
INVITES = ("POST", "/qsi/gather/candidate-interviews")


async def test_everyone_is_invited_with_two_requests(bench: Bench) -> None:
    """Each row costs one candidate and one invite; the job, a look at who is there."""
    report = await bench.job(people(40), delivery_types=["email"], expiry_days=7)
    assert (report.invited, report.total, report.requests) == (40, 40, 81)
    assert sorted(bench.sent[1:]) == sorted([CANDIDATES, INVITES] * 40)
    assert set(bench.invited.values()) == {1}
    assert len(bench.invited) == 40
    assert report.stopped is None
    assert report.unfinished == 0


async def test_bad_rows_are_rejected_and_never_sent(bench: Bench) -> None:
    """A bad row has its number and reason, and doesn't stop the others."""
    rows: list[Any] = people(6)
    rows[1] = {**rows[1], "phone": "12"}
    rows[2] = {**rows[2], "email": rows[0]["email"].upper()}
    rows[3] = 42
    rows[4] = {**rows[4], "external_id": "p-4"}
    rows.append({**people(1, first=9)[0], "external_id": "p-4"})
    report = await bench.job(rows)
    assert (report.invited, report.rejected, report.total) == (3, 4, 7)
    reasons = {outcome.row: outcome.reason for outcome in report.failures}
    assert list(reasons) == [2, 3, 4, 7]
    assert "repeats the email address of row 1" in str(reasons[3])
    assert "repeats the external id of row 5" in str(reasons[7])
    assert len(bench.fake.candidates) == 3


async def test_sms_needs_opt_in(bench: Bench) -> None:
    """With SMS, who didn't agree is rejected; who did is invited."""
    rows = [*people(2, sms_opt_in="yes"), *people(1, first=2)]
    report = await bench.job(rows, delivery_types=["email", "sms"])
    assert (report.invited, report.rejected) == (2, 1)
    (bad,) = report.failures
    assert isinstance(bad.error, errors.InviteNotDeliverableError)


async def test_each_candidate_has_an_external_id(bench: Bench) -> None:
    """The row's own external id is used, else one derived from the person."""
    rows = [people(1)[0], {**people(1, first=1)[0], "external_id": "mine"}]
    report = await bench.job(rows)
    first, second = report.outcomes
    assert [first.external_id, second.external_id] == [
        candidate["externalId"] for candidate in bench.fake.candidates
    ]
    assert second.external_id == "mine"
    assert re.fullmatch("bulk-[0-9a-f]{32}", str(first.external_id))
    assert first.candidate is not None
    assert first.candidate.external_id == first.external_id
    assert first.candidate_id in {candidate["id"] for candidate in bench.fake.candidates}


def _generated(count: int) -> Iterator[dict[str, Any]]:
    yield from people(count)


async def _streamed(count: int) -> AsyncIterator[NewCandidate]:
    for row in people(count):
        yield NewCandidate(**row)


async def test_any_source_will_do(bench: Bench, tmp_path: Path) -> None:
    """Lists, generators, async generators and files are all read to their end."""
    path = tmp_path / "people.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, people(1)[0])
        writer.writeheader()
        writer.writerows(people(300))
    for source in (people(300), _generated(300), _streamed(300), read_candidates(path)):
        report = await bench.job(source, dry_run=True)
        assert (report.ready, report.total) == (300, 300)


@pytest.mark.parametrize("source", ["a.csv", {"email": "x"}, b"x", 7, None])
async def test_what_is_no_source_is_refused(bench: Bench, source: Any) -> None:
    """A path or a single row in place of rows is reported at the call."""
    with pytest.raises(errors.ConfigurationError, match="read_candidates"):
        bench.job(source)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"delivery_types": []}, errors.InviteNotDeliverableError),
        ({"delivery_types": "email"}, errors.ConfigurationError),
        ({"delivery_types": ["email", "SMS"]}, errors.InviteNotDeliverableError),
        ({"delivery_types": ["emial"]}, errors.InviteNotDeliverableError),
        ({"interview_id": " "}, errors.ConfigurationError),
        ({"concurrency": 0}, errors.ConfigurationError),
        ({"expiry_days": 0}, errors.ConfigurationError),
        ({"on_existing": "ask"}, errors.ConfigurationError),
        ({"grace": -1.0}, errors.ConfigurationError),
        ({"max_consecutive_failures": 0}, errors.ConfigurationError),
        ({"journal": ""}, errors.ConfigurationError),
        ({"total": -1}, errors.ConfigurationError),
        ({"lease": object()}, errors.ConfigurationError),
    ],
)
async def test_wrong_arguments_are_reported_at_the_call(
    bench: Bench, options: dict[str, Any], error: type[Exception]
) -> None:
    """Nothing is opened or sent for arguments that can't work."""
    with pytest.raises(error):
        bench.job(people(1), **options)


async def test_a_source_that_raises_ends_the_job(bench: Bench, tmp_path: Path) -> None:
    """Rows before the error are kept; the error is the source's own."""

    def broken() -> Iterator[dict[str, Any]]:
        yield from people(3)
        raise LookupError("the database is gone")

    job = bench.job(broken(), journal=tmp_path / "j.db", grace=100.0)
    with pytest.raises(LookupError, match="database"):
        await job
    assert job.report is not None
    assert job.report.total == 3
    report = await bench.job(people(4), journal=tmp_path / "j.db")
    assert report.invited == 4
    assert set(bench.invited.values()) == {1}


async def test_the_report_lists_every_row(bench: Bench, tmp_path: Path) -> None:
    """``to_csv`` writes one line for each row of the source, without personal data."""
    rows: list[Any] = people(5)
    rows[2] = {"email": "x"}
    report = await bench.job(rows)
    report.to_csv(tmp_path / "out.csv")
    text = (tmp_path / "out.csv").read_text(encoding="utf-8")
    lines = list(csv.DictReader(text.splitlines()))
    assert [line["row"] for line in lines] == ["1", "2", "3", "4", "5"]
    assert {line["line"] for line in lines} == {""}
    assert [line["status"] for line in lines].count("invited") == 4
    assert lines[2]["error"] == "InvalidRequestError"
    assert lines[2]["reason"] == "The row has no first_name."
    assert "example.com" not in text
    assert "+1202" not in text


async def test_a_refused_row_fails_and_the_others_go_on(bench: Bench, tmp_path: Path) -> None:
    """What the server refuses is failed for good; the next run doesn't try it again."""
    bench.fake.fail_next(status=400, path="/qsi/gather/candidates", method="POST")
    report = await bench.job(people(5), journal=tmp_path / "j.db")
    assert (report.invited, report.failed) == (4, 1)
    (bad,) = report.failures
    assert isinstance(bad.error, errors.BadRequestError)
    sent = len(bench.sent)
    report = await bench.job(people(5), journal=tmp_path / "j.db")
    assert (report.invited, report.failed) == (4, 1)
    assert len(bench.sent) == sent


async def test_an_unknown_interview_ends_the_job_with_the_first_row(bench: Bench) -> None:
    """Only one candidate is created in vain, and the error is raised."""
    job = bench.job(people(50), interview_id="00000000-0000-4000-8000-000000000000")
    with pytest.raises(errors.NotFoundError):
        await job
    assert len(bench.fake.candidates) == 1
    assert job.report is not None
    assert job.report.invited == 0


async def test_lost_answers_invite_no_one_twice(bench: Bench) -> None:
    """Each kind of fault on each write: one candidate and one invite a person."""
    bench.fake.chaos(
        errors_500=0.03, errors_500_after=0.03, html_503=0.02, cut_before=0.03, cut_after=0.06
    )
    report = await bench.job(people(60), delivery_types=["email"])
    assert report.invited == 60
    assert set(bench.invited.values()) == {1}
    assert len(bench.fake.candidates) == 60


async def test_a_second_candidate_interview_is_never_sent_after_a_conflict(bench: Bench) -> None:
    """A server that answers 409 to what it has is believed, and the row is distinguished."""
    bench.fake.fail_next(
        status=409, path="/qsi/gather/candidate-interviews", method="POST", after_processing=True
    )
    report = await bench.job(people(3))
    assert (report.invited, report.already_invited) == (2, 1)
    assert set(bench.invited.values()) == {1}


async def test_rows_are_worked_on_side_by_side_within_bounds(bench: Bench) -> None:
    """No more than ``concurrency`` requests are on the wire at once, and that many are."""
    bench.fake.set_latency(0.5, 0.5)
    began = bench.clock.monotonic()
    await bench.job(people(41), concurrency=10)
    # A look-up, and the first row alone; then forty rows in four rounds, two requests each.
    assert bench.clock.monotonic() - began == pytest.approx(0.5 + 2 * 0.5 * (1 + 4), rel=0.02)


async def test_outcomes_come_as_rows_end(bench: Bench) -> None:
    """Iterating gives one outcome a row, and the report agrees."""
    rows: list[Any] = [*people(150), {}]
    random.Random(1).shuffle(rows)
    job = bench.job(rows)
    streamed = [outcome async for outcome in job]
    assert sorted(outcome.row for outcome in streamed) == list(range(1, 152))
    assert all(
        outcome.candidate is not None and outcome.candidate_interview_id
        for outcome in streamed
        if outcome.status is InviteStatus.INVITED
    )
    report = await job
    assert sorted(streamed, key=lambda outcome: outcome.row) == list(report.outcomes)
    assert await job is report
    again = [outcome async for outcome in job]
    assert len(again) == len(report.outcomes) == 151


async def test_leaving_the_loop_lets_the_job_go_on(bench: Bench) -> None:
    """A reader that leaves early holds no one up; awaiting gives the whole report."""
    job = bench.job(people(200))
    async for _ in job:
        break
    report = await job
    assert report.invited == 200


async def test_awaiting_inside_the_loop_doesnt_hang(bench: Bench) -> None:
    """Who awaits the job while reading its outcomes gets the report, and the loop ends."""
    job = bench.job(people(200))
    read = 0
    async for _ in job:
        read += 1
        assert (await job).invited == 200
    assert 1 <= read <= 200


async def test_a_job_that_is_slow_to_be_read_waits(bench: Bench) -> None:
    """Outcomes aren't piled up: the job goes no further than its reader lets it."""
    job = bench.job(people(400))
    reader = aiter(job)
    await anext(reader)
    await bench.clock.sleep(3600)
    assert job.progress.done < 150
    rest = [outcome async for outcome in reader]
    assert len(rest) == 399


class _Lease:
    """A lease without a server."""

    def __init__(self, *, is_held_elsewhere: bool = False) -> None:
        self.lost = asyncio.Event()
        self.history: list[str] = []
        self._is_held_elsewhere = is_held_elsewhere

    async def __aenter__(self) -> None:
        if self._is_held_elsewhere:
            raise errors.LeaseHeldError("Another machine runs it.", wait=30.0)
        self.history.append("entered")

    async def __aexit__(self, *_: object) -> None:
        self.history.append("left")


async def test_a_job_holds_its_lease_while_it_runs(bench: Bench, tmp_path: Path) -> None:
    """The lease is held from before the journal is opened until the job has ended, whole or not."""
    lease = _Lease()
    job = bench.job(people(20), lease=lease, journal=tmp_path / "j.db")
    assert lease.history == []
    during = [list(lease.history) async for _ in job]
    assert (during[0], lease.history) == (["entered"], ["entered", "left"])
    assert (await job).stopped is None
    bench.fake.fail_next(status=401, path="/qsi/gather/candidates", method="POST")
    failing = _Lease()
    with pytest.raises(errors.AuthenticationError):
        await bench.job(people(1, first=50), lease=failing)
    assert failing.history == ["entered", "left"]
    dry = _Lease()
    assert (await bench.job(people(3), lease=dry, dry_run=True)).ready == 3
    assert dry.history == []


async def test_a_lease_that_is_held_elsewhere_refuses_the_job(bench: Bench, tmp_path: Path) -> None:
    """The lease's own error is raised, before anything is opened or sent."""
    job = bench.job(people(3), lease=_Lease(is_held_elsewhere=True), journal=tmp_path / "j.db")
    with pytest.raises(errors.LeaseHeldError) as caught:
        await job
    assert caught.value.wait == 30.0
    assert (bench.sent, list(tmp_path.iterdir())) == ([], [])


async def test_a_lost_lease_stops_the_job_resumably(bench: Bench, tmp_path: Path) -> None:
    """Once the lease is lost nothing new is begun, and the next run does exactly the rest."""
    bench.fake.set_latency(0.5, 0.5)
    lease = _Lease()
    job = bench.job(people(60), lease=lease, journal=tmp_path / "j.db", concurrency=4)
    running = asyncio.ensure_future(job)
    await bench.clock.sleep(6.2)
    lease.lost.set()
    await asyncio.sleep(0)
    sent = len(bench.sent)
    report = await running
    assert (report.stopped, lease.history) == (StopReason.LEASE_LOST, ["entered", "left"])
    assert 0 < report.invited < 60
    # What was on the wire has ended; nothing was sent after the loss.
    assert len(bench.sent) <= sent + 4
    report = await bench.job(people(60), lease=_Lease(), journal=tmp_path / "j.db")
    assert (report.invited, report.stopped) == (60, None)
    assert set(bench.invited.values()) == {1}


async def test_a_lease_lost_at_once_lets_nothing_begin(bench: Bench, tmp_path: Path) -> None:
    """A lease that is lost before the first row was read costs no request."""
    lease = _Lease()
    lease.lost.set()
    report = await bench.job(people(3), lease=lease, journal=tmp_path / "j.db")
    assert (report.stopped, report.invited) == (StopReason.LEASE_LOST, 0)
    assert bench.sent == []
