"""Rows from any iterable, in chunks, no faster than they are used."""

import asyncio
import contextvars
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, suppress
from itertools import islice
from queue import SimpleQueue
from typing import Any, Protocol, runtime_checkable

from gather_async.bulk.candidate_file import CandidateFile
from gather_async.errors import ConfigurationError
from gather_async.models.candidate import NewCandidate

__all__ = ["CandidateSource", "ThreadedRows", "chunks_of", "count_of", "require_rows"]

# A slow source hands over what it has, rather than make its first row wait for
# the last of a full chunk.
_PATIENCE = 0.05
_BLOCK = 16

Order = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class ThreadedRows:
    """Reads an iterable on one thread, a chunk for each call, never ahead of the calls.

    The thread is a daemon: a source that blocks for good can't keep the program
    from ending. The iterable is created, advanced and closed on that thread, with
    the caller's context variables.
    """

    def __init__(self, rows: Iterable[object], size: int) -> None:
        self._rows = rows
        self._size = size
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._iterator: Iterator[object] | None = None
        self._failure: Exception | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._serve,), name="gather-async-rows", daemon=True
        )
        self._thread.start()

    async def read(self) -> list[object]:
        """Return the next rows, at least one; an empty list at the end.

        Cancelling leaves the thread to finish its step; close it then.

        Raises:
            Exception: Whatever the iterable raised.
        """
        rows: list[object] = await self.call(self._read)
        return rows

    async def call(self, work: Callable[[], Any]) -> Any:
        """Return what ``work`` returns on the thread, after the reads before it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._orders.put((loop, answer, work))
        return await answer

    def close(self) -> None:
        """End the thread once its step is over; the iterable's own ``close`` runs there."""
        self._orders.put(None)

    def join(self, timeout: float) -> None:
        """Wait, blocking, for the thread to end; ``timeout`` in seconds."""
        self._thread.join(timeout)

    @property
    def is_alive(self) -> bool:
        """Whether the thread hasn't ended yet."""
        return self._thread.is_alive()

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            loop, answer, work = order
            value, error = None, None
            try:
                value = work()
            except BaseException as raised:
                error = raised  # it belongs to the reader
            try:
                loop.call_soon_threadsafe(_settle, answer, value, error)
            except RuntimeError:
                break  # the loop is closed, and nobody waits
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    def _read(self) -> list[object]:
        if self._failure is not None:
            raise self._failure
        if self._iterator is None:
            self._iterator = iter(self._rows)
        chunk: list[object] = []
        try:
            self._fill(chunk, self._iterator)
        except Exception as error:
            if not chunk:
                raise
            self._failure = error  # the rows before it are good
        return chunk

    def _fill(self, chunk: list[object], iterator: Iterator[object]) -> None:
        until = time.monotonic() + _PATIENCE
        while len(chunk) < self._size:
            step = 1 if not chunk else min(_BLOCK, self._size - len(chunk))
            before = len(chunk)
            chunk.extend(islice(iterator, step))
            if len(chunk) - before < step or time.monotonic() > until:
                break


def _settle(answer: "asyncio.Future[Any]", value: Any, error: BaseException | None) -> None:
    if answer.done():
        return  # the reader was cancelled
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)


CandidateSource = (
    Iterable[NewCandidate | Mapping[str, Any] | object]
    | AsyncIterable[NewCandidate | Mapping[str, Any] | object]
)
CHUNK = 256
_IN_MEMORY = (list, tuple, set, frozenset)


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...


def require_rows(candidates: object) -> None:
    """Refuse what can be iterated, but can't be meant.

    Raises:
        ConfigurationError: It is no iterable of rows.
    """
    if isinstance(candidates, str | bytes | Mapping | NewCandidate) or not isinstance(
        candidates, Iterable | AsyncIterable
    ):
        raise ConfigurationError(
            "candidates must be an iterable or async iterable of NewCandidate or mappings;"
            " for a file, pass read_candidates(path)."
        )


async def count_of(candidates: CandidateSource) -> int | None:
    """Return how many rows there will be; None if only reading them to the end could tell.

    A file is read through once for it, on a thread.
    """
    if isinstance(candidates, _IN_MEMORY):
        return len(candidates)
    if isinstance(candidates, CandidateFile):
        counter = ThreadedRows((), 1)
        try:
            return int(await counter.call(candidates.count))
        finally:
            counter.close()
    return None


async def chunks_of(candidates: CandidateSource) -> AsyncGenerator[list[object], None]:
    """Yield the rows in lists of 1 to `CHUNK`, reading on only when the next list is asked for.

    What is not in memory and not asynchronous may block, and is read on a thread.

    Raises:
        Exception: Whatever the source raised.
    """
    if isinstance(candidates, AsyncIterable):
        async with aclosing(_from_async(candidates)) as chunks:
            async for chunk in chunks:
                yield chunk
        return
    if isinstance(candidates, list | tuple):
        for start in range(0, len(candidates), CHUNK):
            yield list(candidates[start : start + CHUNK])
        return
    rows = ThreadedRows(candidates, CHUNK)
    try:
        while chunk := await rows.read():
            yield chunk
    finally:
        rows.close()


async def _from_async(candidates: AsyncIterable[object]) -> AsyncGenerator[list[object], None]:
    """Yield what is there at once as one chunk; a slow source's rows come one by one."""
    iterator = aiter(candidates)
    coming: asyncio.Task[object] | None = None
    is_over = False
    try:
        while not is_over:
            chunk: list[object] = []
            while len(chunk) < CHUNK:
                coming = coming or asyncio.create_task(_next(iterator))
                await (asyncio.sleep(0) if chunk else asyncio.wait({coming}))
                if not coming.done():
                    break
                row, coming = coming.result(), None
                if row is _END:
                    is_over = True
                    break
                chunk.append(row)
            if chunk:
                yield chunk
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await coming
        if isinstance(iterator, _Closable):
            await iterator.aclose()


_END = object()


async def _next(iterator: AsyncIterator[object]) -> object:
    # A task can't end with StopAsyncIteration.
    return await anext(iterator, _END)
