"""Who waits for what, of one kind."""

import asyncio
import copy
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from attrs import define, field, frozen

from gather_async.clock import Timer
from gather_async.errors import GatherError
from gather_async.protocol.polling import PollPolicy, next_interval

__all__ = ["Awaited", "PollContext", "Sought", "Waiter", "WaiterRegistry"]


@define(eq=False)
class Sought:
    """One awaited id, and where in the list it is."""

    id: str
    since: float
    """When it was last found missing from where it should be, or first awaited."""
    page: int | None = None
    """The page it was on when last seen; None if unknown."""
    near: int | None = None
    """The page it was on before it got lost."""


T = TypeVar("T")
_SHORTEST_LEAD = 0.5  # seconds for the last look before the deadline
_NEWS_LAST = 60.0  # seconds in which an event makes looks frequent again


@frozen(kw_only=True)
class PollContext:
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

    def next_look(self, timing: PollContext, *, told_at: float) -> float:
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

    def reschedule(self, timing: PollContext) -> None:
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


class WaiterRegistry(Generic[T]):
    """The awaited objects, each with its waiters. Falsy while nobody waits."""

    def __init__(self) -> None:
        self._awaited: dict[str, Awaited[T]] = {}
        self._policies: Counter[PollPolicy] = Counter()

    def __len__(self) -> int:
        return len(self._awaited)

    def __iter__(self) -> Iterator[Awaited[T]]:
        return iter(self._awaited.values())

    def get(self, id: str) -> Awaited[T] | None:
        """Return what is awaited under an id; None if nobody waits for it."""
        return self._awaited.get(id)

    @property
    def policies(self) -> Iterable[PollPolicy]:
        """Those of all waiters; at least one."""
        return self._policies or (PollPolicy(),)

    @property
    def share(self) -> float:
        """The largest share of the quota that a waiter grants."""
        return max(each.quota_share for each in self.policies)

    @property
    def first(self) -> float:
        """The shortest first interval that a waiter asks for, in seconds."""
        return min(each.first for each in self.policies)

    def add(self, waiter: Waiter[T], now: float, *, told_at: float | None, seen: T | None) -> None:
        """Let somebody wait; the first look is due at once unless one was just made."""
        awaited = self._awaited.get(waiter.id)
        if awaited is None:
            awaited = Awaited(waiter.id, Sought(waiter.id, since=now), due=now)
            self._awaited[waiter.id] = awaited
        elif now - awaited.looked_at > waiter.policy.first:
            awaited.due = now
        else:
            awaited.due = min(awaited.due, awaited.looked_at + waiter.policy.first)
        awaited.waiters.add(waiter)
        if awaited.last is None:
            awaited.last = seen
        if told_at is not None and told_at > awaited.told_at:
            awaited.told_at, awaited.is_told, awaited.due = told_at, True, now
        self._policies[waiter.policy] += 1

    def drop(self, waiter: Waiter[T]) -> None:
        """Forget a waiter; harmless if it is forgotten."""
        awaited = self._awaited.get(waiter.id)
        if awaited is None or waiter not in awaited.waiters:
            return
        awaited.waiters.discard(waiter)
        self._policies -= Counter([waiter.policy])
        if not awaited.waiters:
            del self._awaited[waiter.id]

    def last_of(self, waiter: Waiter[T]) -> T | None:
        """Return what was last read of what somebody waits for."""
        awaited = self._awaited.get(waiter.id)
        return None if awaited is None else awaited.last

    def end(self, waiter: Waiter[T], outcome: T | BaseException) -> None:
        """End one wait."""
        self.drop(waiter)
        waiter.finish(outcome)

    def end_all(self, error: BaseException) -> None:
        """End every wait with an error of its own."""
        for awaited in list(self._awaited.values()):
            self.end_each(awaited, error)

    def end_each(self, awaited: Awaited[T], error: BaseException) -> None:
        """End every wait for one object with an error of its own."""
        for waiter in list(awaited.waiters):
            own = error
            if isinstance(error, GatherError):  # one traceback for each caller
                own = copy.copy(error)
                own.__cause__ = error
            self.end(waiter, own)

    def forget_all(self) -> None:
        """Forget everybody: their event loop is gone."""
        self._awaited.clear()
        self._policies.clear()

    def tell(self, ids: frozenset[str], now: float) -> None:
        """Take in an event. One that names nothing is about anything awaited."""
        for each in ids:
            awaited = self._awaited.get(each)
            if awaited is not None:
                awaited.told_at, awaited.is_told, awaited.due = now, True, now
        if not ids:
            for awaited in self._awaited.values():
                awaited.due = now
