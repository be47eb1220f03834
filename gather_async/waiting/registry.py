"""Waiting calls by target, and when each target is due.

Targets that are due stand in queues, the others in a heap of times, so that the next
poll is found without going through all of them.
"""

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from attrs import define, field

from gather_async.observability import log_fields
from gather_async.protocol.polling import PollPolicy, next_interval
from gather_async.waiting.pacing import BRIEF, HORIZON, PATIENCE

__all__ = ["CHUNK", "MOST_REMEMBERED", "Target", "Waiter", "WaiterRegistry"]

_LOG = logging.getLogger("gather_async.waiting")
T = TypeVar("T")
CHUNK = 200  # targets handled in one step of the event loop: some 2 ms
MOST_REMEMBERED = 50 * CHUNK  # ids: a megabyte; a burst of events for a whole account fits


@define(eq=False)
class Waiter(Generic[T]):
    """One waiting call."""

    id: str
    policy: PollPolicy
    began: float
    timeout: float
    on_end: "Callable[[Waiter[T]], object]"
    """Called once, when the wait is over."""
    seen: T | None = None
    """The object, if the caller has it, so that it must exist."""
    outcome: T | BaseException | None = None
    """None while it waits."""

    @property
    def deadline(self) -> float:
        """When the wait is over; ``inf`` if never."""
        return self.began + self.timeout

    def end(self, outcome: T | BaseException) -> None:
        """End the wait; harmless if it is over."""
        if self.outcome is None:
            self.outcome, name = outcome, type(outcome).__name__
            _LOG.debug("A wait ended with %s", name, extra=log_fields(outcome=name))
            self.on_end(self)

    def final_poll(self, latency: float) -> float:
        """Return when to start the final poll, so that its answer comes before the deadline."""
        return self.deadline - min(self.timeout / 4, max(PATIENCE / 10, 2 * latency))

    def next_poll(
        self, now: float, *, draw: float, latency: float, is_slow: bool, notified_at: float
    ) -> float:
        """Return when to poll again; ``inf`` if there is no time for another poll."""
        final = self.final_poll(latency)
        if now >= final:
            return math.inf
        age = now - self.began
        if now - notified_at <= BRIEF:  # what an event announced may take a moment to show
            age, is_slow = min(age, now - notified_at), False
        at = now + next_interval(self.policy, age=age, draw=draw, is_slow=is_slow)
        return final if at > 2 * final - self.deadline else at


@define(eq=False)
class Target(Generic[T]):
    """One awaited object: its waiters, its place in the list, and when to poll it."""

    id: str
    began: float
    read_at: float
    """When it was last read alone, or first awaited."""
    page: int | None = None
    """The page of the list that showed it last; None if it is lost."""
    near: int | None = None
    """The page it was on before it got lost, until it is found or read alone."""
    due: float = math.inf
    """When to poll it; ``inf`` while nothing more is to be seen in time."""
    waiters: set[Waiter[T]] = field(factory=set)
    last: T | None = None
    """As last read."""
    polled_at: float = -math.inf
    listed_at: float = -math.inf
    """When a page was asked for that showed it unfinished."""
    notified_at: float = -math.inf
    """When an event named it."""
    is_notified: bool = False
    """Whether it should be read because of that event."""
    is_admitted: bool = False
    """Whether the bucket of first polls let it through."""
    needs_own_read: bool = False
    """Whether the list says that it is over, but shows too little of it."""
    read_after: float = HORIZON
    """Seconds after which the list alone is no longer believed."""
    is_in_flight: bool = False
    """Whether it is being read alone."""
    queue: "OrderedDict[str, Target[T]] | None" = None
    """Where it stands while it is due."""

    def is_final(self, now: float, latency: float) -> bool:
        """Return whether a deadline is too close to put this off."""
        return any(now >= each.final_poll(latency) for each in self.waiters)

    def own_read_at(self) -> float:
        """Return when the list alone was believed for long enough: an hour at most."""
        grown = min(self.read_at - self.began, 60 * BRIEF)  # as links may expire
        return self.read_at + max(self.read_after, grown)


class WaiterRegistry(Generic[T]):
    """The targets, each with its waiters. Falsy while there is none.

    Attributes:
        new: Due for the first time, not admitted yet.
        urgent: Named by an event, or over by what the list says.
        located: Due, and on a known page; what is final comes first.
        lost: Due, and on no known page.
        own: To be read alone, as the list was believed for long.
    """

    def __init__(self) -> None:
        self._targets: dict[str, Target[T]] = {}
        self._policies: Counter[PollPolicy] = Counter()
        self._times: list[tuple[float, int, Target[T] | Waiter[T]]] = []
        self._paced: list[tuple[float, int, Target[T]]] = []
        self._deadlines: list[tuple[float, int, Waiter[T]]] = []
        self._order = count()
        self._events: OrderedDict[str, float] = OrderedDict()
        self.new: OrderedDict[str, Target[T]] = OrderedDict()
        self.urgent: OrderedDict[str, Target[T]] = OrderedDict()
        self.located: OrderedDict[str, Target[T]] = OrderedDict()
        self.lost: OrderedDict[str, Target[T]] = OrderedDict()
        self.own: OrderedDict[str, Target[T]] = OrderedDict()
        self._queues = (self.new, self.urgent, self.located, self.lost, self.own)

    def __len__(self) -> int:
        return len(self._targets)

    def __iter__(self) -> Iterator[Target[T]]:
        return iter(self._targets.values())

    def get(self, id: str | None) -> Target[T] | None:
        """Return the target with that id; None if nothing waits for it."""
        return None if id is None else self._targets.get(id)

    @property
    def policies(self) -> Iterable[PollPolicy]:
        """Those of all waiters; at least one."""
        return self._policies or (PollPolicy(),)

    def add(self, waiter: Waiter[T], now: float) -> Target[T]:
        """Add a waiter; the first poll is due at once unless one was just made."""
        target = self._targets.get(waiter.id)
        if target is None:
            target = self._targets[waiter.id] = Target(waiter.id, began=now, read_at=now)
        target.waiters.add(waiter)
        self._policies[waiter.policy] += 1
        if target.last is None:
            target.last = waiter.seen
        if waiter.timeout < math.inf:
            heappush(self._deadlines, (waiter.deadline, next(self._order), waiter))
            # Polls may get slower until then: the time is computed again when it has come.
            self._push(waiter.began + waiter.timeout * 0.75, waiter)
        target.read_after = min(target.read_after, waiter.timeout / 2)
        notified_at = self.notified_at(waiter.id, now)
        if notified_at > target.notified_at:
            self._notify(target, notified_at, now)
        else:
            self.schedule(target, max(now, target.polled_at + waiter.policy.first), now)
        return target

    def remove(self, waiter: Waiter[T]) -> Target[T] | None:
        """Forget a waiter; return its target if it was the last one of it."""
        target = self._targets.get(waiter.id)
        if target is None or waiter not in target.waiters:
            return None
        target.waiters.discard(waiter)
        self._policies[waiter.policy] -= 1
        if not self._policies[waiter.policy]:
            del self._policies[waiter.policy]
        if target.waiters:
            return None
        del self._targets[waiter.id]
        self.dequeue(target)
        self.own.pop(target.id, None)
        # Times of what has ended are forgotten once they are most of all: timeouts may be days.
        alive = self._policies.total()
        if len(self._deadlines) > 2 * alive + CHUNK:
            self._deadlines = [each for each in self._deadlines if each[2].outcome is None]
            heapify(self._deadlines)
        if len(self._times) > 4 * alive + CHUNK:
            self._times = [each for each in self._times if self._is_alive(each[2])]
            heapify(self._times)
        return target

    def _is_alive(self, each: Target[T] | Waiter[T]) -> bool:
        target = self._targets.get(each.id)
        return target is each or (target is not None and each in target.waiters)

    def clear(self) -> None:
        """Forget all waits: their event loop is gone."""
        for each in (self._targets, self._policies, self._times, self._paced, self._deadlines):
            each.clear()
        for queue in self._queues:
            queue.clear()

    def expired(self, now: float) -> "Iterator[Waiter[T]]":
        """Yield waiters whose deadline is over, some at a time."""
        for _ in range(CHUNK):
            if self.next_deadline > now:
                return
            waiter = heappop(self._deadlines)[2]
            if waiter.outcome is None:
                yield waiter

    @property
    def next_deadline(self) -> float:
        """When the next wait is over; ``inf`` if none will be."""
        return self._deadlines[0][0] if self._deadlines else math.inf

    def schedule(self, target: Target[T], at: float, now: float) -> None:
        """Poll a target at that time, or sooner if it is due sooner already."""
        if at < target.due:
            target.due = at
            if at > now:
                self._push(at, target)
        if at <= now:
            self.enqueue(target)

    def enqueue(self, target: Target[T], *, first: bool = False) -> None:
        """Put a target that is due where it belongs; harmless if it stands there."""
        if target.is_in_flight:
            return
        if target.is_notified or target.needs_own_read:
            queue = self.urgent
        elif target.polled_at == -math.inf and not target.is_admitted:
            queue = self.new
        else:
            queue = self.lost if target.page is None else self.located
        if target.queue is not queue:
            self.dequeue(target)
            target.queue = queue
            queue[target.id] = target
        if first:
            queue.move_to_end(target.id, last=False)

    def dequeue(self, target: Target[T]) -> None:
        """Take a target out of its queue; harmless if it stands in none."""
        if target.queue is not None:
            target.queue.pop(target.id, None)
            target.queue = None

    def advance(self, now: float, *, pace: float, latency: float) -> float:
        """Put targets whose time has come into their queues; return when to call again."""
        for _ in range(CHUNK):
            if not self._times or self._times[0][0] > now:
                break
            at, _, each = heappop(self._times)
            if not self._is_alive(each):
                continue
            if isinstance(each, Waiter):
                self._advance_final(each, now, latency)
            elif each.queue is None and at >= each.due:
                heappush(self._paced, (each.polled_at, next(self._order), each))
        for _ in range(CHUNK):
            if not self._paced or self._paced[0][0] + pace > now:
                break
            polled_at, _, target = heappop(self._paced)
            is_current = target.polled_at == polled_at and target.queue is None
            if is_current and self._is_alive(target):
                self.enqueue(target)
        paced_at = self._paced[0][0] + pace if self._paced else math.inf
        return min(paced_at, self._times[0][0] if self._times else math.inf)

    def _advance_final(self, waiter: Waiter[T], now: float, latency: float) -> None:
        target, at = self._targets[waiter.id], waiter.final_poll(latency)
        if at > now:
            self._push(at, waiter)
        elif target.polled_at < at:
            target.due = min(target.due, now)
            self.enqueue(target, first=True)

    def _push(self, at: float, each: Target[T] | Waiter[T]) -> None:
        if at < math.inf:
            heappush(self._times, (at, next(self._order), each))

    def notify(self, ids: frozenset[str], now: float) -> None:
        """Make due what an event names. One that names nothing is about every target."""
        for each in ids:
            self._events[each] = now
            self._events.move_to_end(each)
            while len(self._events) > MOST_REMEMBERED:
                self._events.popitem(last=False)
            target = self._targets.get(each)
            if target is not None:
                self._notify(target, now, now)
        if not ids:
            for target in self._targets.values():
                target.due = min(target.due, now)
            self._times = [each for each in self._times if isinstance(each[2], Waiter)]
            self._times += [(now, next(self._order), each) for each in self if each.queue is None]
            heapify(self._times)

    def notified_at(self, id: str, now: float) -> float:
        """Return when an event named the id, as a wait may begin minutes after; else ``-inf``."""
        at = self._events.get(id, -math.inf)
        return at if now - at <= 5 * BRIEF else -math.inf

    def _notify(self, target: Target[T], notified_at: float, now: float) -> None:
        target.notified_at, target.is_notified, target.due = notified_at, True, now
        self.enqueue(target)
