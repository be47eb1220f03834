"""Rows from sources that block, wait, or are closed early."""

import asyncio
import csv
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path

import pytest

from gather_async.bulk import read_candidates
from gather_async.bulk.source import CHUNK, chunks_of
from gather_async.errors import ConfigurationError

from .conftest import Bench, people

_TENANT: ContextVar[str] = ContextVar("_TENANT", default="absent")


async def test_a_source_that_blocks_doesnt_block_the_loop() -> None:
    """The loop runs while the source waits for something that the loop does."""
    go = threading.Event()

    def rows() -> Iterator[object]:
        assert go.wait(timeout=20)
        yield 1

    chunks = chunks_of(rows())
    first = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    go.set()
    assert await first == [1]
    await chunks.aclose()


async def test_a_source_is_read_no_further_than_asked() -> None:
    """One chunk is read for each that is asked for."""
    read = 0

    def rows() -> Iterator[int]:
        nonlocal read
        for number in range(10_000):
            read = number + 1
            yield number

    chunks = chunks_of(rows())
    first = await anext(chunks)
    assert read == len(first) <= CHUNK
    second = await anext(chunks)
    assert read == len(first) + len(second)
    await chunks.aclose()


async def test_rows_come_whole_and_in_order() -> None:
    """Nothing is lost or turned round at the edges of chunks, whatever the source."""
    expected = list(range(3 * CHUNK + 7))

    async def stream() -> AsyncIterator[int]:
        for number in expected:
            if number % 100 == 0:
                await asyncio.sleep(0)
            yield number

    for source in (
        expected,
        tuple(expected),
        iter(expected),
        stream(),
        dict.fromkeys(expected, 0).keys(),
    ):
        assert [row async for chunk in chunks_of(source) for row in chunk] == expected


async def test_rows_before_an_error_are_handed_over() -> None:
    """An error of the source is raised once the rows before it were given."""

    def rows() -> Iterator[int]:
        yield from range(5)
        raise LookupError("gone")

    chunks = chunks_of(rows())
    assert await anext(chunks) == [0, 1, 2, 3, 4]
    with pytest.raises(LookupError, match="gone"):
        await anext(chunks)


@pytest.mark.parametrize("error", [asyncio.CancelledError, LookupError])
async def test_a_source_that_breaks_or_is_cancelled_ends_no_job_in_silence(
    bench: Bench, error: type[BaseException]
) -> None:
    """A database's own cancellation is no end of its rows; those before it are handed over."""
    persons = people(2)

    async def rows() -> AsyncIterator[object]:
        for person in persons:
            yield person
        raise error

    job = bench.job(rows())
    with pytest.raises((RuntimeError, LookupError)):
        await job
    given, chunks = list[object](), chunks_of(rows())
    while len(given) < len(persons):
        given += await anext(chunks)
    with pytest.raises((RuntimeError, LookupError)):
        await anext(chunks)
    assert given == persons


@pytest.mark.parametrize("journal", [5, b"j.db", "a\0b", " "])
async def test_a_journal_that_is_no_path_is_refused_at_once(bench: Bench, journal: object) -> None:
    """It is a mistake of the call, whatever Python's file functions would say of it."""
    with pytest.raises(ConfigurationError, match="journal must be"):
        bench.job([], journal=journal)


async def test_a_slow_async_source_gives_its_rows_one_by_one() -> None:
    """A row isn't kept waiting for those that would fill its chunk."""
    more = asyncio.Event()

    async def stream() -> AsyncIterator[int]:
        yield 1
        await more.wait()
        yield 2

    chunks = chunks_of(stream())
    assert await anext(chunks) == [1]
    more.set()
    assert await anext(chunks) == [2]
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


async def test_leaving_early_closes_the_source_on_its_own_thread() -> None:
    """A generator is made, advanced and closed on one thread, under the caller's context."""
    threads: list[str] = []
    closed = threading.Event()
    _TENANT.set("someone")

    def rows() -> Iterator[object]:
        try:
            threads.append(threading.current_thread().name)
            while True:
                yield _TENANT.get()
        finally:
            threads.append(threading.current_thread().name)
            closed.set()

    chunks = chunks_of(rows())
    assert set(await anext(chunks)) == {"someone"}
    await chunks.aclose()
    assert await asyncio.to_thread(closed.wait, 20)
    assert set(threads) == {"gather-async-rows"}


async def test_files_share_a_thread_and_what_may_block_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three files that are read at once cost one thread, which ends with the last of them."""
    path = tmp_path / "people.jsonl"
    path.write_text("".join(f"{json.dumps(person)}\n" for person in people(1000)))
    readers = [chunks_of(read_candidates(path)) for _ in range(3)]
    others = [chunks_of(iter(people(1000))) for _ in range(2)]
    # A busy machine would cut the first chunk.
    monkeypatch.setattr("gather_async.bulk.source._PATIENCE", 60.0)
    for each in (*readers, *others):
        assert len(await anext(each)) == 256
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("gather-async-rows") == 1 + 2
    for each in (readers[0], *others, readers[1]):
        await each.aclose()
    assert sum([len(chunk) async for chunk in readers[2]]) == 1000 - 256
    await _no_thread_is_left()


async def test_cancelling_a_read_leaves_the_thread_to_end_by_itself() -> None:
    """A reader that is cancelled gets no answer later; the source is closed once it goes on."""
    go, closed = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def rows() -> Iterator[object]:
        threads.append(threading.current_thread())
        loop.call_soon_threadsafe(begun.set)
        try:
            assert go.wait(timeout=20)
            yield 1
        finally:
            assert threading.current_thread() is threads[0]
            closed.set()

    chunks = chunks_of(rows())
    read = asyncio.ensure_future(anext(chunks))
    await begun.wait()
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    await chunks.aclose()
    assert not closed.is_set()
    go.set()
    assert await asyncio.to_thread(closed.wait, 20)
    await asyncio.to_thread(threads[0].join, 20.0)
    assert not threads[0].is_alive()


def test_a_thread_whose_loop_is_gone_ends() -> None:
    """An answer that no one can take is dropped, not raised in the thread."""
    go = threading.Event()
    threads: list[threading.Thread] = []

    def rows(loop: asyncio.AbstractEventLoop, begun: asyncio.Event) -> Iterator[object]:
        threads.append(threading.current_thread())
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(timeout=20)
        yield 1

    async def leave() -> None:
        begun = asyncio.Event()
        chunks = chunks_of(rows(asyncio.get_running_loop(), begun))
        read = asyncio.ensure_future(anext(chunks))
        await begun.wait()
        read.cancel()

    asyncio.run(leave())
    go.set()
    threads[0].join(20.0)
    assert not threads[0].is_alive()


def test_a_source_that_blocks_for_good_lets_the_program_end() -> None:
    """A program whose source never goes on ends when its work does."""
    program = """if True:
        import asyncio, threading
        from gather_async.bulk.source import chunks_of

        async def main():
            loop, begun = asyncio.get_running_loop(), asyncio.Event()

            def rows():
                loop.call_soon_threadsafe(begun.set)
                threading.Event().wait()
                yield 1

            read = asyncio.ensure_future(anext(chunks_of(rows())))
            await begun.wait()
            read.cancel()

        asyncio.run(main())
        print("over")
    """
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "over\n", "")


async def test_a_source_that_belongs_to_another_thread_raises_its_error_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor of the caller's thread ends the job with its error; no thread dies of it."""
    strays: list[object] = []
    monkeypatch.setattr(threading, "excepthook", strays.append)
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute("CREATE TABLE people (first_name, last_name, email, phone)")
        cursor = base.execute("SELECT * FROM people")
        with pytest.raises(sqlite3.ProgrammingError):
            await bench.job(cursor, dry_run=True)
    await _no_thread_is_left()
    assert strays == []


async def test_a_source_made_on_its_thread_is_read_and_closed_there(bench: Bench) -> None:
    """A generator over a database of its own works, and is closed when the job has ended."""
    events: list[str] = []

    def rows() -> Iterator[dict[str, str]]:
        with closing(sqlite3.connect(":memory:")) as base:
            base.execute("CREATE TABLE people (first_name, last_name, email, phone)")
            base.executemany(
                "INSERT INTO people VALUES (?, ?, ?, ?)",
                [tuple(person.values()) for person in people(3)],
            )
            cursor = base.execute("SELECT * FROM people")
            names = [column[0] for column in cursor.description]
            yield from (dict(zip(names, row, strict=True)) for row in cursor)
        events.append("closed")

    report = await bench.job(rows())
    assert report.invited == 3
    assert events == ["closed"]
    await _no_thread_is_left()


async def test_a_source_whose_close_raises_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error while an abandoned source is closed is logged for who looks, and no more."""
    strays: list[object] = []
    monkeypatch.setattr(threading, "excepthook", strays.append)
    caplog.set_level("DEBUG", logger="gather_async.bulk")

    def rows() -> Iterator[int]:
        try:
            yield from range(10_000)
        finally:
            raise LookupError("secret")

    chunks = chunks_of(rows())
    await anext(chunks)
    await chunks.aclose()
    await _no_thread_is_left()
    assert strays == []
    assert caplog.messages == ["closing the source raised LookupError"]


async def _no_thread_is_left() -> None:
    """Wait until the threads of sources have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("gather-async-rows"):
            await asyncio.to_thread(thread.join, 20.0)
            assert not thread.is_alive()


async def test_outcomes_and_messages_name_the_line_of_the_file(
    bench: Bench, tmp_path: Path
) -> None:
    """Row and line stand in outcomes, live and read back, in the report and in messages."""
    head = "first_name,last_name,email,phone\n\n"
    lines = [",".join(person.values()) for person in people(2)]
    path = tmp_path / "people.csv"
    path.write_text(head + "\n".join([lines[0], "", lines[1], lines[0]]) + "\n")
    job = bench.job(read_candidates(path), journal=tmp_path / "journal.db")
    live = sorted([(each.row, each.line) async for each in job])
    assert live == [(1, 3), (2, 5), (3, 6)]
    report = await job
    assert [(each.row, each.line) for each in report.outcomes] == live
    assert [each.place for each in report.failures] == ["row 3 (line 6)"]
    assert "of row 1 (line 3)" in str([each.reason for each in report.failures])
    report.to_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        assert [each["line"] for each in csv.DictReader(file)] == ["3", "5", "6"]
    path.write_text(head.strip() + "\n" + "\n".join(lines) + "\n")
    report = await bench.job(read_candidates(path), journal=tmp_path / "journal.db")
    assert [(each.row, each.line) for each in report.outcomes] == [(1, 2), (2, 3)]


async def test_the_plan_says_how_the_file_is_read(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dry run's plan and the log have encoding, delimiter, columns and shapes, once."""
    caplog.set_level("INFO", logger="gather_async.bulk")
    lines = ["first_name\tlast_name\temail\tMobile\tNotes"]
    lines += ["\t".join([*person.values(), "x"]) for person in people(3)]
    path = tmp_path / "people.tsv"
    path.write_text("\n".join(lines), encoding="utf-16")
    report = await bench.job(read_candidates(path, columns={"Mobile": "phone"}), dry_run=True)
    assert report.plan is not None
    source = report.plan.source
    assert source is not None
    assert (source.encoding, source.delimiter, source.ignored) == ("utf-16", "\t", ("Notes",))
    assert source.columns["Mobile"] == "phone"
    assert [row["phone"] for row in source.sample] == ["+99999999999"] * 2
    assert caplog.messages == [f"reading {source}"]
    report = await bench.job(people(1), dry_run=True)
    assert report.plan is not None
    assert report.plan.source is None
