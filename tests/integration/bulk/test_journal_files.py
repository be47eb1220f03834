"""Files that a running job holds open, and what the lock beside its journal is for."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from pathlib import Path

import pytest

from gather_async import errors
from gather_async.bulk.journal import Journal, JournalScope
from gather_async.storage import FileLock, SQLiteStore

from .conftest import Bench, people


async def test_a_job_is_refused_where_anothers_last_changes_are(
    bench: Bench, tmp_path: Path
) -> None:
    """The -wal file beside a journal that was replaced belongs to the job that still runs."""
    journal, copy = tmp_path / "invites.db", tmp_path / "copy.db"
    first = bench.job(people(30), journal=journal)
    async for _ in first:
        shutil.copy(journal, copy)
        copy.replace(journal)
        with pytest.raises(errors.ConfigurationError, match="in use by another job"):
            await bench.job(people(30), journal=journal)
        break
    with pytest.raises(errors.ConfigurationError, match="removed, moved or replaced"):
        await first


_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc and such locks are Linux's")


@_LINUX
async def test_a_journal_takes_four_descriptors(tmp_path: Path) -> None:
    """SQLite's three files, and the lock beside them: the journal's own is on SQLite's."""
    paths = [tmp_path / f"{number}.db" for number in range(20)]
    journals = [await _opened(each) for each in paths]
    assert _open_files(tmp_path) == {
        f"{path}{suffix}": 1 for path in paths for suffix in ("", "-wal", "-shm", ".lock")
    }
    for journal in journals:
        await journal.aclose()
    assert not _open_files(tmp_path)


@_LINUX
@pytest.mark.parametrize("kind", ["its name", "moved", "hard link", "symbolic link"])
async def test_an_open_journal_is_locked_for_every_process(tmp_path: Path, kind: str) -> None:
    """Neither a second name, a removed lock, nor a copy made by the job's process lets one in."""
    path, other = tmp_path / "invites.db", tmp_path / "other.db"
    journal = await _opened(path)
    shutil.copy(path, tmp_path / "copy.db")
    path.with_name("invites.db.lock").unlink()
    if kind == "moved":
        path.rename(other)
    elif kind == "hard link":
        other.hardlink_to(path)
    elif kind == "symbolic link":
        other.symlink_to(path)
    else:
        other = path
    assert await _try_lock(other) == "in use"
    await journal.aclose()
    assert await _try_lock(other) == "free"


@_LINUX
async def test_a_journal_that_another_process_has_is_not_read(tmp_path: Path) -> None:
    """A second name is refused before SQLite would put a -wal of its own beside it."""
    path, other = tmp_path / "invites.db", tmp_path / "other.db"
    path.touch()
    other.hardlink_to(path)
    async with _held(path):
        with pytest.raises(errors.ConfigurationError, match="in use by another job"):
            await _opened(other)
    assert not path.stat().st_size
    assert sorted(each.name for each in tmp_path.iterdir()) == ["invites.db", "other.db"]
    await (await _opened(other)).aclose()


@_LINUX
async def test_a_journal_that_the_process_reads_is_locked_apart(tmp_path: Path) -> None:
    """Where SQLite's descriptor isn't the only one, another may be closed before the job's."""
    path = tmp_path / "invites.db"
    await (await _opened(path)).aclose()
    with path.open("r+b"):
        journal = await _opened(path)
        assert _open_files(tmp_path)[str(path)] == 3
    assert await _try_lock(path.rename(tmp_path / "other.db")) == "in use"
    await journal.aclose()
    assert await _try_lock(tmp_path / "other.db") == "free"


@_LINUX
@pytest.mark.parametrize("is_read", [False, True])
async def test_a_journal_that_was_refused_once_is_refused_again(
    tmp_path: Path, *, is_read: bool
) -> None:
    """A database that is opened anew for the next work takes the lock anew."""
    path, other = tmp_path / "invites.db", tmp_path / "other.db"
    path.touch()
    other.hardlink_to(path)
    async with _held(path):
        lock = FileLock(other, what="journal", is_opened_later=True)
        store = SQLiteStore(other, schema_version=1, migrate=lambda _, __: None, lock=lock)
        with path.open("rb") if is_read else nullcontext():
            for _ in range(2):
                with pytest.raises(errors.ConfigurationError, match="in use by another job"):
                    await store.run(bool)
    await store.run(bool)
    assert await _try_lock(path) == "in use"
    await store.aclose()
    lock.release()


@_LINUX
async def test_a_reader_does_not_keep_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite keeps a descriptor while another connection reads; the next job is let in."""
    defaults = SQLiteStore.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "busy_timeout", 0.1)  # seconds to wait for the reader
    path = tmp_path / "invites.db"
    journal = await _opened(path)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM rows").fetchone() == (0,)
        await journal.aclose()
        assert _open_files(tmp_path)[str(path)] == 2
        assert await _try_lock(path) == "free"
        await (await _opened(path)).aclose()


@_LINUX
async def test_a_lock_that_was_released_locks_nothing_any_more(tmp_path: Path) -> None:
    """A database that is opened late, when its job was given up, is not opened."""
    path = tmp_path / "invites.db"
    lock = FileLock(path, what="journal", is_opened_later=True)
    lock.release()
    store = SQLiteStore(path, schema_version=1, migrate=lambda _, __: None, lock=lock)
    with pytest.raises(errors.ClientClosedError, match="released"):
        await store.run(bool)
    await store.aclose()
    assert await _try_lock(path) == "free"


_FORKER = """
import os, pathlib, sys, threading, time
from gather_async.storage import FileLock, sqlite

def hold():
    with sqlite._GUARD:
        held.set()
        time.sleep(0.1)

held = threading.Event()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    FileLock(pathlib.Path(sys.argv[1]), what="journal").release()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_lock_files_though_a_thread_was_at_it(tmp_path: Path) -> None:
    """What the thread held at the fork is held by no one in the child."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKER]
    command.append(str(tmp_path / "invites.db"))
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.split() == ["7"]


async def _opened(path: Path) -> Journal:
    scope = JournalScope(
        interview_id="i", server="s", invitation="", key_digest=bytes.hex, other_key=False
    )
    return await Journal.open(path, scope, keeps_candidates=True, retry_failed=False, owner="o")


_LOCKER = """
import pathlib, sys
from gather_async import errors
from gather_async.storage import FileLock
try:
    lock = FileLock(pathlib.Path(sys.argv[1]).resolve(), what="journal")
except errors.ConfigurationError:
    print("in use", flush=True)
else:
    print("free", flush=True)
    sys.stdin.read()
    lock.release()
"""


@asynccontextmanager
async def _held(path: Path) -> AsyncIterator[str]:
    """Let another process lock a file; yield ``free`` or ``in use``, as it found it."""
    pipe = asyncio.subprocess.PIPE
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _LOCKER, str(path), stdin=pipe, stdout=pipe
    )
    assert other.stdin is not None
    assert other.stdout is not None
    yield (await other.stdout.readline()).decode().strip()
    other.stdin.close()
    await other.wait()


async def _try_lock(path: Path) -> str:
    async with _held(path) as found:
        return found


def _open_files(folder: Path) -> Counter[str]:
    """Return by how many descriptors this process has each file of a folder open."""
    names = list[str]()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists the folder is closed by now
            names.append(str(descriptor.readlink()))
    return Counter(name for name in names if name.startswith(str(folder)))
