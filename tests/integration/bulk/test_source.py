"""Rows from sources that block, wait, or are closed early."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar

import pytest

from gather_async.bulk.source import CHUNK, ThreadedRows, chunks_of

_TENANT: ContextVar[str] = ContextVar("_TENANT", default="nobody")


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
    _TENANT.set("somebody")

    def rows() -> Iterator[object]:
        try:
            threads.append(threading.current_thread().name)
            while True:
                yield _TENANT.get()
        finally:
            threads.append(threading.current_thread().name)
            closed.set()

    chunks = chunks_of(rows())
    assert set(await anext(chunks)) == {"somebody"}
    await chunks.aclose()
    assert await asyncio.to_thread(closed.wait, 20)
    assert set(threads) == {"gather-async-rows"}


async def test_cancelling_a_read_leaves_the_thread_to_end_by_itself() -> None:
    """A reader that is cancelled gets no answer later, and the thread ends."""
    go = threading.Event()

    def rows() -> Iterator[object]:
        assert go.wait(timeout=20)
        yield 1

    reader = ThreadedRows(rows(), 10)
    read = asyncio.ensure_future(reader.read())
    await asyncio.sleep(0)
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    reader.close()
    go.set()
    await asyncio.to_thread(reader.join, 20.0)
    assert not reader.is_alive


def test_a_thread_whose_loop_is_gone_ends() -> None:
    """An answer that nobody can take is dropped, not raised in the thread."""
    go = threading.Event()

    def rows() -> Iterator[object]:
        assert go.wait(timeout=20)
        yield 1

    reader = ThreadedRows(rows(), 10)

    async def leave() -> None:
        read = asyncio.ensure_future(reader.read())
        await asyncio.sleep(0)
        read.cancel()

    asyncio.run(leave())
    go.set()
    reader.join(20.0)
    assert not reader.is_alive
