"""Sleeps of FakeGather that end at once when it closes."""

import asyncio

from gather_async.clock import Clock

__all__ = ["Closing", "Pauses"]


class Closing(Exception):  # noqa: N818 - a signal, not an error
    """The server closes; whoever slept gives up."""


class Pauses:
    """All sleeps in progress."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: set[asyncio.Future[None]] = set()
        self._closed = False

    async def sleep(self, seconds: float) -> None:
        """Sleep on the clock.

        Raises:
            Closing: `close` was called before the time was over.
        """
        if self._closed:
            raise Closing
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(
            seconds, lambda: None if done.done() else done.set_result(None)
        )
        self._open.add(done)
        try:
            await done
        finally:
            self._open.discard(done)
            timer.cancel()

    def open(self) -> None:
        """Allow sleeping again."""
        self._closed = False

    def close(self) -> None:
        """End all sleeps."""
        self._closed = True
        for done in tuple(self._open):
            if not done.done():
                done.set_exception(Closing())
