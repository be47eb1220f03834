"""Calls that wait for a slot, first come, first served, within one priority."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

from gather_async.models.rate_limit import QueueStatus

__all__ = ["Line", "Lines"]

_T = TypeVar("_T")
_TOLERATED = 64  # left waiters a line may hold on to before it drops them


class Line(Generic[_T]):
    """A queue of futures whose waiters may leave at any time.

    Joining, serving and leaving cost O(1) amortised. Waiters that left are
    skipped when their turn comes, and dropped together as soon as they are more
    than those that stay, so that a hundred thousand of them hold no memory.

    Attributes:
        waiting: How many wait.
    """

    __slots__ = ("_again", "_first_time", "_left", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self._left = 0
        self._first_time: deque[asyncio.Future[_T]] = deque()
        self._again: deque[asyncio.Future[_T]] = deque()

    def join(self, waiter: asyncio.Future[_T], *, again: bool) -> None:
        """Wait at the end; ``again`` waits ahead of all that wait for the first time."""
        (self._again if again else self._first_time).append(waiter)
        self.waiting += 1

    def serve(self) -> asyncio.Future[_T] | None:
        """Take the first that still waits out of the line; None if all have left."""
        for queue in (self._again, self._first_time):
            while queue:
                waiter = queue.popleft()
                if not waiter.done():
                    self.waiting -= 1
                    return waiter
                self._left -= 1
        return None

    def leave(self) -> None:
        """Note that one waiter, whose future is done, left without being served."""
        self.waiting -= 1
        self._left += 1
        if self._left > max(self.waiting, _TOLERATED):
            self._first_time = deque(each for each in self._first_time if not each.done())
            self._again = deque(each for each in self._again if not each.done())
            self._left = 0

    def disband(self) -> list[asyncio.Future[_T]]:
        """Empty the line and return those that still waited."""
        still = [each for each in (*self._again, *self._first_time) if not each.done()]
        self._again.clear()
        self._first_time.clear()
        self.waiting = self._left = 0
        return still


class Lines(Generic[_T]):
    """The lines of both priorities."""

    __slots__ = ("bulk", "interactive")

    def __init__(self) -> None:
        self.interactive: Line[_T] = Line()
        self.bulk: Line[_T] = Line()

    def anyone(self) -> bool:
        """Tell whether anyone waits."""
        return self.interactive.waiting > 0 or self.bulk.waiting > 0

    def status(self) -> QueueStatus:
        """Return how many wait."""
        return QueueStatus(interactive=self.interactive.waiting, bulk=self.bulk.waiting)

    def disband(self) -> list[asyncio.Future[_T]]:
        """Empty both and return those that still waited."""
        return [*self.interactive.disband(), *self.bulk.disband()]
