"""Rows from any iterable, in chunks, no faster than they are used."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, suppress
from typing import Any, Protocol, runtime_checkable

from gather_async.bulk.candidate_file import CandidateFile
from gather_async.bulk.threaded_rows import ThreadedRows
from gather_async.errors import ConfigurationError
from gather_async.models.candidate import NewCandidate

__all__ = ["Candidates", "chunks_of", "count_of", "require_rows"]

Candidates = (
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


async def count_of(candidates: Candidates) -> int | None:
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


async def chunks_of(candidates: Candidates) -> AsyncGenerator[list[object], None]:
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
