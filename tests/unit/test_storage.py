"""What the SQLite store promises: order, grouped commits, isolation of failures, an end."""

import asyncio
import gc
import sqlite3
import threading
from functools import partial
from pathlib import Path

import pytest

from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.storage import SQLiteStore


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Make the one table of these tests."""
    assert version == 0
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")


def store_at(path: str | Path, version: int = 1, busy_timeout: float = 5.0) -> SQLiteStore:
    """Return a store with the table of these tests."""
    return SQLiteStore(path, schema_version=version, migrate=migrate, busy_timeout=busy_timeout)


async def insert(store: SQLiteStore, n: int) -> int:
    """Insert a number and return it."""

    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?)", (n,))
        return n

    return await store.run(work)


async def numbers(store: SQLiteStore) -> list[int]:
    """Return what is in the table."""
    return await store.read(
        lambda connection: [n for (n,) in connection.execute("SELECT n FROM t ORDER BY n")]
    )


async def hold(store: SQLiteStore) -> tuple["asyncio.Task[None]", threading.Event]:
    """Occupy the thread with a transaction of its own, until the event is set."""
    gate, entered = threading.Event(), threading.Event()

    def work(_: sqlite3.Connection) -> None:
        entered.set()
        gate.wait(10)

    task = asyncio.create_task(store.run(work))
    await asyncio.to_thread(entered.wait)
    return task, gate


async def test_committed_when_run_returns(tmp_path: Path) -> None:
    """Another connection sees a work's rows as soon as `run` has returned."""
    store = store_at(tmp_path / "s.db")
    assert await insert(store, 7) == 7
    with sqlite3.connect(tmp_path / "s.db") as other:
        assert other.execute("SELECT n FROM t").fetchall() == [(7,)]
    other.close()
    await store.aclose()


def _insert(n: int, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO t VALUES (?)", (n,))


async def test_a_work_that_no_one_waits_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is done in its turn; its error reaches no one, and a closed store leaves it undone."""
    store = store_at(tmp_path / "s.db")
    for n in (7, 7, 8):
        store.start(partial(_insert, n))
    assert await numbers(store) == [7, 8]
    await store.aclose()
    store.start(partial(_insert, 9))
    gc.collect()
    assert not caplog.records
    again = store_at(tmp_path / "s.db")
    assert await numbers(again) == [7, 8]
    await again.aclose()


async def test_file_settings(tmp_path: Path) -> None:
    """The file is in WAL mode and each commit is flushed to the disk."""
    store = store_at(tmp_path / "s.db")
    pragmas = ("journal_mode", "synchronous", "foreign_keys", "user_version")
    found = await store.read(
        lambda connection: [connection.execute(f"PRAGMA {p}").fetchone()[0] for p in pragmas]
    )
    assert found == ["wal", 2, 1, 1]
    await store.aclose()


async def test_a_temporary_file_is_undone_from_memory() -> None:
    """What is gone with the process writes nothing that would undo a transaction after it."""
    store = store_at("")
    await insert(store, 1)
    (mode,) = await store.read(
        lambda connection: connection.execute("PRAGMA journal_mode").fetchone()
    )
    assert mode == "memory"

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (2)")
        raise LookupError

    with pytest.raises(LookupError):
        await store.run(fail)
    assert await numbers(store) == [1]
    await store.aclose()


async def test_works_that_queue_up_share_a_commit(tmp_path: Path) -> None:
    """Works that wait behind a running one are committed together, in the order of the calls."""
    store = store_at(tmp_path / "s.db")
    await insert(store, 0)
    statements: list[str] = []
    await store.read(lambda connection: connection.set_trace_callback(statements.append))
    held, gate = await hold(store)
    waiting = [asyncio.create_task(insert(store, n)) for n in range(1, 51)]
    await asyncio.sleep(0)
    gate.set()
    await held
    assert await asyncio.gather(*waiting) == list(range(1, 51))
    assert statements.count("COMMIT") == 2
    inserted = [s for s in statements if s.startswith("INSERT")]
    assert inserted == [f"INSERT INTO t VALUES ({n})" for n in range(1, 51)]
    await store.aclose()


async def test_failed_work_is_undone_alone(tmp_path: Path) -> None:
    """A work that raises loses its own rows and no other's in the shared transaction."""
    store = store_at(tmp_path / "s.db")

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (100)")
        raise KeyError("mine")

    results = await asyncio.gather(
        insert(store, 1), store.run(fail), insert(store, 2), return_exceptions=True
    )
    assert results[0] == 1
    assert isinstance(results[1], KeyError)
    assert results[2] == 2
    assert await numbers(store) == [1, 2]
    await store.aclose()


async def test_lost_transaction_fails_every_work_of_it(tmp_path: Path) -> None:
    """When the transaction itself is lost, no work that shared it learns that it was kept."""
    store = store_at(tmp_path / "s.db")
    await insert(store, 0)
    held, gate = await hold(store)

    def lose(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR ROLLBACK INTO t VALUES (0)")

    pair = asyncio.gather(insert(store, 1), store.run(lose), return_exceptions=True)
    await asyncio.sleep(0)
    gate.set()
    first, second = await pair
    await held
    assert isinstance(first, sqlite3.OperationalError)
    assert isinstance(second, sqlite3.IntegrityError)
    assert await numbers(store) == [0]
    assert await insert(store, 2) == 2
    await store.aclose()


async def test_full_disk_is_passed_on_and_survived(tmp_path: Path) -> None:
    """A full disk raises `sqlite3.Error`, and the store works again once there is room."""
    store = store_at(tmp_path / "s.db")
    await insert(store, 0)
    pages = await store.read(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await store.read(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchall())
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await store.run(
            lambda c: c.executemany("INSERT INTO t VALUES (?)", ((n,) for n in range(1, 5000)))
        )
    await store.read(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchall())
    assert await insert(store, 1) == 1
    assert await numbers(store) == [0, 1]
    await store.aclose()


async def test_cancelled_before_it_began_does_not_run(tmp_path: Path) -> None:
    """A work that was cancelled while it queued is left out."""
    store = store_at(tmp_path / "s.db")
    held, gate = await hold(store)
    queued = asyncio.create_task(insert(store, 1))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    gate.set()
    await held
    assert await numbers(store) == []
    await store.aclose()


async def test_newer_file_is_refused(tmp_path: Path) -> None:
    """A file of a newer version is left alone, and the message names both versions."""
    newer = store_at(tmp_path / "s.db", version=3)
    await insert(newer, 1)
    await newer.aclose()
    store = store_at(tmp_path / "s.db", version=2)
    with pytest.raises(ConfigurationError, match=r"version 3.* 2:"):
        await numbers(store)
    await store.aclose()


async def test_not_a_database(tmp_path: Path) -> None:
    """A file that is no SQLite database, and a folder that isn't there, are configuration."""
    (tmp_path / "s.db").write_bytes(b"no database " * 100)
    for path in (tmp_path / "s.db", tmp_path / "absent" / "s.db"):
        store = store_at(path)
        with pytest.raises(ConfigurationError):
            await numbers(store)
        await store.aclose()
    assert (tmp_path / "s.db").read_bytes() == b"no database " * 100


async def test_failed_migration_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """A migration that raises is undone, and the next call tries again."""
    attempts: list[int] = []

    def shaky(connection: sqlite3.Connection, version: int) -> None:
        migrate(connection, version)
        attempts.append(version)
        if len(attempts) == 1:
            raise OSError("disk")

    store = SQLiteStore(tmp_path / "s.db", schema_version=1, migrate=shaky)
    with pytest.raises(OSError, match="disk"):
        await numbers(store)
    assert await numbers(store) == []
    assert attempts == [0, 0]
    await store.aclose()


async def test_two_stores_on_one_file(tmp_path: Path) -> None:
    """Two connections write the same new file at once, and neither loses anything."""
    stores = [store_at(tmp_path / "s.db") for _ in range(2)]
    await asyncio.gather(*(insert(stores[n % 2], n) for n in range(100)))
    assert await numbers(stores[0]) == list(range(100))
    for store in stores:
        await store.aclose()


async def test_held_file_is_a_passing_error(tmp_path: Path) -> None:
    """A file that another process keeps locked raises `sqlite3.OperationalError` in time."""
    store = store_at(tmp_path / "s.db", busy_timeout=0.05)
    await insert(store, 1)
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await insert(store, 2)
    assert await numbers(store) == [1]
    other.execute("ROLLBACK")
    other.close()
    assert await insert(store, 2) == 2
    await store.aclose()


async def test_backup_is_refused_in_a_transaction(tmp_path: Path) -> None:
    """`backup` works in `read`; in `run`, where Python would wait forever, it raises."""
    store = store_at(tmp_path / "s.db")
    await insert(store, 1)
    target = sqlite3.connect(":memory:", check_same_thread=False)
    with pytest.raises(sqlite3.ProgrammingError, match=r"store\.read"):
        await store.run(lambda connection: connection.backup(target))
    await store.read(lambda connection: connection.backup(target))
    assert target.execute("SELECT n FROM t").fetchall() == [(1,)]
    target.close()
    await store.aclose()


async def test_close_finishes_what_was_asked_for(tmp_path: Path) -> None:
    """`aclose` returns after queued works are committed and the file is closed; then it is over."""
    store = store_at(tmp_path / "s.db")
    waiting = [asyncio.create_task(insert(store, n)) for n in range(1000)]
    await asyncio.sleep(0)
    await store.aclose()
    await store.aclose()
    assert len(await asyncio.gather(*waiting)) == 1000
    assert not (tmp_path / "s.db-wal").exists()
    with pytest.raises(ClientClosedError):
        await numbers(store)


async def test_unused_store_has_no_thread(tmp_path: Path) -> None:
    """Making and closing a store opens nothing."""
    store = store_at(tmp_path / "s.db")
    await store.aclose()
    assert not (tmp_path / "s.db").exists()


def test_store_outlives_its_loop(tmp_path: Path) -> None:
    """One store serves one loop after the other, and a loop that died waiting is no harm."""
    store = store_at(tmp_path / "s.db")
    gate = threading.Event()

    async def leave_waiting() -> None:
        task = asyncio.create_task(store.run(lambda _: gate.wait(10)))
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(insert_and_forget(store))
    asyncio.run(leave_waiting())
    gate.set()

    async def finish() -> None:
        assert await numbers(store) == [1]
        await store.aclose()

    asyncio.run(finish())


async def insert_and_forget(store: SQLiteStore) -> None:
    """Insert the number 1."""
    await insert(store, 1)


async def test_dropped_store_ends_its_thread(tmp_path: Path) -> None:
    """A store that was forgotten unclosed doesn't keep its thread."""
    store = store_at(tmp_path / "s.db")
    thread = await store.read(lambda _: threading.current_thread())
    del store
    gc.collect()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
