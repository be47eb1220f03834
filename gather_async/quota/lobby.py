"""Calls that join a limiter's queue a few at a time, so that thousands at once hold no loop."""

import asyncio
from collections import deque

__all__ = ["Lobby"]

# To join, forecast the wait and set timers takes some 13 us (benchmarks/growth.py): with a thousand
# other calls that only come in here, a turn of the loop takes a few milliseconds.
_AT_ONCE = 100


class Lobby:
    """Waiting room of the calls of one event loop, until it is their turn to join a queue.

    The first ones pass at once. From then on each turn of the loop lets some in, in the order in
    which they came, until there are none left.

    Args:
        loop: Whose calls they are.
    """

    __slots__ = ("_loop", "_passed", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._passed = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def pass_one(self) -> bool:
        """Return whether a call may join at once; else it awaits its `turn`."""
        if self._passed == _AT_ONCE or self._waiting:
            return False
        self._passed += 1
        return True

    def turn(self) -> "asyncio.Future[None]":
        """Return what ends once the call may join. Cancelling it leaves no trace."""
        # Only now, not at each turn: whatever passed before, one turn more is no wait.
        if not self._waiting:
            self._loop.call_soon(self._let_in)
        self._waiting.append(turn := self._loop.create_future())
        return turn

    def _let_in(self) -> None:
        self._passed = 0
        while self._waiting and self._passed < _AT_ONCE:
            turn = self._waiting.popleft()
            if not turn.done():  # else it was cancelled
                turn.set_result(None)
                self._passed += 1
        if self._waiting:
            self._loop.call_soon(self._let_in)
