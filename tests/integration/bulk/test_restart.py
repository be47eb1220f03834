"""Stopping, failing and going on: the journal is consistent at every end."""

import asyncio
import math
import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gather_async import errors
from gather_async.bulk import InviteStatus, StopReason
from gather_async.bulk.journal import Journal
from gather_async.bulk.row_state import RowRecord, RowState
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.storage import FileLock

from .conftest import NO_RETRY, Bench, content, names_in, people


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the job's journal is."""
    return tmp_path / "invites.db"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A file that is no database."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes, of more than a hundred bytes. " * 50, encoding="utf-8")
    return path


async def test_a_second_run_sends_nothing_and_shows_the_same(bench: Bench, journal: Path) -> None:
    """The same call again with the same journal: same report, no requests, same outcomes."""
    first = await bench.job(people(20), journal=journal)
    sent = len(bench.sent)
    job = bench.job(people(20), journal=journal)
    assert job.progress.earlier == 0
    outcomes = [outcome async for outcome in job]
    second = await job
    assert len(bench.sent) == sent
    assert second.requests == 0
    assert (job.progress.done, job.progress.earlier) == (20, 20)
    assert (second.invited, second.total) == (first.invited, first.total) == (20, 20)
    assert all(outcome.earlier for outcome in outcomes)
    assert [o.candidate_interview_id for o in first.outcomes] == [
        o.candidate_interview_id for o in outcomes
    ]
    assert list(second.outcomes) == outcomes


async def test_more_rows_can_be_added_at_the_end(bench: Bench, journal: Path) -> None:
    """A source that has grown invites the new rows only."""
    await bench.job(people(5), journal=journal)
    report = await bench.job(people(8), journal=journal)
    assert (report.invited, report.requests) == (8, 7)


@pytest.mark.parametrize("state", [RowState.CANDIDATE_PENDING, RowState.INVITE_PENDING])
async def test_a_request_announced_as_the_job_stops_is_not_waited_for(
    bench: Bench, journal: Path, monkeypatch: pytest.MonkeyPatch, state: RowState
) -> None:
    """What is announced and not sent, as the job stops meanwhile, is sent at once by the next."""
    save = Journal.save
    job = bench.job(people(3), journal=journal)

    async def stop_then_save(self: Journal, record: RowRecord) -> None:
        if record.state is state:
            job.stop()
        await save(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "save", stop_then_save)
        assert (await job).stopped is StopReason.ASKED
    began = bench.fake.clock.monotonic()
    report = await bench.job(people(3), journal=journal)
    assert report.invited == 3
    assert bench.fake.clock.monotonic() - began < 10.0
    assert set(bench.invited.values()) == {1}


async def test_stop_begins_nothing_new_and_the_next_run_goes_on(
    bench: Bench, journal: Path
) -> None:
    """``stop`` lets what is on the wire end; no one is left out or invited twice."""
    bench.fake.set_latency(0.1, 0.4)
    job = bench.job(people(60), journal=journal)
    ended = 0
    async for _ in job:
        ended += 1
        if ended == 10:
            job.stop()
            job.stop()
    report = await job
    assert report.stopped is StopReason.ASKED
    assert 10 <= report.invited < 60
    assert report.unfinished == report.total - report.invited > 0
    statuses = [outcome.status for outcome in report.outcomes]
    assert statuses.count(InviteStatus.UNFINISHED) == report.unfinished
    created = len(bench.fake.candidates) - report.invited
    report = await bench.job(people(60), journal=journal)
    assert (report.invited, report.stopped) == (60, None)
    assert set(bench.invited.values()) == {1}
    assert len(bench.fake.candidates) == 60
    # Everything on the wire had ended: each run looked once whether others are there, and
    # the second one once more for those who were created and not invited by then.
    assert created > 0
    assert len(bench.sent) == 120 + 2 + 1


async def test_stopping_before_the_start_does_nothing(bench: Bench) -> None:
    """A job that was stopped before it ran reports no row."""
    job = bench.job(people(5))
    job.stop()
    report = await job
    assert (report.total, report.stopped) == (0, StopReason.ASKED)
    assert bench.sent == []


async def test_rows_that_wait_for_the_quota_stop_at_once(bench: Bench, journal: Path) -> None:
    """Stopping takes no grace for what is not on the wire, and sends nothing of it."""
    client = bench.client(rate_limits=[RateLimit(20, per=3600)], reserve=0)
    job = bench.job(people(50), journal=journal, client=client)
    running = asyncio.ensure_future(_awaited(job))
    await bench.fake.wait_for_requests(bench.before + 20)
    bench.clock.autojump = False
    await asyncio.sleep(0.0)
    began = bench.clock.monotonic()
    job.stop()
    report = await running
    assert bench.clock.monotonic() == began
    assert report.requests == 20
    assert report.stopped is StopReason.ASKED


async def _awaited(job: Any) -> Any:
    return await job


@pytest.mark.parametrize("moment", [0, 1, 7, 23, 60])
async def test_cancelling_lets_requests_end_and_goes_on_later(
    bench: Bench, journal: Path, moment: int
) -> None:
    """Cancelling at any time raises, closes the journal, and loses nothing."""
    bench.fake.set_latency(0.1, 0.4)
    job = bench.job(people(40), journal=journal)
    running = asyncio.ensure_future(_awaited(job))
    await bench.fake.wait_for_requests(bench.before + moment)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    before = len(bench.sent)
    report = await bench.job(people(40), journal=journal)
    assert report.invited == 40
    assert set(bench.invited.values()) == {1}
    assert len(bench.fake.candidates) == 40
    assert len(bench.sent) - before <= 1 + 80


async def test_cancelling_who_reads_outcomes_stops_the_job(bench: Bench, journal: Path) -> None:
    """A task that is cancelled while it waits for the next outcome takes the job along."""
    bench.fake.set_latency(0.1, 0.4)
    job = bench.job(people(40), journal=journal)

    async def read() -> None:
        async for _ in job:
            pass

    running = asyncio.ensure_future(read())
    await bench.fake.wait_for_requests(bench.before + 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert job.report is not None
    assert job.report.stopped is StopReason.ASKED
    sent = len(bench.sent)
    await bench.clock.sleep(3600)
    assert len(bench.sent) == sent
    assert (await bench.job(people(40), journal=journal)).invited == 40
    assert set(bench.invited.values()) == {1}


async def test_cancelling_twice_spares_the_grace(bench: Bench, journal: Path) -> None:
    """Who can't wait for what is on the wire cancels again; the journal is closed all the same."""
    bench.fake.slow_next(math.inf, times=math.inf)
    job = bench.job(people(5), journal=journal, grace=1000.0, client=bench.client(timeout=9999.0))
    running = asyncio.ensure_future(_awaited(job))
    await bench.fake.wait_for_requests(bench.before + 1)
    bench.clock.autojump = False
    running.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    bench.clock.autojump = True
    bench.fake.clear_faults()
    assert (await bench.job(people(5), journal=journal)).invited == 5
    assert set(bench.invited.values()) == {1}


async def test_a_journal_that_cant_be_written_ends_the_job(bench: Bench, journal: Path) -> None:
    """A broken or full disk raises; nothing is sent that could not be written down."""
    job = bench.job(people(100), journal=journal)

    async def break_it() -> None:
        async for _ in job:
            with sqlite3.connect(journal) as connection:
                connection.execute("ALTER TABLE rows RENAME TO gone")
            connection.close()
            await job

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await break_it()
    with sqlite3.connect(journal) as connection:
        connection.execute("ALTER TABLE gone RENAME TO rows")
    connection.close()
    assert (await bench.job(people(100), journal=journal)).invited == 100
    assert set(bench.invited.values()) == {1}


async def test_interactive_calls_go_ahead_of_a_waiting_job(bench: Bench) -> None:
    """A job that has used its share of the quota leaves the reserve to others."""
    client = bench.client(rate_limits=[RateLimit(20, per=3600)], reserve=5)
    job = bench.job(people(50), client=client)
    running = asyncio.ensure_future(_awaited(job))
    await bench.fake.wait_for_requests(bench.before + 15)
    began = bench.clock.monotonic()
    await client.candidates.list()
    assert bench.clock.monotonic() - began < 1.0
    job.stop()
    assert (await running).requests == 15


async def test_a_request_that_outlasts_the_grace_is_looked_up(bench: Bench, journal: Path) -> None:
    """The grace is bounded; what it cut off is found by the next run, not sent again."""
    bench.fake.slow_next(math.inf, after_processing=True, path="/qsi/gather/candidate-interviews")
    job = bench.job(people(1), journal=journal, grace=3.0, client=bench.client(timeout=600.0))
    running = asyncio.ensure_future(_awaited(job))
    await bench.fake.wait_for_requests(bench.before + 3)
    began = bench.clock.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert bench.clock.monotonic() - began == pytest.approx(3.0)
    report = await bench.job(people(1), journal=journal)
    assert (report.invited, report.requests) == (1, 1)
    assert set(bench.invited.values()) == {1}


async def test_a_bad_key_stops_at_once_and_the_rest_is_untouched(
    bench: Bench, journal: Path
) -> None:
    """401 raises, whatever else is going on; another run with a good key goes on."""
    bench.fake.set_latency(0.1, 0.4)
    bench.fake.fail_next(status=401, times=math.inf)
    job = bench.job(people(50), journal=journal)
    with pytest.raises(errors.AuthenticationError):
        await job
    assert len(bench.sent) == 1
    assert job.report is not None
    assert job.report.unfinished == 50
    bench.fake.clear_faults()
    report = await bench.job(people(50), journal=journal)
    assert report.invited == 50
    assert set(bench.invited.values()) == {1}


async def test_a_server_that_fails_everything_trips_the_breaker(
    bench: Bench, journal: Path
) -> None:
    """After a run of failures the job reports; it resumes when the server is well."""
    bench.fake.fail_next(status=500, times=math.inf)
    client = bench.client(retry=NO_RETRY)
    report = await bench.job(
        people(200), journal=journal, client=client, max_consecutive_failures=8
    )
    assert report.stopped is StopReason.BREAKER
    assert isinstance(report.error, errors.ServerError)
    assert report.invited == 0
    assert report.failed <= 1
    assert len(bench.fake.candidates) == 0
    bench.fake.clear_faults()
    report = await bench.job(people(200), journal=journal)
    assert (report.invited, report.failed, report.stopped) == (200, 0, None)
    assert set(bench.invited.values()) == {1}


async def test_a_server_that_refuses_everything_trips_the_breaker(bench: Bench) -> None:
    """A run of refusals stops the job as well, before it has burnt through the source."""
    bench.fake.fail_next(status=400, times=math.inf, method="POST")
    report = await bench.job(people(300), max_consecutive_failures=10)
    assert report.stopped is StopReason.BREAKER
    assert 10 <= report.failed <= 10 + 16


async def test_what_could_not_be_reached_is_tried_again_by_the_next_run(
    bench: Bench, journal: Path
) -> None:
    """A row that is given up counts as failed, and ends well in the next run."""
    path = "/qsi/gather/candidate-interviews"
    bench.fake.drop_next(after_processing=True, path=path, method="POST")
    bench.fake.fail_next(status=500, times=math.inf, path=path, method="GET")
    client = bench.client(retry=NO_RETRY)
    report = await bench.job(people(1), journal=journal, client=client)
    assert (report.invited, report.failed) == (0, 1)
    (bad,) = report.failures
    assert bad.status is InviteStatus.FAILED
    bench.fake.clear_faults()
    report = await bench.job(people(1), journal=journal)
    assert (report.invited, report.failed) == (1, 0)
    assert set(bench.invited.values()) == {1}


async def test_a_closed_client_ends_the_job(bench: Bench, journal: Path) -> None:
    """Closing the client under a job raises, and leaves it to be resumed."""
    client = bench.client()
    job = bench.job(people(50), journal=journal, client=client)

    async def close_early() -> None:
        async for _ in job:
            await client.aclose()

    with pytest.raises(errors.ClientClosedError):
        await close_early()
    report = await bench.job(people(50), journal=journal)
    assert report.invited == 50
    assert set(bench.invited.values()) == {1}


async def test_a_changed_row_is_named_by_its_fields(bench: Bench, journal: Path) -> None:
    """A row that changed after it was sent keeps its state; its outcome names the fields."""
    rows = people(10)
    await bench.job(rows, journal=journal)
    rows[6] = {**rows[6], "email": "other@example.com"}
    rows[2] = {**rows[2], "phone": "+12025550123", "last_name": "Married"}
    report = await bench.job(rows, journal=journal)
    assert (report.invited, report.requests) == (10, 0)
    assert {each.row: each.changed for each in report.failures} == {
        3: ("last_name", "phone"),
        7: ("email",),
    }
    reasons = [str(each.reason) for each in report.failures]
    assert "The row's last_name and phone changed after it was sent" in reasons[0]
    assert not any(value in "".join(reasons) for value in ("other@", "555", "Married"))
    live = {each.row: each.changed async for each in bench.job(rows, journal=journal)}
    assert live[7] == ("email",)
    restored = await bench.job(people(10), journal=journal)
    assert list(restored.failures) == []
    assert set(bench.invited.values()) == {1}
    assert len(bench.invited) == 10


@pytest.mark.parametrize("has_ids", [False, True])
async def test_a_source_may_be_sorted_anew(bench: Bench, journal: Path, has_ids: bool) -> None:
    """People are known wherever they stand: reversed, shifted, with rows added and removed."""
    rows = [
        {**row, "external_id": f"own-{number}"} if has_ids and number % 3 == 0 else row
        for number, row in enumerate(people(60))
    ]
    bench.fake.set_latency(0.1, 0.4)
    job = bench.job(rows, journal=journal)
    async for _ in job:
        if job.progress.done >= 20:
            job.stop()
    report = await bench.job([*people(1, first=99), *reversed(rows)], journal=journal)
    assert (report.invited, report.rejected, report.failed, report.total) == (61, 0, 0, 61)
    shifted = rows[25:] + rows[:20]
    report = await bench.job(shifted, journal=journal)
    assert (report.invited, report.total, report.requests) == (55, 55, 0)
    assert [each.row for each in report.outcomes] == list(range(1, 56))
    report = await bench.job(rows, journal=journal)
    assert (report.invited, report.requests) == (60, 0)
    assert set(bench.invited.values()) == {1}
    assert len(bench.fake.candidates) == 61


async def test_a_lost_journal_invites_no_one_again(bench: Bench, journal: Path) -> None:
    """The same people with a new journal: people who were created or invited is found again."""
    bench.fake.set_latency(0.1, 0.4)
    job = bench.job(people(40), journal=journal)
    async for _ in job:
        if job.progress.done >= 20:
            job.stop()
    done = (await job).invited
    journal.unlink()
    rows = [{**row, "email": str(row["email"]).upper()} for row in people(40)]
    report = await bench.job(rows, journal=journal)
    assert (report.invited, report.already_invited) == (40 - done, done)
    assert set(bench.invited.values()) == {1}
    assert len(bench.fake.candidates) == 40
    sent = len(bench.sent)
    report = await bench.job(people(40))
    assert report.already_invited == 40
    # One page of the people, one of the invites.
    assert len(bench.sent) - sent == 2


async def test_a_changed_invitation_opens_what_was_refused(bench: Bench, journal: Path) -> None:
    """What was refused with one invitation is tried again with another, and only then."""
    for path in ("/qsi/gather/candidates", "/qsi/gather/candidate-interviews"):
        bench.fake.fail_next(status=400, path=path, method="POST", times=2)
    report = await bench.job(people(6), journal=journal, expiry_days=400, concurrency=1)
    assert (report.invited, report.failed) == (2, 4)
    assert (await bench.job(people(6), journal=journal, expiry_days=400)).failed == 4
    report = await bench.job(people(6), journal=journal, expiry_days=30)
    assert (report.invited, report.failed) == (6, 0)
    assert set(bench.invited.values()) == {1}


async def test_a_row_that_never_reached_the_server_can_be_mended(
    bench: Bench, journal: Path
) -> None:
    """A rejected row that was corrected is sent by the next run; so is a refused one."""
    rows = people(4)
    good, rows[1] = rows[1], {**rows[1], "phone": "nonsense"}
    bench.fake.fail_next(status=400, path="/qsi/gather/candidates", method="POST")
    report = await bench.job(rows, journal=journal, concurrency=1)
    assert (report.invited, report.rejected, report.failed) == (2, 1, 1)
    rows[0] = {**rows[0], "first_name": "Mended"}
    rows[1] = good
    report = await bench.job(rows, journal=journal)
    assert (report.invited, report.rejected, report.failed) == (4, 0, 0)
    assert set(bench.invited.values()) == {1}


async def test_a_journal_of_another_interview_is_refused(bench: Bench, journal: Path) -> None:
    """The journal says whose it is, and nothing is sent for another interview."""
    await bench.job(people(1), journal=journal)
    sent = len(bench.sent)
    with pytest.raises(errors.ConfigurationError, match="another interview"):
        await bench.job(people(1), journal=journal, interview_id="other")
    assert len(bench.sent) == sent


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("PRAGMA user_version = 99", "version 99"),
        ("PRAGMA application_id = 7", "something else"),
        ("UPDATE meta SET value = 'https://x' WHERE name = 'server'", "another server"),
    ],
)
async def test_a_journal_that_isnt_ours_is_refused(
    bench: Bench, journal: Path, statement: str, words: str
) -> None:
    """A newer schema, another kind of database, another server: each has its error."""
    await bench.job(people(1), journal=journal)
    with sqlite3.connect(journal) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(errors.ConfigurationError, match=words):
        await bench.job(people(1), journal=journal)


async def test_a_file_that_is_no_database_is_refused(bench: Bench, notes: Path) -> None:
    """A text file is neither read as a journal nor overwritten."""
    held = content(notes)
    with pytest.raises(errors.ConfigurationError, match="can't be opened"):
        await bench.job(people(1), journal=notes)
    assert content(notes) == held


async def test_a_database_of_something_else_is_refused(bench: Bench, journal: Path) -> None:
    """No tables are added to another program's database."""
    with sqlite3.connect(journal) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(errors.ConfigurationError, match="something else"):
        await bench.job(people(1), journal=journal)
    with sqlite3.connect(journal) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("other",)]
    connection.close()


async def test_a_second_job_on_one_journal_is_refused(bench: Bench, journal: Path) -> None:
    """While a job runs, another one is asked to wait; afterwards it may run."""
    first = bench.job(people(30), journal=journal)
    async for _ in first:
        with pytest.raises(errors.ConfigurationError, match="in use"):
            await bench.job(people(30), journal=journal)
        break
    assert (await first).invited == 30
    assert (await bench.job(people(30), journal=journal)).invited == 30
    assert names_in(journal.parent) == [journal.name]


def test_a_lock_file_that_was_left_behind_locks_nothing(journal: Path) -> None:
    """The lock is the kernel's, not the file's."""
    left = journal.with_name("invites.db.lock")
    left.touch()
    lock = FileLock(journal, what="journal")
    with pytest.raises(errors.ConfigurationError):
        FileLock(journal, what="journal")
    lock.release()
    assert not left.exists()
    FileLock(journal, what="journal").release()


async def test_a_restart_starts_with_the_true_quota(bench: Bench, journal: Path) -> None:
    """A new process's limiter learns what the last hour's runs have sent, once."""
    limits = [RateLimit(100, per=3600)]
    await bench.job(people(30), journal=journal, client=bench.client(rate_limits=limits))
    await bench.clock.sleep(600)
    client = bench.client(rate_limits=limits, reserve=0)
    began = bench.clock.monotonic()
    report = await bench.job(people(49), journal=journal, client=client)
    assert report.invited == 49
    # 61 of the hour's 100 were sent ten minutes ago: all fit now, and none is left.
    assert bench.clock.monotonic() - began < 5
    (window,) = client.rate_limit_status.windows
    assert window.remaining == 0
    # The same limiter knows, and isn't informed again.
    await bench.clock.sleep(3000)
    report = await bench.job(people(60), journal=journal, client=client)
    assert report.invited == 60
    assert bench.clock.monotonic() - began < 3000 + 600


async def test_no_journal_works_without_a_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``journal=None`` leaves nothing in the working directory."""
    monkeypatch.chdir(tmp_path)
    report = await bench.job(people(5))
    assert len(list(report.outcomes)) == 5
    assert names_in(tmp_path) == []


async def test_a_journal_can_be_kept_free_of_personal_data(bench: Bench, journal: Path) -> None:
    """With ``keep_candidates=False`` the file holds neither names, addresses nor numbers."""
    report = await bench.job(people(3), journal=journal, keep_candidates=False)
    held = content(journal)
    assert b"row-1@example.com" not in held
    assert b"+12020000001" not in held
    assert b"Person" not in held
    assert [outcome.candidate for outcome in report.outcomes] == [None] * 3
    again = await bench.job(people(3), journal=journal, keep_candidates=False)
    assert (again.invited, again.requests) == (3, 0)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
async def test_a_journal_is_for_its_owners_eyes(bench: Bench, journal: Path) -> None:
    """A new journal can be read by no one else, since it holds personal data."""
    await bench.job(people(1), journal=journal)
    assert stat.S_IMODE(os.stat(journal).st_mode) == 0o600  # noqa: PTH116 - blocks no longer


async def test_an_async_source_is_closed_when_the_job_stops(bench: Bench) -> None:
    """A generator's cleanup runs, also when it is waiting for its next row."""
    closed = asyncio.Event()

    async def rows() -> AsyncIterator[dict[str, Any]]:
        try:
            for row in people(3):
                yield row
            await asyncio.Event().wait()
        finally:
            closed.set()

    job = bench.job(rows())
    running = asyncio.ensure_future(_awaited(job))
    await bench.fake.wait_for_requests(bench.before + 6)
    assert not closed.is_set()
    job.stop()
    report = await running
    assert closed.is_set()
    assert report.total == 3


async def test_a_journal_of_another_key_is_asked_about(bench: Bench, journal: Path) -> None:
    """A key that the journal doesn't know is refused unless the caller vouches for it, once."""
    await bench.job(people(3), journal=journal)
    assert bench.fake.api_key.encode() not in content(journal)
    other = bench.client(api_key="another-key")
    with pytest.raises(errors.ConfigurationError, match="other_key=True"):
        await bench.job(people(3), journal=journal, client=other)
    report = await bench.job(people(3), journal=journal, client=other, other_key=True)
    assert (report.invited, report.requests) == (3, 0)
    for client in (other, bench.client()):
        assert (await bench.job(people(3), journal=journal, client=client)).requests == 0


async def test_refused_rows_are_tried_again_if_asked(bench: Bench, journal: Path) -> None:
    """``retry_failed`` opens what the server refused, at the step that it refused."""
    for path in ("/qsi/gather/candidates", "/qsi/gather/candidate-interviews"):
        bench.fake.fail_next(status=400, path=path, method="POST", times=2)
    report = await bench.job(people(6), journal=journal, concurrency=1)
    assert (report.invited, report.failed) == (2, 4)
    sent = len(bench.sent)
    assert (await bench.job(people(6), journal=journal)).failed == 4
    assert len(bench.sent) == sent
    report = await bench.job(people(6), journal=journal, retry_failed=True)
    assert (report.invited, report.failed, report.requests) == (6, 0, 8)
    assert len(bench.fake.candidates) == 6
    assert set(bench.invited.values()) == {1}
