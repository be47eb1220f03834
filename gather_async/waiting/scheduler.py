"""The next poll of one condition, and what came of the last ones.

Given the time; it sends nothing and waits for nothing.
"""

import copy
import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

from gather_async.errors import GatherError, NotFoundError, RateLimitedError, WaitTimeoutError
from gather_async.models.question import AudioState
from gather_async.pager import Page
from gather_async.protocol.polling import next_interval
from gather_async.waiting.conditions import Condition
from gather_async.waiting.list_index import ListIndex, Poll
from gather_async.waiting.pacing import BRIEF, PATIENCE, LeakyBucket, PollBudget, is_permanent
from gather_async.waiting.registry import CHUNK, Target, Waiter, WaiterRegistry

__all__ = ["MOST_IN_FLIGHT", "Scheduler"]

T = TypeVar("T")
MOST_IN_FLIGHT = 4  # polls at once: one that hangs holds up no other
_SPREAD = 240.0  # pages of a first sweep in the time between two: tuned with small pages
_FIRST_POLLS = 5  # at once, each of all that is new
_URGENT_SHARE = 0.5  # of a brief window: what events by the hundred, or deadlines, may use


class Scheduler(Generic[T]):
    """Chooses polls, and hands what they bring to the waiters.

    Args:
        condition: What is awaited.
        registry: The waiters.
        budget: What polls may use.
        rng: Where the jitter comes from.
        is_slow: Returns whether events announce what is awaited.

    Attributes:
        last_failure: The last poll's error; None since one succeeded.
    """

    def __init__(
        self,
        condition: Condition[T],
        registry: WaiterRegistry[T],
        budget: PollBudget,
        rng: random.Random,
        is_slow: Callable[[], bool],
    ) -> None:
        self.last_failure: GatherError | None = None
        self._condition, self._registry = condition, registry
        self._budget, self._rng, self._is_slow = budget, rng, is_slow
        self._index = ListIndex(condition, registry)
        self._first_polls, self._urgent_polls = LeakyBucket(), LeakyBucket()
        self._in_flight: set[Poll] = set()
        self._searched_at = self._read_at = -math.inf
        self._latency = self._lead = self._pause_until = self._failing_since = 0.0

    def add(self, waiter: Waiter[T], now: float) -> None:
        """Add a waiter."""
        self._index.add(self._registry.add(waiter, now), now)

    def remove(self, waiter: Waiter[T]) -> None:
        """Forget a waiter; harmless if it is forgotten."""
        target = self._registry.remove(waiter)
        if target is not None:
            self._index.remove(target)

    def finish(self, waiter: Waiter[T], outcome: T | BaseException) -> None:
        """End one wait; harmless if it is over."""
        self.remove(waiter)
        waiter.end(outcome)

    def finish_each(self, waiters: Iterable[Waiter[T]], error: BaseException, now: float) -> None:
        """End waits with an error of their own."""
        for waiter in list(waiters):
            own = error
            if isinstance(error, GatherError):  # one traceback for each caller
                own = copy.copy(error)
                own.__cause__ = error
            if isinstance(own, WaitTimeoutError):
                own.waited = now - waiter.began
            self.finish(waiter, own)

    def finish_late(self, now: float) -> None:
        """End waits whose time is over, some at a time."""
        for waiter in self._registry.expired(now):
            target = self._registry.get(waiter.id)
            last = None if target is None else target.last
            error = self._condition.timed_out(waiter.id, last, now - waiter.began)
            error.__cause__ = self.last_failure  # why nothing was seen
            self.finish(waiter, error)

    def clear(self) -> None:
        """Forget all waits: their event loop is gone."""
        self._registry.clear()
        self._index.clear()
        self._in_flight.clear()

    def plan(self, now: float) -> Poll | float:
        """Return the next poll, begun, or the seconds until it is worth asking again."""
        if self._pause_until > now:
            return self._pause_until - now
        registry, share = self._registry, self._share
        # The final polls of many targets take a while, as far as the quota lets them.
        finals = min(len(registry), self._budget.rate(_URGENT_SHARE) * BRIEF)
        self._lead = self._latency * max(1.0, finals / MOST_IN_FLIGHT / 2)
        pace = self._budget.pace(self._index.sweep_cost(now), now, share)
        wait = registry.advance(now, pace=pace, latency=self._lead) - now
        wait = min(wait, self._admit(now))
        # A page of the list that was waited for too long gives way to single reads.
        pages = (each.began for each in self._in_flight if each.page is not None)
        until_late = min(pages, default=math.inf) + PATIENCE - now
        if until_late > 0:
            wait = min(wait, until_late)
        for poll in self._candidates(now, has_list=until_late > 0):
            delay = self._delay(poll, now, share)
            if delay <= 0:
                return self._begin(poll, now, share)
            wait = min(wait, delay)
        return wait

    @property
    def _share(self) -> float:
        """The largest share of the quota that a waiter grants."""
        return max(each.quota_share for each in self._registry.policies)

    def _admit(self, now: float) -> float:
        """Let new targets through, or return the seconds until then."""
        registry = self._registry
        if not registry.new:
            return math.inf
        rate = 1 / min(each.first for each in registry.policies)
        wait = self._first_polls.take(now, rate=rate, burst=_FIRST_POLLS)
        while registry.new and not wait:
            target = next(iter(registry.new.values()))
            target.is_admitted = True
            registry.enqueue(target)
        return wait or math.inf

    def _candidates(self, now: float, *, has_list: bool) -> Sequence[Poll]:
        """Return polls worth sending, the best first."""
        urgent = self._best_urgent(now)
        if self._index.probe_id is not None:  # nothing can be said of the list before
            return urgent
        located, lost = self._registry.located, self._registry.lost
        if has_list and self._index.is_usable(now):
            due = [*self._best_located(now), *self._best_lost(now)]
        else:
            due = [*self._first(located, now), *self._first(lost, now)]
        due.sort(key=lambda each: (not each[0].is_final, each[1].due))
        return [*urgent, *(poll for poll, _ in due), *self._best_own(now)]

    def _poll(self, target: Target[T], now: float, page: int | None = None) -> Poll:
        """Return a read of a target, or of the page that it may be on."""
        return Poll(
            began=now,
            id=target.id if page is None else None,
            page=page,
            is_search=page is not None and target.page is None,
            is_urgent=target.is_notified or target.needs_own_read,
            is_final=target.is_final(now, self._lead),
        )

    def _best_urgent(self, now: float) -> Sequence[Poll]:
        """Return a read of what an event named, or the page of several that one named."""
        urgent = list(islice(self._registry.urgent.values(), CHUNK))
        on = Counter(each.page for each in urgent if each.is_notified)
        for each in urgent:
            if each.needs_own_read or each.page is None or on[each.page] < 2:
                return [self._poll(each, now)]
        free = (self._poll(each, now, each.page) for each in urgent if self._is_free(each.page))
        return list(islice(free, 1))

    def _best_located(self, now: float) -> "Iterator[tuple[Poll, Target[T]]]":
        """Yield a page that holds two or more targets, or a read of one that is alone on its."""
        # What stands first is on few pages: to go on would find those in flight again.
        for target in islice(self._registry.located.values(), 2 * CHUNK):
            is_alone = target.page is None or self._index.count_on(target.page) < 2
            if is_alone or self._is_free(target.page):
                yield self._poll(target, now, None if is_alone else target.page), target
                return

    def _best_lost(self, now: float) -> "Iterator[tuple[Poll, Target[T]]]":
        """Yield the next page of a search while there is reason to hope, or a read."""
        for poll, target in self._first(self._registry.lost, now):
            if len(self._registry.lost) < 2:
                yield poll, target
            elif not any(each.is_search for each in self._in_flight):
                number = self._index.next_to_search()
                if number is None:
                    yield poll, target
                elif self._is_free(number):
                    yield self._poll(target, now, number), target

    def _first(
        self, queue: "OrderedDict[str, Target[T]]", now: float
    ) -> "Iterator[tuple[Poll, Target[T]]]":
        """Yield a read of what has waited longest."""
        return ((self._poll(target, now), target) for target in islice(queue.values(), 1))

    def _is_free(self, page: int | None) -> bool:
        """Return whether a page may be polled: not in flight, nor so many that hang."""
        pages = [each.page for each in self._in_flight if each.page is not None]
        return page not in pages and len(pages) < MOST_IN_FLIGHT - 1

    def _best_own(self, now: float) -> Sequence[Poll]:
        """Return a read of what the list was believed about for long, if there is quota."""
        free = (each for each in self._registry.own.values() if not each.is_in_flight)
        polls = [self._poll(each, now) for each in islice(free, 1)]
        has_spare = self._budget.has_spare(now, self._share)
        return [each for each in polls if each.is_final or has_spare]

    def _delay(self, poll: Poll, now: float, share: float) -> float:
        """Return the seconds until a poll may go.

        What an event asked for, and what is the last chance, may exceed the share.
        """
        delay = self._budget.wait(now, share, is_page=poll.page is not None)
        if delay > 0 and (poll.is_urgent or poll.is_final):
            rate = self._budget.rate(_URGENT_SHARE)
            # Many deadlines may come at once; events that do share pages.
            burst = max(1.0, BRIEF * (rate if poll.is_final else self._budget.rate(share)))
            delay = min(delay, self._urgent_polls.take(now, rate=rate, burst=burst))
        if not (poll.is_urgent or poll.is_final):
            delay = max(delay, self._spread_delay(poll, now, share))
        return delay

    def _spread_delay(self, poll: Poll, now: float, share: float) -> float:
        """Return the seconds until the next poll of a sweep that takes most of the share.

        In one go, it would come too early for most, and leave nothing for the next.
        """
        lost = islice(self._registry.lost.values(), CHUNK)
        if poll.is_search and any(each.polled_at == -math.inf for each in lost):
            cost = self._index.pages_for(len(self._registry))
            return self._searched_at + self._budget.pace(cost, now, share) / _SPREAD - now
        if poll.id is not None:
            cost = self._index.sweep_cost(now)
            return self._read_at + self._budget.pace(cost, now, share) / cost - now
        return 0.0

    def _begin(self, poll: Poll, now: float, share: float) -> Poll:
        self._in_flight.add(poll)
        if poll.is_search:
            self._searched_at = now
        elif poll.id is not None:
            self._read_at = now
        target = self._registry.get(poll.id)
        if target is not None:
            self._registry.dequeue(target)
            target.is_in_flight = True
        self._budget.spend(now, share, is_page=poll.page is not None)
        return poll

    def spend(self, now: float) -> None:
        """Count one request more."""
        self._budget.spend(now, self._share, is_page=False)

    def end(self, poll: Poll, now: float) -> None:
        """Take a poll from those in flight, whatever came of it."""
        if poll in self._in_flight:
            self._in_flight.discard(poll)
            self._latency = max(now - poll.began, 0.9 * self._latency)
            target = self._registry.get(poll.id)
            if target is not None and target.is_in_flight:
                target.is_in_flight = False
                self._registry.schedule(target, now, now)

    def record_read(self, poll: Poll, id: str, item: T | None, now: float) -> None:
        """Record a single read; None means that the object isn't there yet."""
        self.last_failure = None
        target = self._registry.get(id)
        if target is None:
            self._index.record_failed_read(id)
            return
        was_over = target.needs_own_read and self._index.probe_id != id
        self._index.record_read(poll, target, item, now)
        self._record_own(target, item, poll, now)
        if was_over and self._registry.get(id) is target:
            self._distrust(now)

    def _distrust(self, now: float) -> None:
        """Use no list for a while: what it called over is not over."""
        self._index.suspend(now, BRIEF)
        for target in [each for each in self._registry.urgent.values() if each.needs_own_read]:
            target.needs_own_read = False
            self._registry.enqueue(target)

    def _record_own(self, target: Target[T], item: T | None, poll: Poll, now: float) -> None:
        """Record what came of a single read; None if nothing did."""
        target.needs_own_read = target.is_in_flight = False
        self._registry.own.pop(target.id, None)
        target.read_at = now
        self._record(target, item, poll, now, self._rng.random())

    def record_page(self, poll: Poll, number: int, page: Page[Any], now: float) -> None:
        """Record a page of the list."""
        self.last_failure = None
        items: dict[str, T] = {item.id: item for item in page.items}
        self._index.record_page(poll, number, page, items)
        found = ((self._registry.get(each), item) for each, item in items.items())
        shown = [(target, item) for target, item in found if target is not None]
        draw = self._rng.random()  # one for all keeps a page together
        for target, item in self._index.telling(shown):
            self._record(target, item, poll, now, draw)
        self._index.check_suspect(poll, items, now)

    def _record(
        self, target: Target[T], item: T | None, poll: Poll, now: float, draw: float
    ) -> None:
        """Record what was seen of one object, then end waits or choose the next poll."""
        is_own = poll.page is None
        target.polled_at = now
        if target.is_notified and target.notified_at <= poll.began:
            target.is_notified = False
        if item is not None:
            if is_own or target.last is None or self._condition.is_listed_whole:
                target.last = item
            if not is_own:
                target.listed_at = poll.began
            for waiter in list(target.waiters):
                self._judge(target, waiter, item, now, is_own=is_own)
        if target.waiters:
            self._reschedule(target, now, draw, is_own=is_own)

    def _judge(
        self, target: Target[T], waiter: Waiter[T], item: T, now: float, *, is_own: bool
    ) -> None:
        condition = self._condition
        state = condition.judge(item, waiter.policy)
        if state is AudioState.PROCESSING:
            return
        if not is_own and not condition.is_whole(item, state):
            target.needs_own_read = True
        elif state is AudioState.READY:
            self.finish(waiter, item)
        else:
            self.finish(waiter, condition.failed(item, now - waiter.began))

    def _reschedule(self, target: Target[T], now: float, draw: float, *, is_own: bool) -> None:
        registry, latency = self._registry, self._lead
        registry.dequeue(target)
        target.due = math.inf
        if target.is_notified or target.needs_own_read:
            registry.schedule(target, now, now)
            return
        if not is_own and (target.own_read_at() <= now or target.is_final(now, latency)):
            registry.own[target.id] = target
        is_slow = self._is_slow()
        polls = (
            each.next_poll(
                now, draw=draw, latency=latency, is_slow=is_slow, notified_at=target.notified_at
            )
            for each in target.waiters
        )
        registry.schedule(target, min(polls, default=math.inf), now)

    def record_failure(self, poll: Poll, error: GatherError, now: float, wall: float) -> None:
        """Record a failure that isn't fatal: it ends the waits for one object, or is endured."""
        if poll.id is None:
            if self._index.record_failure(error, now):
                return
        else:
            self._index.record_failed_read(poll.id)
            target = self._registry.get(poll.id)
            if target is not None:
                is_over = is_permanent(error)
                if is_over:
                    self.finish_each(_not_spared(target, error, now), error, now)
                self._record_own(target, None, poll, now)
                if is_over:
                    return
        self._pause(error, now, wall)

    def _pause(self, error: GatherError, now: float, wall: float) -> None:
        """Poll nothing for a while, the longer the longer the failures last.

        A 429 is waited out as far as the server says until when, a brief window at most: a
        reset further away may be a mistake, and one poll is cheap.
        """
        if self.last_failure is None:
            self._failing_since = now
        self.last_failure, age, draw = error, now - self._failing_since, self._rng.random()
        pause = min(next_interval(each, age=age, draw=draw) for each in self._registry.policies)
        if isinstance(error, RateLimitedError) and error.reset_at is not None:
            pause = max(pause, min(error.reset_at.timestamp() - wall, BRIEF))
        self._pause_until = max(self._pause_until, now + pause)


def _not_spared(target: Target[T], error: GatherError, now: float) -> Sequence[Waiter[T]]:
    """Return the waiters that an error ends: not those that know of a recent creation."""
    endured = 2 * PATIENCE if isinstance(error, NotFoundError) else 0.0
    return [each for each in target.waiters if each.seen is None or now - each.began >= endured]
