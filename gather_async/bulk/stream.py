"""Outcomes on their way to whoever iterates over the job; kept nowhere else."""

import asyncio
from collections import deque

from gather_async.bulk.outcome import InviteOutcome

__all__ = ["Stream"]

_ROOM = 64


class Stream:
    """Passes outcomes on to one reader, no more than a few ahead of it.

    Without a reader, what is put in is gone: the journal has it.
    """

    def __init__(self) -> None:
        self._waiting: deque[InviteOutcome] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._is_over = False
        self.is_read = False

    def attach(self) -> None:
        """Let outcomes be kept for a reader from now on."""
        self.is_read = True

    def detach(self) -> None:
        """Forget the reader, and let go whoever waits for it."""
        self.is_read = False
        self._waiting.clear()
        self._room.set()
        self._news.set()

    def close(self) -> None:
        """Let the reader end once it has taken what is there."""
        self._is_over = True
        self._news.set()

    async def put(self, outcome: InviteOutcome) -> None:
        """Pass an outcome on, when the reader has room. Cancelling drops it."""
        while self.is_read and len(self._waiting) >= _ROOM:
            self._room.clear()
            await self._room.wait()
        if self.is_read:
            self._waiting.append(outcome)
            self._news.set()

    async def take(self) -> InviteOutcome | None:
        """Return the next outcome, in the order in which rows end; None at the end.

        Cancelling loses nothing.
        """
        while not self._waiting:
            if self._is_over or not self.is_read:
                return None
            self._news.clear()
            await self._news.wait()
        self._room.set()
        return self._waiting.popleft()
