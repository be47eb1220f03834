"""The laws of an inbox, tried on each of ours, and what only one of them has."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gather_async.errors import ConfigurationError
from gather_async.testing import VirtualClock
from gather_async.testing.inbox_laws import LAWS, Law, check, event
from gather_async.webhooks import (
    ClaimReport,
    EventState,
    HandlerFailure,
    Inbox,
    MemoryInbox,
    PutResult,
    SQLiteInbox,
)
from gather_async.webhooks.sql_queries import is_process_gone, process_token


def _two(kind: str, folder: Path, clock: VirtualClock) -> tuple[Inbox, Inbox]:
    """Return two objects of one empty storage."""
    if kind == "file":
        path = folder / "i.db"
        return SQLiteInbox(path, clock=clock), SQLiteInbox(path, clock=clock)
    one: Inbox = MemoryInbox(clock=clock)
    if kind == "sqlite in memory":
        one = SQLiteInbox(":memory:", clock=clock)
    return one, one


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("kind", ["memory", "sqlite in memory", "file"])
async def test_law(kind: str, law: Law, tmp_path: Path) -> None:
    """Each of our inboxes keeps each law."""
    clock = VirtualClock()
    inbox, other = _two(kind, tmp_path, clock)
    await law(inbox, other, clock.sleep)
    await inbox.aclose()
    await other.aclose()


async def test_a_broken_inbox_is_found() -> None:
    """A store that forgets a completion breaks a law."""

    class Forgetful(MemoryInbox):
        async def complete(self, claimed: Any, handler: str) -> None:
            """Forget."""

    clock = VirtualClock()

    def make() -> tuple[Inbox, Inbox]:
        inbox = Forgetful(clock=clock)
        return inbox, inbox

    with pytest.raises(AssertionError, match=r"_successes_stay_beside_failures: .* is not"):
        await check(make, sleep=clock.sleep)


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_state_by_its_word(kind: str, tmp_path: Path) -> None:
    """A state may be named by its word, as in a query or an option of the command line."""
    inbox, _ = _two(kind, tmp_path, VirtualClock())
    for key in ("one", "two"):
        await inbox.put(event(key))
    (claimed,) = (await inbox.claim("", (), limit=1, lease=30)).events
    await inbox.report([ClaimReport(claimed=claimed, is_ignored=True)])
    words: dict[Any, list[str]] = {"ignored": ["one"], "waiting": ["two"], "dead": []}
    for word, keys in words.items():
        assert [each.event.key for each in await inbox.list(state=word)] == keys
    await inbox.aclose()


async def test_memory_is_bounded() -> None:
    """A full memory inbox says so, and takes events again when there is room."""
    inbox = MemoryInbox(2, remember=2)
    results = [await inbox.put(event(k)) for k in "abc"]
    assert results == [PutResult.NEW, PutResult.NEW, PutResult.FULL]
    assert await inbox.put(event("a")) is PutResult.DUPLICATE
    claimed = await inbox.claim("", (), limit=9, lease=60)
    await inbox.report([ClaimReport(claimed=each) for each in claimed.events])
    results = [await inbox.put(event(k)) for k in "cdb"]
    assert results == [PutResult.NEW, PutResult.NEW, PutResult.DUPLICATE]
    wrong_ones: list[dict[str, Any]] = [{"capacity": 0}, {"remember": 0}]
    for wrong in wrong_ones:
        with pytest.raises(ConfigurationError):
            MemoryInbox(**wrong)


def test_keep_for_is_checked(tmp_path: Path) -> None:
    """The sender repeats for minutes, so an hour is the least that is remembered."""
    with pytest.raises(ConfigurationError):
        SQLiteInbox(tmp_path / "i.db", keep_for=60)


async def test_clock_that_goes_back(tmp_path: Path) -> None:
    """What was written before the clock went back a day is not delayed by a day."""

    class Wall(VirtualClock):
        back = 0.0

        def wall(self) -> float:
            return super().wall() - self.back

    clock = Wall()
    inbox = SQLiteInbox(tmp_path / "i.db", clock=clock)
    await inbox.put(event("new"))
    (claimed,) = (await inbox.claim("", (), limit=9, lease=30)).events
    await inbox.report([ClaimReport(claimed=claimed, due_in=60)])
    clock.back = 86_400
    (again,) = (await inbox.claim("", (), limit=9, lease=30)).events
    assert again.event.key == "new"
    await inbox.aclose()


async def test_a_claim_that_reaches_no_one_is_given_back(tmp_path: Path) -> None:
    """Cancelled once its work is committed, it leaves the events due, and counts as no crash."""
    path, clock = tmp_path / "i.db", VirtualClock()
    inbox = SQLiteInbox(path, clock=clock)
    await inbox.put(event())
    claiming = asyncio.create_task(inbox.claim("", (), limit=9, lease=3600))
    await asyncio.sleep(0)
    with closing(sqlite3.connect(path)) as other:
        # It is committed by a thread, while this one keeps the loop from hearing of it.
        while not other.execute("SELECT 1 FROM waiting WHERE token IS NOT NULL").fetchall():
            pass
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    (claimed,) = (await inbox.claim("", (), limit=9, lease=60)).events
    assert claimed.crashes == 0
    await inbox.report([ClaimReport(claimed=claimed)])
    await inbox.aclose()


async def test_file_is_private_and_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file holds personal data, so only its owner reads it; a relative path stays put."""
    monkeypatch.chdir(tmp_path)
    inbox = SQLiteInbox("i.db")
    monkeypatch.chdir("/")
    await inbox.put(event())
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o600}
    await inbox.aclose()


@pytest.mark.parametrize("options", [{"path": None}, {"path": b"i.db"}, {"synchronous": "OFF"}])
def test_options_of_a_file_are_checked(options: dict[str, Any]) -> None:
    """What is no path, and a mode that may lose what was answered with 200, are refused."""
    given: dict[str, Any] = {"path": "i.db", **options}
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SQLiteInbox(**given)


async def test_memory_path_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``:memory:`` is memory."""
    monkeypatch.chdir(tmp_path)
    inbox = SQLiteInbox(":memory:")
    assert not inbox.is_shared
    await inbox.put(event())
    await inbox.aclose()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", [lambda i: i.put(event()), lambda i: i.open()])
async def test_path_that_cannot_be_opened(tmp_path: Path, use: Callable[[Inbox], Any]) -> None:
    """A path that can't be opened is a configuration error that names it."""
    inbox = SQLiteInbox(tmp_path / "absent" / "i.db")
    with pytest.raises(ConfigurationError, match=r"absent/i\.db.*folder exists"):
        await use(inbox)
    await inbox.aclose()


@pytest.mark.parametrize("how", ["deleted", "database deleted", "replaced"])
async def test_file_that_goes_away(tmp_path: Path, how: str) -> None:
    """After the file was deleted or replaced, an event is in the file that is there."""
    path, spare = tmp_path / "i.db", tmp_path / "spare.db"
    other = SQLiteInbox(spare)
    await other.put(event("spare"))
    await other.aclose()
    inbox = SQLiteInbox(path)
    await inbox.put(event("before"))
    if how == "replaced":
        spare.replace(path)
    elif how == "database deleted":
        path.unlink()
    else:
        for each in tmp_path.glob("i.db*"):
            each.unlink()
    assert await inbox.put(event("after")) is PutResult.NEW
    await inbox.aclose()
    found = [entry.event.key for entry in await inbox.list()]
    assert found == (["spare", "after"] if how == "replaced" else ["after"])
    await inbox.aclose()


async def test_used_before_a_fork(tmp_path: Path) -> None:
    """Parent and child use the inbox after a fork, whichever used it before."""
    inbox = SQLiteInbox(tmp_path / "i.db")
    await inbox.put(event("parent"))
    pid = os.fork()
    if not pid:
        status = 1
        try:
            loop = asyncio.new_event_loop()
            asyncio.events._set_running_loop(None)
            loop.run_until_complete(inbox.put(event("child")))
            loop.run_until_complete(inbox.aclose())
            status = 0
        finally:
            os._exit(status)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert status == 0
    assert await inbox.put(event("again")) is PutResult.NEW
    assert [entry.event.key for entry in await inbox.list()] == ["parent", "child", "again"]
    await inbox.aclose()


async def test_pruning_gives_space_back(tmp_path: Path) -> None:
    """A file whose events are forgotten shrinks, with what they were about."""
    path = tmp_path / "i.db"
    inbox = SQLiteInbox(path, clock=(clock := VirtualClock()))
    for n in range(600):
        await inbox.put(event(f"k{n}", text="x" * 5000, subjects=(f"s{n}",), state="A"))
    claimed = await inbox.claim("", (), limit=599, lease=60)
    await inbox.report([ClaimReport(claimed=each) for each in claimed.events])
    await inbox.prune()
    before = path.stat().st_size
    await clock.sleep(8 * 86_400)
    assert await inbox.prune() == 599
    await inbox.aclose()
    assert before > 2_000_000
    assert path.stat().st_size < 200_000
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT count(*) FROM subjects").fetchone() == (1,)
    file.close()


async def test_pruning_gives_space_back_as_it_goes(tmp_path: Path) -> None:
    """The free pages stay few while many events are forgotten: each is looked for among all."""
    free: list[int] = []

    class Watched(SQLiteInbox):
        async def _run(self, work: Callable[[Any], Any], *, writes: bool = True) -> Any:
            found = await super()._run(work, writes=writes)
            (pages,) = await super()._run(
                lambda c: c.execute("PRAGMA freelist_count").fetchone(), writes=False
            )
            free.append(pages)
            return found

    inbox = Watched(tmp_path / "i.db", synchronous="NORMAL", clock=(clock := VirtualClock()))
    text = "x" * 3500  # a page each
    await asyncio.gather(*(inbox.put(event(f"k{n}", text=text)) for n in range(3001)))
    claimed = await inbox.claim("", (), limit=3000, lease=60)
    await inbox.report([ClaimReport(claimed=each) for each in claimed.events])
    await clock.sleep(8 * 86_400)
    assert await inbox.prune() == 3000
    await inbox.aclose()
    assert max(free) < 2000
    assert free[-1] == 0


# What the first version wrote, statement for statement.
FIRST_VERSION = """
CREATE TABLE events (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, text TEXT NOT NULL,
    default_event TEXT, received_at REAL NOT NULL, synthetic INTEGER NOT NULL,
    signed INTEGER NOT NULL);
CREATE INDEX events_by_age ON events (received_at);
CREATE TABLE tasks (event_id INTEGER NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    handler TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
    due_at REAL NOT NULL, starts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0, token TEXT, ended_at REAL, error TEXT,
    PRIMARY KEY (event_id, handler)) WITHOUT ROWID;
CREATE INDEX tasks_due ON tasks (due_at) WHERE state = 'pending';
CREATE INDEX tasks_dead ON tasks (ended_at) WHERE state = 'dead';
CREATE TABLE subjects (subject TEXT PRIMARY KEY, state TEXT NOT NULL,
    synthetic INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO events VALUES
    (1, 'done', '{"event":"a","data":{}}', NULL, 1767225600.0, 0, 1),
    (2, 'half', '{"event":"b","data":{}}', NULL, 1767225600.0, 1, 1),
    (3, 'dead', '{"event":"c","data":{}}', NULL, 1767225600.0, 0, 1),
    (4, 'none', '{"n":1}', 'd', 1767225600.0, 0, 0);
INSERT INTO tasks VALUES
    (1, 'h', 'done', 0, 1, 0, NULL, 1767225601.0, NULL),
    (2, 'g', 'done', 0, 1, 0, NULL, 1767225601.0, NULL),
    (2, 'h', 'pending', 1767225700.0, 3, 2, NULL, NULL, 'boom'),
    (3, 'h', 'dead', 0, 8, 8, NULL, 1767225602.0, 'dead');
INSERT INTO subjects VALUES ('s', 'A', 1);
PRAGMA user_version = 1;
"""


async def test_file_of_the_first_version(tmp_path: Path) -> None:
    """A file of the first version opens with each event, success, failure and dead letter."""
    path = tmp_path / "i.db"
    old = sqlite3.connect(path)
    old.execute("PRAGMA journal_mode = WAL")
    old.executescript(FIRST_VERSION)
    old.close()
    inbox = SQLiteInbox(path)
    entries = {entry.event.key: entry for entry in await inbox.list()}
    assert {key: str(each.state) for key, each in entries.items()} == {
        "done": "done",
        "half": "waiting",
        "dead": "dead",
        "none": "ignored",
    }
    assert [each.event.name for each in entries.values()] == ["a", "b", "c", "d"]
    assert await inbox.put(event("none")) is PutResult.DUPLICATE
    assert await inbox.contains(event("new", subjects=("s",), state="A"))
    (letter,) = await inbox.dead_letters()
    assert (letter.key, letter.handler, letter.failures, letter.error) == ("dead", "h", 8, "dead")
    await inbox.announce("web", {"h": {"*"}}, former=[""], keep_for=60)
    (claimed,) = (await inbox.claim("web", ["h"], limit=9, lease=60)).events
    assert (claimed.event.key, claimed.ended, claimed.crashes) == ("half", {"g"}, 1)
    assert claimed.failures["h"].failures == 2
    assert await inbox.counts() == {
        EventState.WAITING: 1,
        EventState.DONE: 1,
        EventState.DEAD: 1,
        EventState.IGNORED: 1,
    }
    await inbox.aclose()


async def test_database_of_something_else(tmp_path: Path) -> None:
    """Another program's database is left alone, and the error says what to do."""
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (n)")
    other.close()
    inbox = SQLiteInbox(path)
    with pytest.raises(ConfigurationError, match="choose another file"):
        await inbox.open()
    await inbox.aclose()


CLAIMANT = """
import asyncio, sys
from gather_async.webhooks import SQLiteInbox
async def main():
    inbox = SQLiteInbox(sys.argv[1])
    claimed = await inbox.claim("", (), limit=1, lease=600)
    print(len(claimed.events), flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells processes apart for good")
async def test_sqlite_takes_over_from_the_dead(tmp_path: Path) -> None:
    """What a process held when it died is due at once; what a living one holds is not."""
    path = tmp_path / "i.db"
    inbox = SQLiteInbox(path)
    await inbox.put(event())
    with subprocess.Popen(  # noqa: ASYNC220 - asyncio would reap it
        [sys.executable, "-c", CLAIMANT, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as claimant:
        assert claimant.stdout is not None
        assert claimant.stdout.readline() == b"1\n"
        assert (await inbox.claim("", (), limit=9, lease=60)).events == []
        claimant.kill()
        # A zombie is dead, too.
        os.waitid(os.P_PID, claimant.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - as above
        other = SQLiteInbox(path)
        (claimed,) = (await other.claim("", (), limit=9, lease=60)).events
    assert (dict(claimed.failures), claimed.crashes) == ({}, 1)
    await other.report([ClaimReport(claimed=claimed, dead={"h": HandlerFailure(failures=1)})])
    assert await inbox.counts() == {EventState.WAITING: 0, EventState.DEAD: 1}
    await inbox.aclose()
    await other.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells processes apart for good")
def test_tokens_of_processes() -> None:
    """Only a process of this very place is called gone, and only if its number or start is."""
    place, number, start = process_token().split(" ")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    assert not is_process_gone(process_token())
    assert is_process_gone(f"{place} {number} {int(start) - 1}")
    assert is_process_gone(f"{place} {gone.pid} {start}")
    assert not is_process_gone(f"elsewhere {gone.pid} {start}")
    for unknown in ("", " ", place, f"{place} x y", f"{place} {9**40} 1"):
        assert not is_process_gone(unknown)


async def test_a_new_files_log_is_not_taken_for_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its inode may have the old log's number, once that one is closed: events would be lost."""
    one, other = SQLiteInbox(tmp_path / "i.db"), SQLiteInbox(tmp_path / "i.db")
    await one.put(event("old"))
    await other.put(event("old"))
    for path in tmp_path.iterdir():
        path.unlink()
    old = other._file
    assert old is not None
    kind = type(old.store)
    close = kind.aclose

    async def close_while_another_opens(store: Any) -> None:
        await close(store)
        if store is old.store:
            await one.put(event("new"))
            log = (tmp_path / "i.db-wal").stat()
            old.log_identity = log.st_dev, log.st_ino

    monkeypatch.setattr(kind, "aclose", close_while_another_opens)
    (entry,) = await other.list()
    monkeypatch.undo()
    assert entry.event.key == "new"
    assert (tmp_path / "i.db-wal").exists()
    await one.aclose()
    await other.aclose()
