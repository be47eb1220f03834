"""Whose turn is it: interactive calls first, without starving bulk ones.

Pure: instants are parameters.

Bulk may start when it leaves the reserve free and no interactive call waits.
Once it waited for `_PATIENCE` seconds behind interactive calls, it is owed one
start for each `_SHARE` of theirs, until none of them waits. What it is owed it takes as soon
as a window is loose enough; and if the windows never become so on their own,
interactive calls pause until they are. The reserve stays untouched either way.
"""

import asyncio
import math
from collections import deque
from typing import Generic, Literal, TypeVar

from gather_async.models.rate_limit import QueueStatus
from gather_async.protocol.rolling_windows import RollingWindows

__all__ = ["PriorityScheduler", "WaitQueue", "WaitQueues"]

_T = TypeVar("_T")
_TOLERATED = 64  # left waiters a line may hold on to before it drops them


class WaitQueue(Generic[_T]):
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


class WaitQueues(Generic[_T]):
    """The lines of both priorities."""

    __slots__ = ("bulk", "interactive")

    def __init__(self) -> None:
        self.interactive: WaitQueue[_T] = WaitQueue()
        self.bulk: WaitQueue[_T] = WaitQueue()

    def anyone(self) -> bool:
        """Tell whether anyone waits."""
        return self.interactive.waiting > 0 or self.bulk.waiting > 0

    def status(self) -> QueueStatus:
        """Return how many wait."""
        return QueueStatus(interactive=self.interactive.waiting, bulk=self.bulk.waiting)

    def disband(self) -> list[asyncio.Future[_T]]:
        """Empty both and return those that still waited."""
        return [*self.interactive.disband(), *self.bulk.disband()]


_PATIENCE = 10.0  # seconds
_SHARE = 5
_LONGEST_PAUSE = 60.0  # seconds that interactive calls may be paused for bulk


class PriorityScheduler:
    """Decides between the two priorities.

    Args:
        windows: What there is to share.
        even: Space bulk starts so that they spend the longest window's quota
            evenly, instead of as soon as there is room.
    """

    __slots__ = (
        "_hungry_since",
        "_interval",
        "_most_owed",
        "_next_bulk",
        "_no_bulk_since",
        "_owed",
        "_pause_until",
        "_windows",
    )

    def __init__(self, windows: RollingWindows, *, even: bool) -> None:
        self._windows = windows
        longest = max(windows.windows, key=lambda window: window.period)
        self._interval = longest.period / longest.bulk_limit if even else 0.0
        self._next_bulk = -math.inf
        self._hungry_since = math.inf  # since then bulk started only what it was owed
        self._no_bulk_since = math.inf
        self._owed = 0.0
        self._most_owed = windows.reserve + 1.0
        self._pause_until = -math.inf

    @property
    def interval(self) -> float:
        """Seconds between two bulk starts at the least."""
        return self._interval

    @property
    def next_bulk(self) -> float:
        """When the pace lets the next bulk call start; may be past."""
        return self._next_bulk

    def may_start(self, now: float, *, bulk: bool) -> bool:
        """Tell whether a call may start now, if nobody waits."""
        if bulk and now < self._next_bulk:
            return False
        return self._windows.is_free(now, bulk=bulk)

    def next(
        self, now: float, interactive: bool, bulk: bool
    ) -> Literal["interactive", "bulk"] | None:
        """Return who starts now, given who waits; None if nobody may."""
        if bulk:
            if self._hungry_since == math.inf or now - self._no_bulk_since > _PATIENCE:
                self._hungry_since = now
            self._no_bulk_since = math.inf
            if (not interactive or self._owed >= 1.0) and self.may_start(now, bulk=True):
                if not interactive:
                    self._hungry_since = math.inf
                return "bulk"
        if interactive and not self._is_paused(now, bulk) and self._windows.is_free(now):
            return "interactive"
        return None

    def next_at(self, now: float, interactive: bool, bulk: bool) -> float:
        """Return when to ask `next` again, if no answer comes before; ``inf`` if never."""
        at = math.inf
        if interactive:
            at = self._pause_until if self._is_paused(now, bulk) else self._windows.free_at(now)
        if bulk and (not interactive or self._owed >= 1.0):
            at = min(at, max(self._next_bulk, self._windows.free_at(now, bulk=True)))
        return at

    def started(self, now: float, *, bulk: bool, bulk_waits: bool) -> None:
        """Note a start."""
        if bulk:
            self._owed = max(0.0, self._owed - 1.0)
            if self._owed < 1.0:
                self._pause_until = -math.inf
            if not bulk_waits:
                self._no_bulk_since = now
            late = now - self._next_bulk
            on_time = 0.0 <= late < self._interval
            self._next_bulk = (self._next_bulk if on_time else now) + self._interval
        elif bulk_waits and now - self._hungry_since > _PATIENCE:
            self._owed = min(self._owed + 1.0 / _SHARE, self._most_owed)
            if self._owed >= self._most_owed and self._pause_until < now:
                self._pause(now)

    def _pause(self, now: float) -> None:
        """Hold interactive calls back, unless bulk could not start soon even so."""
        if now < self._next_bulk:
            return
        at = self._windows.free_at(now, bulk=True)
        if at == math.inf or at <= now + _LONGEST_PAUSE:
            self._pause_until = now + _LONGEST_PAUSE

    def _is_paused(self, now: float, bulk: bool) -> bool:
        """Tell whether interactive calls wait for bulk; a pause in vain forgives the debt."""
        if self._pause_until == -math.inf or not bulk:
            return False
        if now >= self._pause_until:
            self._owed, self._pause_until = 0.0, -math.inf
            return False
        return now >= self._next_bulk
