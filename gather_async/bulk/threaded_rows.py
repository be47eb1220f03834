"""A blocking iterable, read on a thread of its own so that the loop goes on meanwhile."""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from typing import Any

__all__ = ["ThreadedRows"]

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
