"""Two priorities: interactive calls first, without starving bulk ones.

Bulk may start when it leaves the reserve free and no interactive call waits.
Once it waited for `_PATIENCE` seconds behind interactive calls, it earns the credit of one
start for each `_SHARE` of theirs, until none of them waits. It spends the credit as soon
as a window is loose enough; and if the windows never become so on their own,
interactive calls pause until they are. The reserve stays untouched either way.

Calls that come by the thousand join the queues a few at a time, so that they hold no loop.

The scheduler is pure: instants are parameters.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, Protocol, TypeVar, get_args

from gather_async.models.rate_limit import QueueStatus
from gather_async.protocol.rolling_windows import RollingWindows
from gather_async.validators import Choice

__all__ = [
    "Lobby",
    "PRIORITY",
    "Priority",
    "PriorityScheduler",
    "Queued",
    "WaitQueue",
    "WaitQueues",
]

Priority = Literal["interactive", "bulk"]
PRIORITY = Choice(get_args(Priority))
"""Checks that there is such a priority."""


class Queued(Protocol):
    """A waiter, as far as its queue is concerned."""

    is_counted_out: bool
    """Whether its queue knows that it left; False at first."""

    @property
    def has_left(self) -> bool:
        """Whether it was cancelled or gave up."""
        ...


_W = TypeVar("_W", bound=Queued)
_TOLERATED = 64  # left waiters a queue may hold on to before it drops them


class WaitQueue(Generic[_W]):
    """A queue whose waiters may leave at any time.

    Pushing, popping and leaving cost O(1) amortised. Waiters that left are
    skipped when they come up, and dropped together as soon as they are more
    than those that stay, so that a hundred thousand of them hold no memory.

    Attributes:
        waiting: How many wait.
        arriving: How many are about to be pushed.
    """

    __slots__ = ("_first_time", "_left", "_refused", "arriving", "waiting")

    def __init__(self) -> None:
        self.waiting: int = 0
        self.arriving: int = 0
        self._left = 0
        self._first_time: deque[_W] = deque()
        self._refused: deque[_W] = deque()

    def push(self, waiter: _W, *, was_refused: bool) -> None:
        """Add a waiter at the end; one that the server refused goes ahead of first-timers."""
        (self._refused if was_refused else self._first_time).append(waiter)
        self.waiting += 1

    def pop(self) -> _W | None:
        """Remove and return the first that still waits; None if all have left."""
        for queue in (self._refused, self._first_time):
            while queue:
                waiter = queue.popleft()
                if not waiter.has_left:
                    self.waiting -= 1
                    return waiter
                self._count_out(waiter)
                self._left -= 1
        return None

    def discard(self, waiter: _W) -> bool:
        """Count out a waiter that left; return whether it was the last."""
        if waiter.is_counted_out:
            return False
        self._count_out(waiter)
        if self._left > max(self.waiting, _TOLERATED):
            self.remove(lambda each: each.has_left)
        return not self.waiting

    def remove(self, is_leaving: Callable[[_W], bool]) -> list[_W]:
        """Remove all waiters of a kind at once; return those that still waited."""
        leaving = [each for each in (*self._refused, *self._first_time) if is_leaving(each)]
        self._refused = deque(each for each in self._refused if not is_leaving(each))
        self._first_time = deque(each for each in self._first_time if not is_leaving(each))
        for waiter in leaving:
            self._count_out(waiter)
        self._left -= len(leaving)
        return [each for each in leaving if not each.has_left]

    def _count_out(self, waiter: _W) -> None:
        if not waiter.is_counted_out:
            waiter.is_counted_out = True
            self.waiting -= 1
            self._left += 1


class WaitQueues(Generic[_W]):
    """The queues of both priorities."""

    __slots__ = ("bulk", "interactive")

    def __init__(self) -> None:
        self.interactive: WaitQueue[_W] = WaitQueue()
        self.bulk: WaitQueue[_W] = WaitQueue()

    @property
    def is_empty(self) -> bool:
        """Whether no call waits, or is about to."""
        interactive, bulk = self.interactive, self.bulk
        return not (interactive.waiting or bulk.waiting or interactive.arriving or bulk.arriving)

    def status(self, *, arriving: bool = False) -> QueueStatus:
        """Return how many wait; with those that are about to, which go behind them."""
        interactive, bulk = self.interactive, self.bulk
        return QueueStatus(
            interactive=interactive.waiting + interactive.arriving * arriving,
            bulk=bulk.waiting + bulk.arriving * arriving,
        )


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


# Seconds that bulk waits behind interactive calls before it earns credit. Long enough that a
# page load's burst is never slowed by a job; short against the minute of the documented window.
_PATIENCE = 10.0
_SHARE = 5  # interactive starts for each bulk start: a job keeps a sixth of the quota
_LONGEST_PAUSE = 60.0  # seconds that interactive calls may be paused for bulk: one window


class PriorityScheduler:
    """Choice between the two priorities.

    Args:
        windows: What there is to share.
        even: Space bulk starts so that they spend the longest window's quota
            evenly, instead of as soon as there is room.

    Attributes:
        next_bulk: When the pace lets the next bulk call start; may be past.
    """

    __slots__ = (
        "_credit",
        "_interval",
        "_most_credit",
        "_no_bulk_since",
        "_pause_until",
        "_starved_since",
        "_windows",
        "next_bulk",
    )

    def __init__(self, windows: RollingWindows, *, even: bool) -> None:
        self._windows = windows
        longest = max(windows.windows, key=lambda window: window.period)
        self._interval = longest.period / longest.bulk_limit if even else 0.0
        self.next_bulk: float = -math.inf
        self._starved_since = math.inf  # since then bulk started only on credit
        self._no_bulk_since = math.inf
        self._credit = 0.0
        self._most_credit = windows.reserve + 1.0
        self._pause_until = -math.inf

    @property
    def interval(self) -> float:
        """Seconds between two bulk starts at the least."""
        return self._interval

    def may_start(self, now: float, *, bulk: bool) -> bool:
        """Return whether a call may start now, if no call waits."""
        if bulk and now < self.next_bulk:
            return False
        return self._windows.is_free(now, bulk=bulk)

    def next(self, now: float, interactive: bool, bulk: bool) -> Priority | None:
        """Return the priority that starts now, given which ones wait; None if neither may."""
        if bulk:
            if self._starved_since == math.inf or now - self._no_bulk_since > _PATIENCE:
                self._starved_since = now
            self._no_bulk_since = math.inf
            if (not interactive or self._credit >= 1.0) and self.may_start(now, bulk=True):
                if not interactive:
                    self._starved_since = math.inf
                return "bulk"
        if interactive and not self._is_paused(now, bulk) and self._windows.is_free(now):
            return "interactive"
        return None

    def next_at(self, now: float, interactive: bool, bulk: bool) -> float:
        """Return when to ask `next` again, if no answer comes before; ``inf`` if never."""
        at = math.inf
        if interactive:
            at = self._pause_until if self._is_paused(now, bulk) else self._windows.free_at(now)
        if bulk and (not interactive or self._credit >= 1.0):
            at = min(at, max(self.next_bulk, self._windows.free_at(now, bulk=True)))
        return at

    def started(self, now: float, *, bulk: bool, bulk_waits: bool) -> None:
        """Record a start."""
        if bulk:
            self._credit = max(0.0, self._credit - 1.0)
            if self._credit < 1.0:
                self._pause_until = -math.inf
            if not bulk_waits:
                self._no_bulk_since = now
            late = now - self.next_bulk
            on_time = 0.0 <= late < self._interval
            self.next_bulk = (self.next_bulk if on_time else now) + self._interval
        elif bulk_waits and now - self._starved_since > _PATIENCE:
            self._credit = min(self._credit + 1.0 / _SHARE, self._most_credit)
            if self._credit >= self._most_credit and self._pause_until < now:
                self._pause(now)

    def _pause(self, now: float) -> None:
        """Hold interactive calls back, unless bulk could not start soon even so."""
        if now < self.next_bulk:
            return
        at = self._windows.free_at(now, bulk=True)
        if at == math.inf or at <= now + _LONGEST_PAUSE:
            self._pause_until = now + _LONGEST_PAUSE

    def _is_paused(self, now: float, bulk: bool) -> bool:
        """Return whether interactive calls wait for bulk; a pause in vain voids the credit."""
        if self._pause_until == -math.inf or not bulk:
            return False
        if now >= self._pause_until:
            self._credit, self._pause_until = 0.0, -math.inf
            return False
        return now >= self.next_bulk
