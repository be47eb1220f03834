"""Waits of a client's calls, which end when the client closes."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from attrs import define, field

from gather_async.errors import ClientClosedError

__all__ = ["CancelScope"]

T = TypeVar("T")


@define(eq=False)
class CancelScope:
    """Scope of the waits of a client's calls: closing it cancels them.

    A call may wait minutes for the quota or its next attempt. Its task is cancelled out
    of the wait, and the cancellation becomes an error, as in `asyncio.timeout`.
    """

    is_closed: bool = False
    """Whether `close` was called."""
    _waiting: set[asyncio.Task[Any]] = field(factory=set, init=False, repr=False)

    async def run(self, wait: Awaitable[T]) -> T:
        """Return what is waited for, unless the client closes first.

        Raises:
            ClientClosedError: The client is closed, or was closed meanwhile.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of asyncio runs in a task
        cancels = task.cancelling()
        self._waiting.add(task)
        try:
            return await wait
        except asyncio.CancelledError:
            # Only a cancellation of our own becomes an error; the caller's may have come too.
            if task in self._waiting or task.uncancel() > cancels:
                raise
            raise _closed() from None
        finally:
            self._waiting.discard(task)

    def raise_if_closed(self) -> None:
        """Raise once the client is closed, so that no wait begins.

        Raises:
            ClientClosedError: It is.
        """
        if self.is_closed:
            raise _closed()

    def close(self) -> None:
        """End what waits in the running loop; harmless to repeat."""
        self.is_closed = True
        loop = asyncio.get_running_loop()
        for task in [each for each in self._waiting if each.get_loop() is loop]:
            self._waiting.discard(task)
            task.cancel()


def _closed() -> ClientClosedError:
    return ClientClosedError("This client is closed: make a new GatherClient.")
