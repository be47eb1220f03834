"""Who waits for what, and when each should be looked at."""

import asyncio
import math
from typing import Generic, TypeVar

from attrs import define, field, frozen

from gather_async.clock import Timer
from gather_async.protocol.polling import PollPolicy, next_interval
from gather_async.waiting.list_index import Sought

__all__ = ["Awaited", "Timing", "Waiter"]

T = TypeVar("T")
_SHORTEST_LEAD = 0.5  # seconds for the last look before the deadline
_NEWS_LAST = 60.0  # seconds in which an event makes looks frequent again


@frozen(kw_only=True)
class Timing:
    """What the next look depends on, besides who waits."""

    now: float
    draw: float
    """A random number from 0 to 1."""
    latency: float
    """Seconds that a look takes of late."""
    is_slow: bool
    """Whether events announce the end."""


@define(eq=False)
class Waiter(Generic[T]):
    """One waiting call."""

    id: str
    policy: PollPolicy
    began: float
    timeout: float
    future: "asyncio.Future[T]"
    timer: Timer | None = None
    """What ends the wait at its deadline, whatever polls are doing."""

    def finish(self, outcome: "T | BaseException") -> None:
        """End the wait; harmless if it is over."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)

    def last_look(self, latency: float) -> float:
        """Return when to start the last look, so that its answer comes before the deadline."""
        lead = min(self.timeout / 4, max(_SHORTEST_LEAD, 2 * latency))
        return self.began + self.timeout - lead

    def next_look(self, timing: Timing, *, told_at: float) -> float:
        """Return when to look again; ``inf`` if there is no time for another look."""
        now, last = timing.now, self.last_look(timing.latency)
        if now >= last:
            return math.inf
        age, is_slow = now - self.began, timing.is_slow
        if now - told_at <= _NEWS_LAST:
            age, is_slow = min(age, now - told_at), False
        interval = next_interval(self.policy, age=age, draw=timing.draw, is_slow=is_slow)
        at = now + interval
        lead = self.began + self.timeout - last
        return last if at > last - lead else at


@define(eq=False)
class Awaited(Generic[T]):
    """One awaited object, and all who wait for it."""

    id: str
    place: Sought
    due: float
    """When to look at it; ``inf`` while nothing more is to be seen in time."""
    waiters: set[Waiter[T]] = field(factory=set)
    last: T | None = None
    """As last read."""
    looked_at: float = -math.inf
    """When the last look ended."""
    told_at: float = -math.inf
    """When an event named it."""
    is_told: bool = False
    """Whether it should be read because of that event."""
    is_admitted: bool = False
    """Whether the gate for first looks let it through."""
    needs_own_read: bool = False
    """Whether the list says that it is over, but shows too little of it."""

    @property
    def is_new(self) -> bool:
        """Whether it was never looked at."""
        return self.looked_at == -math.inf

    def reschedule(self, timing: Timing) -> None:
        """Choose the next look, which is that of the most eager waiter."""
        looks = (each.next_look(timing, told_at=self.told_at) for each in self.waiters)
        self.due = min(looks, default=math.inf)

    def due_at(self, pace: float, now: float, latency: float) -> float:
        """Return when to look at it if looks must be that many seconds apart."""
        if self.is_told or self.needs_own_read or self.is_last_look(now, latency):
            return self.due
        lasts = (each.last_look(latency) for each in self.waiters)
        last = min((at for at in lasts if at > self.looked_at), default=math.inf)
        return max(self.due, min(self.looked_at + pace, last))

    def is_last_look(self, now: float, latency: float) -> bool:
        """Whether somebody's deadline is too close to put this off."""
        return any(now >= each.last_look(latency) for each in self.waiters)
