"""The next poll of one condition, and what came of the last ones.

Given the time; it sends nothing and waits for nothing. Targets that are due stand in queues,
the others in heaps of times, so that the next poll is found without going through all.
"""

import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count, islice
from typing import Any, Generic, TypeVar

from gather_async.errors import GatherError, NotFoundError, RateLimitedError
from gather_async.pager import Page
from gather_async.protocol.polling import BRIEF, LeakyBucket, PollBudget, PollPolicy, next_interval
from gather_async.waiting.conditions import MOST_REMEMBERED, Condition
from gather_async.waiting.targets import CHUNK, PATIENCE, ListIndex, Target, Waiter, is_lasting

__all__ = ["Scheduler"]

T = TypeVar("T")
_MOST_IN_FLIGHT = 4  # polls at once: one that hangs holds up no other; first polls are one more
_SPREAD = 240.0  # pages of a first sweep in the time between two: tuned with small pages
_URGENT_SHARE = 0.5  # of a brief window: what events by the hundred, or deadlines, may use


class Scheduler(Generic[T]):
    """Chooses polls, and hands what they bring to the waiters.

    A poll is named by the id that is read alone, or by the number of a page of the list.
    Intervals are slow while ``is_alive`` returns that events arrive.

    Attributes:
        targets: What is awaited, by id.
        policies: How many waiters have each.
    """

    def __init__(
        self,
        condition: Condition[T],
        budget: PollBudget,
        rng: random.Random,
        is_alive: Callable[[], bool],
    ) -> None:
        self.targets: dict[str, Target[T]] = {}
        self._last_failure: GatherError | None = None  # since a poll succeeded
        self._condition, self._budget = condition, budget
        self._rng, self._is_alive = rng, is_alive
        self._index = ListIndex(condition, self.targets)
        self.policies: Counter[PollPolicy] = Counter()
        self._events: OrderedDict[str, float] = OrderedDict()
        self._times: list[tuple[float, int, Target[T] | Waiter[T]]] = []
        # Due, but polled too lately for the present pace.
        self._paced: list[tuple[float, int, Target[T]]] = []
        self._order = count()
        # For the first time; asked for at once; due; to be read alone, as the list was believed.
        self._new: OrderedDict[str, Target[T]] = OrderedDict()
        self._urgent: OrderedDict[str, Target[T]] = OrderedDict()
        self._due: OrderedDict[str, Target[T]] = OrderedDict()
        self._own: OrderedDict[str, Target[T]] = OrderedDict()
        self._in_flight: dict[str | int, float] = {}
        self._searched: int | None = None
        self._searched_at = self._read_at = self._all_notified_at = -math.inf
        self._first_polls, self._urgent_polls = LeakyBucket(), LeakyBucket()
        self._share = self._latency = self._lead = self._pause_until = self._failing_since = 0.0

    def add(self, waiter: Waiter[T], now: float) -> None:
        """Add a waiter; the first poll is due at once unless one was just made."""
        target = self.targets.get(waiter.id)
        if target is None:
            target = self.targets[waiter.id] = Target(waiter.id, began=now, read_at=now, due=now)
            self._index.lose(1, now)
            self._new[target.id] = target
        target.add(waiter)
        self.policies[waiter.policy] += 1
        # Polls may get slower until then: the time is computed again when it has come.
        self._push(waiter.began + waiter.timeout * 0.75, waiter)
        # A wait may begin minutes after the event.
        notified_at = self._events.get(waiter.id, -math.inf)
        if notified_at > target.notified_at and now - notified_at <= 5 * BRIEF:
            self._notify(target, notified_at, now)
        elif target.polled_at > -math.inf:
            self._schedule(target, target.polled_at + waiter.policy.first, now)

    def remove(self, waiter: Waiter[T]) -> None:
        """Forget a waiter; harmless if it is forgotten."""
        target = self.targets.get(waiter.id)
        if target is None or waiter not in target.waiters:
            return
        target.waiters.discard(waiter)
        self.policies[waiter.policy] -= 1
        if not self.policies[waiter.policy]:
            del self.policies[waiter.policy]
        if not target.waiters:
            del self.targets[waiter.id]
            self._index.remove(target)
            self._dequeue(target)
        # Times of what has ended are forgotten once they are most of all: timeouts may be days.
        if len(self._times) > 4 * self.policies.total():
            self._times = [each for each in self._times if self._is_awaited(each[2])]
            heapify(self._times)

    def finish(self, waiter: Waiter[T], outcome: T | BaseException) -> None:
        """End one wait; harmless if it is over."""
        self.remove(waiter)
        waiter.end(outcome)

    def fail(self, waiters: Iterable[Waiter[T]], error: BaseException, now: float) -> None:
        """End waits with an error of their own."""
        for waiter in list(waiters):
            self.finish(waiter, waiter.own_error(error, now))

    def clear(self) -> None:
        """Forget all waits: their event loop is gone."""
        for waiter in [each for target in self.targets.values() for each in target.waiters]:
            self.remove(waiter)
        self._in_flight.clear()
        self._last_failure = None

    def notify(self, ids: frozenset[str], now: float) -> None:
        """Make due what an event names. One that names nothing is about every target."""
        for each in ids:
            self._events[each] = now
            self._events.move_to_end(each)
            while len(self._events) > MOST_REMEMBERED:
                self._events.popitem(last=False)
            if each in self.targets:
                self._notify(self.targets[each], now, now)
        if not ids:
            self._all_notified_at = now
            for target in self.targets.values():
                if target.due > now:
                    target.due = now
                    self._push(now, target)

    def _notify(self, target: Target[T], notified_at: float, now: float) -> None:
        target.notified_at, target.is_notified, target.due = notified_at, True, now
        self._enqueue(target)

    def _schedule(self, target: Target[T], at: float, now: float) -> None:
        """Poll a target at that time, or sooner if it is due sooner already."""
        if at <= now:
            target.due = at
            self._enqueue(target)
        elif at < target.due:
            target.due = at
            self._push(at, target)

    def _push(self, at: float, each: Target[T] | Waiter[T]) -> None:
        heappush(self._times, (at, next(self._order), each))

    def _is_awaited(self, each: Target[T] | Waiter[T]) -> bool:
        target = self.targets.get(each.id)
        return target is each or (target is not None and each in target.waiters)

    def _enqueue(self, target: Target[T], *, first: bool = False) -> None:
        """Put a target that is due where it belongs; harmless if it stands there."""
        if target.id in self._in_flight:
            return
        queue = self._urgent if target.is_urgent else self._due
        queue[target.id] = target
        if first:
            queue.move_to_end(target.id, last=False)

    def _dequeue(self, target: Target[T]) -> None:
        for queue in (self._new, self._urgent, self._due, self._own):
            queue.pop(target.id, None)

    def _advance(self, now: float) -> float:
        """Queue what is due, and end waits that are late; return when to do it again."""
        self._share = max(each.quota_share for each in self.policies)
        # The final polls of many targets take a while, as far as the quota lets them.
        finals = min(len(self.targets), self._budget.rate(_URGENT_SHARE) * BRIEF)
        self._lead = self._latency * max(1.0, finals / _MOST_IN_FLIGHT / 2)
        for _ in range(CHUNK):
            if not self._times or self._times[0][0] > now:
                break
            at, _, each = heappop(self._times)
            if isinstance(each, Waiter) and self._is_awaited(each):
                self._advance_waiter(each, now)
            elif isinstance(each, Target) and at >= each.due:
                heappush(self._paced, (each.polled_at, next(self._order), each))
        pace = self._budget.pace(self._index.sweep_cost(now), now, self._share)
        for _ in range(CHUNK):
            if not self._paced or self._paced[0][0] + pace > now:
                break
            polled_at, _, target = heappop(self._paced)
            if target.polled_at == polled_at and self._is_awaited(target):
                self._enqueue(target)
        paced_at = self._paced[0][0] + pace if self._paced else math.inf
        return min(paced_at, self._times[0][0] if self._times else math.inf)

    def _advance_waiter(self, waiter: Waiter[T], now: float) -> None:
        """Make the final poll of a wait due, or end it."""
        target, final = self.targets[waiter.id], waiter.final_poll(self._lead)
        if now >= waiter.deadline:
            error = self._condition.timed_out(waiter.id, target.last, now - waiter.began)
            error.__cause__ = self._last_failure  # why nothing was seen
            self.finish(waiter, error)
            return
        self._push(final if now < final else waiter.deadline, waiter)
        if target.polled_at < final <= now:
            target.due = min(target.due, now)
            self._enqueue(target, first=True)

    def plan(self, now: float) -> tuple[str | int | None, float]:
        """End late waits; return a poll, begun, or None and the seconds until the next."""
        wait = self._advance(now) - now
        if not self.targets:
            return None, 0.0
        if len(self._in_flight) >= _MOST_IN_FLIGHT:
            return None, wait
        if now < self._pause_until:
            return None, min(wait, self._pause_until - now)
        wait = min(wait, self._admit(now)) if self._new else wait
        # A page of the list that was waited for too long gives way to single reads.
        pages = [at for each, at in self._in_flight.items() if isinstance(each, int)]
        until_late = min(pages, default=math.inf) + PATIENCE - now
        has_list = until_late > 0 and self._index.is_usable(now)
        wait = min(wait, until_late) if until_late > 0 else wait
        for target, poll in self._candidates(now, has_list=has_list):
            delay = self._delay(target, poll, now)
            if delay <= 0:
                self._in_flight[poll] = now
                self.spend(now, is_page=isinstance(poll, int))
                if isinstance(poll, str):
                    self._read_at = now
                    self._dequeue(target)
                elif target.is_lost:
                    self._searched, self._searched_at = poll, now
                return poll, 0.0
            wait = min(wait, delay)
        return None, wait

    def _admit(self, now: float) -> float:
        """Make due all that is new, or return the seconds until then."""
        rate = min(1 / min(each.first for each in self.policies), self._budget.rate(self._share))
        if wait := self._first_polls.take(now, rate=rate, burst=_MOST_IN_FLIGHT + 1):
            return wait
        for target in self._new.values():
            self._enqueue(target)
        self._new.clear()
        return math.inf

    def _candidates(self, now: float, *, has_list: bool) -> Iterator[tuple[Target[T], str | int]]:
        """Yield polls worth sending, the best first, and the targets that they are for."""
        urgent = list(islice(self._urgent.values(), CHUNK))
        # Several on one page that events named share its read.
        on = Counter(each.page for each in urgent if each.is_notified and not each.is_lost)
        for each in urgent:
            has_page = not (each.needs_own_read or each.is_lost) and on[each.page] > 1
            poll = each.page if has_page and each.page is not None else each.id
            if self._is_free(poll):
                yield each, poll
                break
        is_reading = any(isinstance(each, str) for each in self._in_flight)
        if self._index.is_doubted and is_reading:  # which says whether to believe the list
            return
        lost = sum(each.is_lost for each in islice(self._due.values(), 2 * CHUNK))
        tried = set[bool]()
        # What stands first is on few pages: to go on would find those in flight again.
        for each in islice(self._due.values(), 2 * CHUNK):
            if each.is_lost in tried:
                continue
            page = self._index.page_for(each, lost) if has_list else None
            poll = each.id if page is None else page
            if each.is_lost or self._is_free(poll):
                tried.add(each.is_lost)
            if self._is_free(poll):
                yield each, poll
        # What the list was believed about for long is read alone, if there is quota.
        for each in islice((t for t in self._own.values() if self._is_free(t.id)), 1):
            if each.is_final(now, self._lead) or self._budget.has_spare(now, self._share):
                yield each, each.id

    def _is_free(self, poll: str | int) -> bool:
        """Return whether a poll may begin: not in flight, nor so many pages that hang."""
        pages = sum(isinstance(each, int) for each in self._in_flight if isinstance(poll, int))
        return poll not in self._in_flight and pages < _MOST_IN_FLIGHT - 1

    def _delay(self, target: Target[T], poll: str | int, now: float) -> float:
        """Return the seconds until a poll may go.

        What an event asked for, and what is the last chance, may exceed the share.
        """
        budget, share, is_page = self._budget, self._share, isinstance(poll, int)
        delay, is_final = budget.wait(now, share, is_page=is_page), target.is_final(now, self._lead)
        if delay > 0 and (target.is_urgent or is_final):
            rate = budget.rate(_URGENT_SHARE)
            # Many deadlines may come at once; events that do share pages.
            burst = max(1.0, BRIEF * (rate if is_final else budget.rate(share)))
            return min(delay, self._urgent_polls.take(now, rate=rate, burst=burst))
        if target.is_urgent or is_final or self._index.is_doubted:
            return delay
        # A sweep that takes most of the share is spread: in one go, it would come too early for
        # most, and leave nothing for the next.
        if is_page:
            pace = budget.pace(self._index.pages_for(len(self.targets)), now, share)
            return max(delay, self._searched_at + pace / _SPREAD - now)
        cost = self._index.sweep_cost(now)
        return max(delay, self._read_at + budget.pace(cost, now, share) / cost - now)

    def spend(self, now: float, *, is_page: bool = False) -> None:
        """Count one request."""
        self._budget.spend(now, self._share, is_page=is_page)

    def end(self, poll: str | int, now: float) -> float:
        """Take a poll from those in flight; return when it began. Harmless to repeat."""
        began = self._in_flight.pop(poll, None)
        if began is None:
            return now
        # What took very long was held up, by the quota as a rule: the next ones need not be.
        self._latency = max(min(now - began, 4 * PATIENCE), self._latency / 2)
        if poll == self._searched:
            self._searched = None
        return began

    def record_read(self, id: str, item: T | None, now: float) -> None:
        """Record a single read; None means that the object isn't there yet."""
        began, target = self.end(id, now), self.targets.get(id)
        self._last_failure = None
        if target is None:
            return
        was_over, waiting = target.needs_own_read, len(target.waiters)
        self._index.record_read(target, item, now)
        self._record(target, item, began, now)
        if was_over and len(target.waiters) == waiting:  # the list is ahead of single reads
            self._index.suspend(now, BRIEF)
            for each in [each for each in self._urgent.values() if each.needs_own_read]:
                each.needs_own_read = False
                self._due[each.id] = self._urgent.pop(each.id)

    def record_page(self, number: int, page: Page[Any], now: float) -> None:
        """Record a page of the list."""
        is_search, began = number == self._searched, self.end(number, now)
        self._last_failure = None
        items: dict[str, T] = {item.id: item for item in page.items}
        self._index.record_page(began, number, page, items, is_search=is_search)
        draw = self._rng.random()  # one for all keeps a page together
        for item_id, item in items.items():
            target = self.targets.get(item_id)
            if target is not None and self._index.is_believed(item):
                self._record(target, item, began, now, draw)
        self._index.check_suspect(began, items, now)

    def _record(
        self, target: Target[T], item: T | None, began: float, now: float, draw: float | None = None
    ) -> None:
        """Record what was seen of one object: alone, or on a page if a number was drawn for it."""
        is_own, draw = draw is None, self._rng.random() if draw is None else draw
        for waiter, outcome in target.record(self._condition, item, began, now, is_own=is_own):
            self._index.suspect(target, waiter.policy, began)  # of a page, until it is checked
            self.finish(waiter, outcome)
        self._dequeue(target)
        if target.waiters:
            lead, is_slow = self._lead, self._condition.has_events and self._is_alive()
            if not is_own and target.is_unchecked(now, lead):
                self._own[target.id] = target
            target.due = math.inf
            at = target.next_poll(now, draw=draw, latency=lead, is_slow=is_slow)
            self._schedule(target, now if began < self._all_notified_at else at, now)

    def record_failure(self, poll: str | int, error: GatherError, now: float, wall: float) -> None:
        """Record a failure that isn't fatal: it ends the waits for one object, or is endured."""
        began, is_over = self.end(poll, now), is_lasting(error)
        if isinstance(poll, int):
            is_over = self._index.record_failure(error, now)
        elif poll in self.targets:
            target = self.targets[poll]
            if is_over:
                # Those who know of a recent creation are spared by a 404.
                endured = 2 * PATIENCE if isinstance(error, NotFoundError) else 0.0
                own = (e for e in target.waiters if e.seen is None or now - e.began >= endured)
                self.fail(own, error, now)
            self._record(target, None, began, now)
        if is_over:
            return
        # Polls pause, the longer the longer the failures last. A 429 is waited out as far as the
        # server says until when, a brief window at most: a reset further away may be a mistake,
        # and one poll is cheap.
        if self._last_failure is None:
            self._failing_since = now
        self._last_failure, age, draw = error, now - self._failing_since, self._rng.random()
        policies = self.policies or (PollPolicy(),)
        pause = min(next_interval(each, age=age, draw=draw) for each in policies)
        if isinstance(error, RateLimitedError) and error.reset_at is not None:
            pause = max(pause, min(error.reset_at.timestamp() - wall, BRIEF))
        self._pause_until = max(self._pause_until, now + pause)
