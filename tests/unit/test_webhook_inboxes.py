"""What every inbox promises, tried on each of ours."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gather_async.errors import ConfigurationError
from gather_async.webhooks import (
    HandlerJob,
    Inbox,
    MemoryInbox,
    PutResult,
    SQLiteInbox,
    StoredEvent,
)
from gather_async.webhooks.sqlite_queries import is_process_gone, process_token

NOW = 1_767_225_600.0
H = ["h"]


@pytest.fixture(params=["memory", "sqlite"])
async def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Inbox]:
    """Give one inbox of each kind."""
    made: Inbox = MemoryInbox() if request.param == "memory" else SQLiteInbox(tmp_path / "i.db")
    yield made
    await made.aclose()


def event(key: str = "k", **more: Any) -> StoredEvent:
    """Return an event as an inbox gets it."""
    text = f'{{"event":"x","data":{{"id":"{key}"}}}}'
    return StoredEvent(key=key, text=text, received_at=NOW, **more)


async def claim(
    inbox: Inbox, now: float = NOW, *, limit: int = 10, handlers: Any = H
) -> list[HandlerJob]:
    """Claim tasks for 30 seconds."""
    return list((await inbox.claim(handlers, limit=limit, now=now, until=now + 30)).tasks)


async def test_put_claim_succeed(inbox: Inbox) -> None:
    """An event goes to each handler once, as it was put."""
    put = event(synthetic=True, signed=False)
    assert await inbox.put(put, ["a", "b"]) is PutResult.NEW
    assert await inbox.put(put, ["a", "b"]) is PutResult.DUPLICATE
    tasks = await claim(inbox, handlers=["a", "b"])
    assert sorted(task.handler for task in tasks) == ["a", "b"]
    assert {(t.event.text, t.event.synthetic, t.event.signed) for t in tasks} == {
        (put.text, True, False)
    }
    assert await claim(inbox, handlers=["a", "b"]) == []
    for task in tasks:
        await inbox.succeed(task, now=NOW)
    assert await claim(inbox, NOW + 1000, handlers=["a", "b"]) == []
    assert await inbox.waiting() == {}
    assert await inbox.put(put, ["a", "b"]) is PutResult.DUPLICATE


async def test_only_ones_own_handlers(inbox: Inbox) -> None:
    """Tasks of handlers that are not named stay, and hide nothing behind them."""
    for n in range(5):
        await inbox.put(event(f"a{n}"), ["a"])
    await inbox.put(event("b"), ["b"])
    assert [task.event.key for task in await claim(inbox, handlers=["b"], limit=1)] == ["b"]
    assert await inbox.waiting() == {"a": 5, "b": 1}
    assert len(await claim(inbox, handlers=["a"], limit=3)) == 3
    assert len(await claim(inbox, handlers=["a"])) == 2


async def test_lease_ends(inbox: Inbox) -> None:
    """A claim that nobody reports on is given out again after its lease, and counted."""
    await inbox.put(event(), H)
    (first,) = await claim(inbox)
    assert await claim(inbox, NOW + 29) == []
    (second,) = await claim(inbox, NOW + 30)
    assert (first.crashes, second.crashes) == (0, 1)
    await inbox.renew([second], until=NOW + 100)
    await inbox.renew([first], until=NOW)
    assert await claim(inbox, NOW + 99) == []
    assert len(await claim(inbox, NOW + 100)) == 1


async def test_stale_reports(inbox: Inbox) -> None:
    """Who lost the lease can't delay or bury the task, but its success counts."""
    await inbox.put(event(), H)
    (stale,) = await claim(inbox)
    (current,) = await claim(inbox, NOW + 30)
    await inbox.retry(stale, due_at=NOW + 5000, error="e")
    await inbox.bury(stale, now=NOW, error="e")
    await inbox.release(stale)
    assert await inbox.dead_letters(limit=9) == []
    (again,) = await claim(inbox, NOW + 60)
    assert (again.failures, again.crashes) == (0, 2)
    await inbox.succeed(stale, now=NOW)
    await inbox.retry(current, due_at=NOW, error="e")
    await inbox.bury(again, now=NOW, error="e")
    assert await claim(inbox, NOW + 9000) == []
    assert await inbox.dead_letters(limit=9) == []


async def test_retry_and_release(inbox: Inbox) -> None:
    """A failure is counted and due later; a release counts nothing and is due at once."""
    await inbox.put(event(), H)
    (task,) = await claim(inbox)
    await inbox.retry(task, due_at=NOW + 50, error="first")
    claimed = await inbox.claim(H, limit=1, now=NOW + 49, until=NOW + 90)
    assert (list(claimed.tasks), claimed.next_due) == ([], NOW + 50)
    (task,) = await claim(inbox, NOW + 50)
    assert (task.failures, task.crashes) == (1, 0)
    await inbox.release(task)
    (task,) = await claim(inbox, NOW + 50)
    assert (task.failures, task.crashes) == (1, 0)


async def test_dead_letters(inbox: Inbox) -> None:
    """A dead letter can be read, replayed as if new, and discarded."""
    for key in ("one", "two"):
        await inbox.put(event(key), H)
    for task in await claim(inbox):
        await inbox.bury(task, now=NOW + ord(task.event.key[0]), error="Bad: \ud800")
    assert await claim(inbox, NOW + 9999) == []
    letters = await inbox.dead_letters(limit=9)
    assert sorted(letter.key for letter in letters) == ["one", "two"]
    assert {(letter.handler, letter.failures) for letter in letters} == {("h", 1)}
    assert {letter.event.ids for letter in letters} == {frozenset({"one"}), frozenset({"two"})}
    assert all(letter.error.startswith("Bad: ") for letter in letters)
    assert "Bad" not in repr(letters)
    one, two = letters
    assert await inbox.replay([one]) == 1
    assert await inbox.replay([one]) == 0
    (task,) = await claim(inbox)
    assert (task.event.key, task.failures, task.crashes) == (one.key, 0, 0)
    assert await inbox.discard([two]) == 1
    assert await inbox.dead_letters(limit=9) == []
    assert await inbox.put(event(two.key), H) is PutResult.DUPLICATE
    await inbox.bury(task, now=NOW, error="again")
    assert await inbox.replay(None) == 1
    assert await inbox.discard(None) == 0


async def test_event_that_nobody_wants(inbox: Inbox) -> None:
    """An event without handlers waits for nothing and is still recognised."""
    assert await inbox.put(event(), []) is PutResult.NEW
    assert await inbox.put(event(), H) is PutResult.DUPLICATE
    assert await inbox.waiting() == {}


async def test_synthetic_and_real_are_one(inbox: Inbox) -> None:
    """The same state of a subject is told once, if one of the two tellers only looked."""
    real = {"subject": "s", "state": "A"}
    assert await inbox.put(event("1", **real), H) is PutResult.NEW
    assert await inbox.knows(event("2", synthetic=True, **real))
    assert await inbox.put(event("2", synthetic=True, **real), H) is PutResult.DUPLICATE
    assert await inbox.put(event("3", **real), H) is PutResult.NEW
    looked = {"subject": "s", "state": "B", "synthetic": True}
    assert not await inbox.knows(event("4", **looked))
    assert await inbox.put(event("4", **looked), H) is PutResult.NEW
    assert await inbox.put(event("5", subject="s", state="B"), H) is PutResult.DUPLICATE
    assert await inbox.put(event("6", **real), H) is PutResult.NEW


async def test_clock_that_goes_back(inbox: Inbox) -> None:
    """What was written before the clock went back a day is not delayed by a day."""
    await inbox.put(event("new"), H)
    await inbox.put(event("retried"), H)
    for task in await claim(inbox):
        if task.event.key == "retried":
            await inbox.retry(task, due_at=NOW + 60, error="e")
        else:
            await inbox.release(task)
    yesterday = NOW - 86_400
    found = await claim(inbox, yesterday) + await claim(inbox, yesterday + 60)
    assert {task.event.key for task in found} == {"new", "retried"}


async def test_memory_is_bounded() -> None:
    """A full memory inbox says so, and takes events again when there is room."""
    inbox = MemoryInbox(2, remember=2)
    assert [await inbox.put(event(k), H) for k in "abc"] == [
        PutResult.NEW,
        PutResult.NEW,
        PutResult.FULL,
    ]
    assert await inbox.put(event("a"), H) is PutResult.DUPLICATE
    for task in await claim(inbox):
        await inbox.succeed(task, now=NOW)
    assert [await inbox.put(event(k), H) for k in "cdb"] == [
        PutResult.NEW,
        PutResult.NEW,
        PutResult.DUPLICATE,
    ]
    for wrong in ({"capacity": 0}, {"remember": 0}):
        with pytest.raises(ConfigurationError):
            MemoryInbox(**wrong)


async def test_sqlite_forgets_by_age(tmp_path: Path) -> None:
    """Only what is old and done with is forgotten: nothing pending, nothing dead."""
    inbox = SQLiteInbox(tmp_path / "i.db", keep_for=3600)
    for key in ("done", "dead", "pending"):
        await inbox.put(event(key), H)
    for task in await claim(inbox):
        if task.event.key == "done":
            await inbox.succeed(task, now=NOW)
        elif task.event.key == "dead":
            await inbox.bury(task, now=NOW, error="e")
    assert await inbox.prune(now=NOW + 3600) == 0
    assert await inbox.prune(now=NOW + 3601) == 1
    assert await inbox.put(event("done"), H) is PutResult.NEW
    assert await inbox.put(event("dead"), H) is PutResult.DUPLICATE
    assert await inbox.put(event("pending"), H) is PutResult.DUPLICATE
    await inbox.aclose()
    with pytest.raises(ConfigurationError):
        SQLiteInbox(tmp_path / "i.db", keep_for=60)


async def test_sqlite_survives_and_is_shared(tmp_path: Path) -> None:
    """What one object stored, another gets; two at once never get the same task."""
    first, second = SQLiteInbox(tmp_path / "i.db"), SQLiteInbox(tmp_path / "i.db")
    await asyncio.gather(*(first.put(event(f"k{n}"), H) for n in range(50)))
    claims = [claim(box, limit=3) for _ in range(10) for box in (first, second)]
    tasks = [task for found in await asyncio.gather(*claims) for task in found]
    assert len(tasks) == len({task.event.key for task in tasks}) == 50
    await first.aclose()
    await second.aclose()
    assert await first.waiting() == {"h": 50}
    await first.aclose()


async def test_sqlite_file_is_private(tmp_path: Path) -> None:
    """The file holds personal data, so nobody else can read it."""
    inbox = SQLiteInbox(tmp_path / "i.db")
    await inbox.put(event(), H)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o600}
    await inbox.aclose()


@pytest.mark.parametrize("use", [lambda i: i.put(event(), H), lambda i: i.waiting()])
async def test_sqlite_in_no_folder(tmp_path: Path, use: Callable[[Inbox], Any]) -> None:
    """A path that can't be made is a configuration error with a next step."""
    inbox = SQLiteInbox(tmp_path / "absent" / "i.db")
    with pytest.raises(ConfigurationError, match="folder exists"):
        await use(inbox)
    await inbox.aclose()


CLAIMANT = """
import asyncio, sys
from gather_async.webhooks import SQLiteInbox
async def main():
    inbox = SQLiteInbox(sys.argv[1])
    now = float(sys.argv[2])
    claimed = await inbox.claim(["h"], limit=1, now=now, until=now + 30)
    print(len(claimed.tasks), flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells processes apart for good")
async def test_sqlite_takes_over_from_the_dead(tmp_path: Path) -> None:
    """What a process held when it died is given out at once; what a living one holds is not."""
    path = tmp_path / "i.db"
    inbox = SQLiteInbox(path)
    await inbox.put(event(), H)
    with subprocess.Popen(  # noqa: ASYNC220 - asyncio would reap it
        [sys.executable, "-c", CLAIMANT, str(path), str(NOW)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as claimant:
        assert claimant.stdout is not None
        assert claimant.stdout.readline() == b"1\n"
        assert await claim(inbox, NOW + 1) == []
        claimant.kill()
        # A zombie is dead, too.
        os.waitid(os.P_PID, claimant.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - as above
        other = SQLiteInbox(path)
        (task,) = await claim(other, NOW + 2)
    assert (task.failures, task.crashes) == (0, 1)
    await other.succeed(task, now=NOW)
    assert await other.waiting() == {}
    await inbox.aclose()
    await other.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells processes apart for good")
def test_marks_of_processes() -> None:
    """Only a process of this very place is called dead, and only if its number or start is gone."""
    place, number, start = process_token().split(" ")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    assert not is_process_gone(process_token())
    assert is_process_gone(f"{place} {number} {int(start) - 1}")
    assert is_process_gone(f"{place} {gone.pid} {start}")
    assert not is_process_gone(f"elsewhere {gone.pid} {start}")
    for unknown in ("", " ", place, f"{place} x y", f"{place} {9**40} 1"):
        assert not is_process_gone(unknown)
