"""The journal's files: one job at a time, none missing, and times that survive clocks."""

import asyncio
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gather_async import errors
from gather_async.bulk import BulkInvite, InviteReport
from gather_async.bulk.journal import Journal, JournalScope
from gather_async.bulk.journal_schema import Instant, JournalIdentity
from gather_async.bulk.journal_sql import SourceRow
from gather_async.client import GatherClient
from gather_async.models.candidate import NewCandidate
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.storage import FileLock
from gather_async.testing import VirtualClock

from .conftest import Bench, people
from .late_server import LateServer

_HOLDER = """
import pathlib, sys
from gather_async.storage import FileLock
lock = FileLock(pathlib.Path(sys.argv[1]).resolve(), what="journal")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the job's journal is."""
    return tmp_path / "invites.db"


@contextmanager
def _held_by_another_process(journal: Path) -> Iterator[None]:
    """Hold the journal's lock in another process."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(journal)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
        holder.stdin.close()


def _second_name(journal: Path, kind: str) -> Path:
    """Return a path by which a second job might get round the first one's lock."""
    other = journal.with_name("other.db")
    if kind == "symbolic link":
        other.symlink_to(journal.name)
    elif kind == "hard link":
        other.hardlink_to(journal)
    else:
        other = journal
        journal.with_name("invites.db.lock").unlink()
    return other


_KINDS = pytest.mark.parametrize("kind", ["symbolic link", "hard link", "removed lock"])


@pytest.mark.skipif(sys.platform != "linux", reason="hard links are distinguished on Linux only")
@_KINDS
def test_another_processs_lock_has_every_name(journal: Path, kind: str) -> None:
    """Neither a second name nor a removed lock file lets two processes in at once."""
    with _held_by_another_process(journal):
        other = _second_name(journal, kind)
        with pytest.raises(errors.ConfigurationError, match="in use by another job"):
            FileLock(other.resolve(), what="journal")
    FileLock(other.resolve(), what="journal").release()


@_KINDS
async def test_one_process_runs_one_job_on_a_journal(
    bench: Bench, journal: Path, kind: str
) -> None:
    """In one process, too, a second job is refused, and the first one goes on unharmed."""
    if kind == "hard link" and sys.platform != "linux":
        pytest.skip("such a file is refused at once")
    first = bench.job(people(30), journal=journal)
    async for _ in first:
        other = _second_name(journal, kind)
        with pytest.raises(errors.ConfigurationError, match="in use by another job"):
            await bench.job(people(30), journal=other)
        break
    assert (await first).invited == 30
    assert set(bench.invited.values()) == {1}


@pytest.mark.parametrize("way", ["removed", "moved", "replaced"])
async def test_a_journal_that_goes_away_stops_its_job(
    bench: Bench, journal: Path, way: str
) -> None:
    """Nothing is sent that a journal elsewhere would not know of; brought back, it goes on."""
    job = bench.job(people(60), journal=journal, concurrency=4)
    kept = journal.with_name("kept.db")

    async def take_away() -> None:
        async for _ in job:
            if journal.exists() and not kept.exists():
                journal.rename(kept)
                if way == "replaced":
                    shutil.copy(kept, journal)
                if way == "removed":
                    kept.with_name("invites.db-wal").unlink()

    with pytest.raises(errors.ConfigurationError, match="removed, moved or replaced"):
        await take_away()
    sent = len(bench.sent)
    assert sent < 60
    kept.replace(journal)
    if way == "removed":
        # Its last changes are gone for good.
        with pytest.raises(errors.ConfigurationError, match="lacks its last changes"):
            await bench.job(people(60), journal=journal)
        journal.unlink()
    report = await bench.job(people(60), journal=journal)
    assert report.invited + report.already_invited == 60
    assert set(bench.invited.values()) == {1}
    assert len(bench.fake.candidates) == 60


@contextmanager
def _standing_still(journal: Path) -> Iterator[None]:
    """Keep the job's thread from writing, and from being in the middle of a seal."""
    marks = "SELECT DISTINCT value FROM meta WHERE name IN ('mark', 'seen')"
    with closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        while connection.execute("BEGIN IMMEDIATE").execute(marks).fetchall()[1:]:
            connection.execute("ROLLBACK")
            time.sleep(0.001)  # the other's turn
        yield


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (3, 40),
        (30, 40),
        pytest.param(3, 400, marks=pytest.mark.slow),
        pytest.param(300, 400, marks=pytest.mark.slow),  # when SQLite has moved pages by itself
    ],
)
async def test_a_journal_without_its_last_changes_is_refused(
    bench: Bench, journal: Path, rows: int, count: int
) -> None:
    """A copy of the main file alone is refused at any time; with the -wal file it is whole."""
    alone, whole, brought_in = (journal.with_name(f"{name}.db") for name in ("a", "w", "b"))
    done = 0
    async for _ in bench.job(people(count), journal=journal, concurrency=4):
        done += 1
        if done == rows:
            with _standing_still(journal):
                shutil.copy(journal, alone)
                for copy in (whole, brought_in):
                    shutil.copy(journal, copy)
                    shutil.copy(f"{journal}-wal", f"{copy}-wal")
    with pytest.raises(errors.ConfigurationError, match="ends in -wal"):
        await bench.job(people(count), journal=alone)
    # Refused again, and not repaired by having been looked at.
    with closing(sqlite3.connect(alone)) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone()[0] <= count
    with pytest.raises(errors.ConfigurationError, match="ends in -wal"):
        await bench.job(people(count), journal=alone)
    with closing(sqlite3.connect(brought_in)) as connection:
        connection.execute("SELECT count(*) FROM rows").fetchone()
    assert not Path(f"{brought_in}-wal").exists()
    for copy in (whole, brought_in):
        report = await bench.job(people(count), journal=copy)
        # Those of later rows were invited since by the job that went on.
        assert report.invited + report.already_invited == count
    assert set(bench.invited.values()) == {1}
    assert len(bench.fake.candidates) == count


async def _late(
    server: LateServer,
    clock: VirtualClock,
    journal: Path,
    *,
    stop_at: float | None = None,
    rate_limit: RateLimit = RateLimit(1_000_000, per=60),  # noqa: B008 - frozen
    rows: int = 3,
) -> InviteReport:
    """Run a job in a process of its own, as far as clocks can show."""
    async with GatherClient(
        "key",
        base_url=server.base_url,
        clock=clock,
        rng=random.Random(1),
        rate_limits=[rate_limit],
    ) as gather:
        job = BulkInvite(gather, people(rows), interview_id="interview", journal=journal)
        if stop_at is not None:
            clock.call_later(stop_at, job.stop)
        return await job


@pytest.mark.parametrize("step", [0.0, 3600.0, -3600.0])
async def test_the_wall_clock_may_be_set_between_runs(journal: Path, step: float) -> None:
    """What a stopped run sent counts as absent by the machine's uptime, not by the wall clock."""
    clock = VirtualClock()
    # One row's candidate and another row's invite are carried out 100 s late.
    server = LateServer(
        clock,
        random.Random(2),
        faults=0.0,
        commits_after=100.0,
        late_writes=frozenset({("candidates", 2), ("candidateInterviews", 2)}),
    )
    async with server:
        report = await _late(server, clock, journal, stop_at=20.0)
        assert (report.invited, report.unfinished) == (1, 2)
        clock.set_wall(clock.wall() + step)
        began = clock.monotonic()
        report = await _late(server, clock, journal)
        assert report.invited == 3
        assert clock.monotonic() - began <= 126.0
        await clock.sleep(200.0)  # for what would still arrive
        assert sorted(server.invites.values()) == [1, 1, 1]
        assert sorted(server.candidates.values()) == [1, 1, 1]


async def test_what_waited_for_the_quota_is_not_looked_for(journal: Path) -> None:
    """A row that a stop finds in the queue was not sent, so the next run sends it at once."""
    clock = VirtualClock()
    server = LateServer(clock, random.Random(2), faults=0.0)
    limit = RateLimit(14, per=600)  # five of them are kept for interactive calls
    async with server:
        report = await _late(server, clock, journal, stop_at=1.0, rate_limit=limit, rows=10)
        assert report.unfinished >= 6
        with closing(sqlite3.connect(journal)) as connection:
            states = {state for (state,) in connection.execute("SELECT state FROM rows")}
        assert not {each for each in states if "pending" in each}
        began = clock.monotonic()
        assert (await _late(server, clock, journal, rows=10)).invited == 10
        assert clock.monotonic() == began
        assert sorted(server.invites.values()) == [1] * 10


async def test_a_restart_finds_early_what_was_under_way(journal: Path) -> None:
    """What an earlier run sent is looked up at once, soon, and at the end of its time."""
    clock = VirtualClock()
    server = LateServer(
        clock,
        random.Random(2),
        faults=0.0,
        commits_after=5.0,
        late_writes=frozenset({("candidates", 2)}),
    )
    async with server:
        await _late(server, clock, journal, stop_at=1.0)
        began = clock.monotonic()
        assert (await _late(server, clock, journal)).invited == 3
        assert clock.monotonic() - began == pytest.approx(12.0)
        assert sorted(server.candidates.values()) == [1, 1, 1]


async def test_the_time_goes_on_over_kills(journal: Path) -> None:
    """Runs that are stopped early don't begin the time anew: it is in the journal."""
    clock = VirtualClock()
    server = LateServer(
        clock, random.Random(2), faults=0.0, lost_writes=frozenset({("candidates", 2)})
    )
    async with server:
        began = clock.monotonic()
        for _ in range(6):
            await _late(server, clock, journal, stop_at=20.0)
        report = await _late(server, clock, journal)
        assert report.invited == 3
        # The first run looked for it after 12 s; its signs of life may be 5 s old.
        assert clock.monotonic() - began == pytest.approx(12.0 + 5.0 + 120.0)
        assert sorted(server.invites.values()) == [1, 1, 1]


async def test_an_old_copy_of_the_journal_invites_no_one_again(bench: Bench, journal: Path) -> None:
    """A copy that was taken while a candidate was under way finds what the job did since."""
    copy = journal.with_name("copy.db")
    bench.fake.slow_next(20.0, after_processing=True, path="/qsi/gather/candidates", method="POST")
    running = asyncio.ensure_future(_awaited(bench.job(people(3), journal=journal)))
    await bench.fake.wait_for_requests(bench.before + 2)
    shutil.copy(journal, copy)
    shutil.copy(f"{journal}-wal", f"{copy}-wal")
    assert (await running).invited == 3
    report = await bench.job(people(3), journal=copy)
    assert report.already_invited == 3
    assert set(bench.invited.values()) == {1}


async def test_a_request_that_hangs_keeps_its_run_alive(bench: Bench, journal: Path) -> None:
    """While a request is in flight the journal says so, so that a crash has a time."""
    bench.fake.slow_next(40.0, path="/qsi/gather/candidates", method="POST")
    client = bench.client(timeout=60.0)
    began = bench.clock.monotonic()
    job = bench.job(people(1), journal=journal, client=client)
    running = asyncio.ensure_future(_awaited(job))
    await bench.clock.sleep(33.0)
    with closing(sqlite3.connect(journal)) as connection:
        ((alive_at,),) = connection.execute("SELECT monotonic FROM runs").fetchall()
    assert 25.0 <= alive_at - began <= 33.0
    assert (await running).invited == 1


async def _awaited(job: BulkInvite) -> InviteReport:
    return await job


@pytest.mark.parametrize(
    ("wall", "monotonic", "passed"),
    [
        (50.0, 50.0, 50.0),
        (3650.0, 50.0, 50.0),  # the wall clock was set ahead
        (-3550.0, 50.0, 0.0),  # it was set back
        (50.0, -9000.0, 0.0),  # the machine was started anew
        (50.0, 90_000.0, 50.0),  # another machine
    ],
)
def test_no_clock_makes_more_time_pass_than_did(
    wall: float, monotonic: float, passed: float
) -> None:
    """Of two clocks the one counts that shows less, and never less than nothing."""
    then = Instant(1_000_000.0, 10_000.0)
    now = Instant(then.wall + wall, then.monotonic + monotonic)
    assert now.since(then) == passed


def _identity(**changes: Any) -> JournalIdentity:
    values = {"journal_id": "bulk-1", "interview_id": "i", "run": 1, "keeps_candidates": True}
    return JournalIdentity(**{**values, **changes})


def test_a_derived_external_id_is_the_persons() -> None:
    """It depends on interview, address (case aside) and phone alone, and shows none of them."""
    ada = NewCandidate("Ada", "L", "ada@example.com", "+12025550123")
    same = NewCandidate("A.", "Lovelace", "ADA@example.com", "+12025550123", timezone="UTC")
    derived = _identity().external_id(ada)
    assert derived == _identity(journal_id="bulk-2", run=9).external_id(same)
    assert derived != _identity(interview_id="j").external_id(ada)
    other = NewCandidate("Ada", "L", "ada@example.com", "+12025550124")
    assert derived != _identity().external_id(other)
    assert "ada" not in derived
    assert "555" not in bytes.fromhex(derived.removeprefix("bulk-")).decode("latin-1")


async def test_the_log_stays_small_while_a_source_is_read(journal: Path) -> None:
    """Rows are brought into the main file as they come, however many follow."""
    scope = JournalScope(
        interview_id="i",
        server="s",
        invitation="",
        key_digest=lambda _: "k",
        other_key=False,
    )
    opened = await Journal.open(
        journal, scope, keeps_candidates=True, retry_failed=False, owner="o"
    )
    log, sizes = journal.with_name(f"{journal.name}-wal"), []
    for first in range(0, 40 * 256, 256):
        rows = [
            SourceRow(
                row=number + 1,
                checked=NewCandidate("A", "B", f"a{number}@example.com", f"+1202{number:07}"),
            )
            for number in range(first, first + 256)
        ]
        await opened.upsert_rows(rows)
        sizes.append(log.stat().st_size)
    await opened.aclose()
    assert max(sizes) < 5_000_000 < sum(sizes)


async def test_persons_are_indexed_once_they_are_looked_for(bench: Bench, journal: Path) -> None:
    """The first run keeps no index that only later runs use; the second makes it, once for all."""
    found = []
    for _ in range(3):
        await bench.job(people(3), journal=journal)
        with closing(sqlite3.connect(journal)) as connection:
            plan = connection.execute(
                "EXPLAIN QUERY PLAN SELECT key FROM rows WHERE person_key IN (?, ?)", (b"a", b"b")
            )
            found.append("rows_by_person" in str(plan.fetchall()))
    assert found == [False, True, True]


_VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (
    row INTEGER PRIMARY KEY, state TEXT NOT NULL, digest BLOB, email_key BLOB, id_key BLOB,
    external_id TEXT, own_id INTEGER NOT NULL DEFAULT 0, candidate TEXT, candidate_id TEXT,
    candidate_interview_id TEXT, reused INTEGER NOT NULL DEFAULT 0, error TEXT,
    run INTEGER NOT NULL
);
CREATE UNIQUE INDEX rows_by_email ON rows (email_key) WHERE email_key IS NOT NULL;
CREATE UNIQUE INDEX rows_by_id ON rows (id_key) WHERE id_key IS NOT NULL;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, run INTEGER NOT NULL, owner TEXT NOT NULL
);
CREATE INDEX requests_by_time ON requests (at);
PRAGMA application_id = 0x47416269;
PRAGMA user_version = 1;
"""


def _begin_version_1(bench: Bench, journal: Path, rows: list[tuple[Any, ...]]) -> None:
    """Write a journal as version 1 wrote it: state, candidate's and invite's id of each row."""
    identity = _identity(journal_id="bulk-old", interview_id=bench.interview_id)
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_VERSION_1)
        meta = {
            "journal_id": "bulk-old",
            "interview_id": bench.interview_id,
            "server": bench.fake.base_url,
            "run": "1",
        }
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        for number, (state, keeps, candidate_id, invite_id) in enumerate(rows, start=1):
            person = people(1, first=number - 1)[0]
            values = (*person.values(), None, None, None)
            text = '["{}","{}","{}","{}",null,null,null]'.format(*person.values())
            connection.execute(
                "INSERT INTO rows VALUES (?, ?, ?, ?, NULL, ?, 0, ?, ?, ?, 0, NULL, 1)",
                (
                    number,
                    state,
                    identity.digest(*values),
                    identity.digest("email", person["email"]),
                    f"bulk-old-{number}",
                    text if keeps else None,
                    candidate_id,
                    invite_id,
                ),
            )
        connection.commit()


async def test_a_journal_of_version_1_is_carried_on(bench: Bench, journal: Path) -> None:
    """Nothing of an older journal is lost: states, ids and those under way; changes are named."""
    client = bench.client()
    made = await client.candidates.create(**people(1, first=2)[0], external_id="bulk-old-3")
    _begin_version_1(
        bench,
        journal,
        [
            ("invited", True, "c-1", "ci-1"),
            ("invited", False, "c-2", "ci-2"),
            ("candidate_pending", True, None, None),
            ("candidate_pending", True, None, None),
            ("failed", True, "c-5", None),
            ("seen", True, None, None),
        ],
    )
    rows = [*reversed(people(6)), *people(1, first=7)]
    rows[-2] = {**rows[-2], "first_name": "Other"}
    rows[-3] = {**rows[-3], "first_name": "Other"}
    began = bench.clock.monotonic()
    report = await bench.job(rows, journal=journal, client=client)
    outcomes = {each.row: each for each in report.outcomes}
    assert (report.invited, report.failed, report.total) == (6, 1, 7)
    assert outcomes[4].candidate_id == made.id
    assert outcomes[6].changed == ("first_name",)
    assert outcomes[5].changed == ("values",)
    assert [outcomes[number].candidate_interview_id for number in (6, 5)] == ["ci-1", "ci-2"]
    assert [outcomes[number].external_id for number in (3, 4)] == ["bulk-old-4", "bulk-old-3"]
    assert str(outcomes[1].external_id) == _identity(interview_id=bench.interview_id).external_id(
        NewCandidate(**people(1, first=5)[0])
    )
    # The request of row 4 may have been on its way until the journal was opened.
    assert bench.clock.monotonic() - began >= 120.0
    assert set(bench.invited.values()) == {1}
    assert len(bench.fake.candidates) == 4
