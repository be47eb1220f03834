"""Rows from any iterable, in chunks, no faster than they are used."""

import asyncio
import contextvars
import logging
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
from concurrent.futures import Executor, Future
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary, finalize

from attrs import define

from gather_async.bulk.candidate_file import CandidateFile
from gather_async.errors import ConfigurationError
from gather_async.models.candidate import NewCandidate
from gather_async.observability import log_fields

__all__ = ["CandidateSource", "chunks_of", "count_of", "require_rows"]

_T = TypeVar("_T")
_LOG = logging.getLogger("gather_async.bulk")
_THREAD = "gather-async-rows"


class _Chunk(list[object]):
    """Rows, whose ``repr`` is their number: error reporters print the locals of frames."""

    def __repr__(self) -> str:
        return f"<{len(self)} rows>"


# Seconds. A slow source hands over what it has, rather than make its first row wait for
# the last of a full chunk.
_PATIENCE = 0.05
_BLOCK = 16


@define(eq=False)
class _BlockingRows:
    """An iterable that may block; all of it runs on one thread."""

    _rows: Iterable[object]
    _iterator: Iterator[object] | None = None
    _failure: Exception | None = None

    def read(self) -> list[object]:
        """Return the next rows, at least one; an empty list at the end.

        Raises:
            Exception: Whatever the iterable raised, after the rows before it.
        """
        if self._failure is not None:
            raise self._failure
        if self._iterator is None:
            self._iterator = iter(self._rows)
        chunk: list[object] = _Chunk()
        try:
            self._fill(chunk, self._iterator)
        except Exception as error:
            if not chunk:
                raise
            self._failure = error
        return chunk

    def close(self) -> None:
        """Close the iterator, such as a generator or a database cursor."""
        close = getattr(self._iterator, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception as error:  # its rows were read or refused, so this changes nothing
            extra = log_fields(error=error)
            _LOG.debug("closing the source raised %s", type(error).__name__, extra=extra)

    def _fill(self, chunk: list[object], iterator: Iterator[object]) -> None:
        until = time.monotonic() + _PATIENCE
        while len(chunk) < CHUNK:
            step = 1 if not chunk else min(_BLOCK, CHUNK - len(chunk))
            before = len(chunk)
            chunk.extend(islice(iterator, step))
            if len(chunk) - before < step or time.monotonic() > until:
                break


async def _from_blocking(rows: Iterable[object]) -> AsyncGenerator[list[object], None]:
    """Yield chunks of an iterable that is made, advanced and closed on one thread.

    If it is closed while the iterable blocks, the thread ends once the iterable goes on.
    """
    source, context = _BlockingRows(rows), contextvars.copy_context()
    loop = asyncio.get_running_loop()
    is_idle = True
    with _reading_thread(rows) as executor:
        try:
            while True:
                is_idle = False
                chunk = await loop.run_in_executor(executor, context.run, source.read)
                is_idle = True
                if not chunk:
                    return
                yield chunk
        except Exception:
            is_idle = True
            raise
        finally:
            closing = executor.submit(context.run, source.close)
            if is_idle:
                await asyncio.wait({asyncio.wrap_future(closing)})


@contextmanager
def _reading_thread(rows: object) -> Iterator["_OneThread"]:
    """Yield a thread to read on: files share one, what may block for good has its own."""
    if not _is_regular_file(rows):
        with _OneThread() as own:
            yield own
        return
    loop = asyncio.get_running_loop()
    shared = _SHARED.get(loop) or _SHARED.setdefault(loop, _OneThread())
    shared.users += 1
    try:
        yield shared
    finally:
        shared.users -= 1
        if not shared.users:
            del _SHARED[loop]
            shared.shutdown()


def _is_regular_file(rows: object) -> bool:
    try:
        return isinstance(rows, CandidateFile) and rows.is_regular()
    except OSError:  # reading it says so, too
        return False


class _OneThread(Executor):
    """An executor of one thread, which ends with it.

    The thread is a daemon, unlike those of the standard library: a source that
    blocks for good can't keep the program from ending.
    """

    def __init__(self) -> None:
        work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.users = 0
        self._put = work.put
        self._end = finalize(self, work.put, None)
        Thread(target=_serve, args=(work.get,), name=_THREAD, daemon=True).start()

    def submit(self, call: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        future: Future[_T] = Future()
        self._put(partial(_resolve, future, partial(call, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        self._end()

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def _serve(take: Callable[[], Callable[[], None] | None]) -> None:
    while (work := take()) is not None:
        work()


def _resolve(future: Future[_T], call: Callable[[], _T]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)


_SHARED: "WeakKeyDictionary[asyncio.AbstractEventLoop, _OneThread]" = WeakKeyDictionary()

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
    """Return how many rows there will be; None if they must be read to the end for it.

    A file is read through once for it, on a thread; a pipe is not.
    """
    if isinstance(candidates, _IN_MEMORY):
        return len(candidates)
    if isinstance(candidates, CandidateFile):
        with _reading_thread(candidates) as executor:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(executor, candidates.count)
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
    async with aclosing(_from_blocking(candidates)) as chunks:
        async for chunk in chunks:
            yield chunk


async def _from_async(candidates: AsyncIterable[object]) -> AsyncGenerator[list[object], None]:
    """Yield what is there at once as one chunk; a slow source's rows come one by one."""
    iterator = aiter(candidates)
    coming: asyncio.Task[object] | None = None
    is_over = False
    try:
        while not is_over:
            chunk: list[object] = _Chunk()
            while len(chunk) < CHUNK:
                coming = coming or asyncio.create_task(_next(iterator))
                await (asyncio.sleep(0) if chunk else asyncio.wait({coming}))
                if not coming.done():
                    break
                if chunk and (coming.cancelled() or coming.exception() is not None):
                    break  # the rows before it first
                if coming.cancelled():
                    # Raised as it is, it would end the job as if this were the source's end.
                    raise RuntimeError("The source of candidates was cancelled from within.")
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
