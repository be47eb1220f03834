"""Which request should go next, and what came of it, for all that is awaited of one kind.

Told the time; sends nothing and waits for nothing.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from gather_async.errors import GatherError
from gather_async.models.question import AudioState
from gather_async.waiting.budget import LeakyBucket, PollBudget
from gather_async.waiting.conditions import Condition, ListPage
from gather_async.waiting.failures import Backoff, is_fatal, is_permanent
from gather_async.waiting.list_index import Listing, Poll, ReadOne, ReadPage, next_step
from gather_async.waiting.registry import Awaited, PollContext, Waiter, WaiterRegistry

__all__ = ["Scheduler"]

T = TypeVar("T")
_NOT_URGENT = 2  # rank; before it come what an event named, and last looks
_PATIENCE = 5.0  # seconds for a page of the list; then single reads go on without it
_MOST_PAGES = 3  # at once, so that a list that hangs leaves room for a single read
_SPREAD = 240.0  # pages in the time between two looks at everything: the first look's pace
_FIRST_LOOKS = 5  # at once, each at all that is new
_URGENT_READS = 20  # at once beyond the allowance; then events share pages
_URGENT_SHARE = 0.5  # of a minute's quota for events by the hundred


class Scheduler(Generic[T]):
    """Plans polls, and hands what they bring to those who wait.

    Args:
        kind: What is awaited.
        roster: Who waits.
        allowance: What polling may spend.
        rng: Where the jitter comes from.
        is_slow: Tells whether events announce what is awaited.
    """

    def __init__(
        self,
        kind: Condition[T],
        roster: WaiterRegistry[T],
        allowance: PollBudget,
        rng: random.Random,
        is_slow: Callable[[], bool],
    ) -> None:
        self._kind = kind
        self._roster = roster
        self._allowance = allowance
        self._rng = rng
        self._is_slow = is_slow
        self._listing = Listing(kind, roster)
        self._new = LeakyBucket(_FIRST_LOOKS)
        self._urgent = LeakyBucket(_URGENT_READS)
        self._under_way: set[Poll] = set()
        self._searched_at = -math.inf
        self._latency = 0.0
        self.trouble = Backoff()

    def forget_steps(self) -> None:
        """Forget what was under way."""
        self._under_way.clear()

    # What to do next

    def plan(self, now: float) -> Poll | float:
        """Return the next request, begun, or the seconds until it is worth asking again."""
        pause = self.trouble.pause_until - now
        if pause > 0:
            return pause
        due, later = self._due(now)
        late = self._until_late(now)
        wait = min(later, late) if late > 0 else later
        for candidates in (due, [each for each in due if each.place.page is not None]):
            request = self._best(candidates, now)
            if request is None:
                continue
            is_page = isinstance(request, ReadPage)
            delay = self._allowance.wait(now, self._roster.share, is_page=is_page)
            if delay > 0 and self._is_urgent(request, candidates, now):
                delay = min(delay, self._urgent.wait(now, self._allowance.interval(_URGENT_SHARE)))
            if isinstance(request, ReadPage) and request.is_search:
                delay = max(delay, self._search_delay(candidates, now))
            if delay <= 0:
                return self._begin(request, due, now)
            wait = min(wait, delay)
        return wait

    def _due(self, now: float) -> tuple[Sequence[Awaited[T]], float]:
        """Return what should be looked at, the most urgent first, and the seconds until more."""
        busy = {each.request.id for each in self._under_way if isinstance(each.request, ReadOne)}
        cost = self._listing.poll_cost(now)
        pace = self._allowance.pace(cost, now, self._roster.share)
        due, later = [], math.inf
        for each in self._roster:
            at = each.due_at(pace, now, self._latency)
            if at > now:
                later = min(later, at)
            elif each.id not in busy:
                due.append(each)
        wait = later - now
        if any(each.is_new and not each.is_admitted and not each.is_told for each in due):
            delay = self._new.wait(now, self._roster.first)
            if delay > 0:
                due = [each for each in due if not each.is_new or each.is_admitted or each.is_told]
                wait = min(wait, delay)
            for each in due:
                each.is_admitted = True
        due.sort(key=lambda each: (self._rank(each, now), each.due))
        return due, wait

    def _rank(self, awaited: Awaited[T], now: float) -> int:
        if awaited.is_told or awaited.needs_own_read:
            return 0
        return 1 if awaited.is_last_look(now, self._latency) else _NOT_URGENT

    def _best(self, due: Sequence[Awaited[T]], now: float) -> ReadPage | ReadOne | None:
        """Return the request that tells most; what an event named gets a read of its own."""
        doubted = self._listing.doubted
        if doubted is not None:
            is_free = any(each.id == doubted for each in due)
            return ReadOne(doubted) if is_free else None
        told_on = Counter(each.place.page for each in due if each.is_told)
        told_on[None] = 0
        for each in due:
            if each.needs_own_read or (each.is_told and told_on[each.place.page] < 2):
                return ReadOne(each.id)
        pages = self._pages_under_way
        is_late = self._until_late(now) <= 0
        request = next_step(
            [each.place for each in due],
            self._listing.awaited_on(now),
            None if is_late else self._listing.map(now),
            busy_pages={page.number for _, page in pages},
            is_searching=any(page.is_search for _, page in pages),
        )
        has_room = isinstance(request, ReadOne) or len(pages) < _MOST_PAGES
        return request if has_room else None

    @property
    def _pages_under_way(self) -> Sequence[tuple[float, ReadPage]]:
        """When each page that is being read was asked for, and which it is."""
        steps = self._under_way
        return [(each.began, each.request) for each in steps if isinstance(each.request, ReadPage)]

    def _until_late(self, now: float) -> float:
        """Return the seconds until the list has kept everybody waiting for too long."""
        began = min((began for began, _ in self._pages_under_way), default=math.inf)
        return began + _PATIENCE - now

    def _search_delay(self, due: Sequence[Awaited[T]], now: float) -> float:
        """Return the seconds until the next page of a search.

        Where two looks at everything would use up the share, a first look in one go
        would come too early for most, and leave nothing for the second.
        """
        is_first = any(each.is_new for each in due)
        if not is_first or any(each.is_last_look(now, self._latency) for each in due):
            return 0.0
        cost = self._listing.pages_for(len(self._roster))
        pace = self._allowance.pace(cost, now, self._roster.share)
        return self._searched_at + pace / _SPREAD - now

    def _is_urgent(
        self, request: ReadPage | ReadOne, due: Sequence[Awaited[T]], now: float
    ) -> bool:
        """Whether this may exceed the allowance: an event asked for it, or it is a last chance.

        One page is the last chance of many; single reads keep to their share.
        """
        if isinstance(request, ReadOne):
            return any(
                each.id == request.id and (each.is_told or each.needs_own_read) for each in due
            )
        return any(
            each.place.page == request.number and self._rank(each, now) < _NOT_URGENT
            for each in due
        )

    def _begin(self, request: ReadPage | ReadOne, due: Sequence[Awaited[T]], now: float) -> Poll:
        lost = [each.place for each in due if each.place.page is None]
        step = Poll(
            request,
            began=now,
            sought=frozenset(each.id for each in lost),
            since=max((each.since for each in lost), default=now),
        )
        self._under_way.add(step)
        if isinstance(request, ReadPage) and request.is_search:
            self._searched_at = now
        self._allowance.spend(now, self._roster.share, is_page=isinstance(request, ReadPage))
        return step

    def spend(self, now: float) -> None:
        """Count one request more."""
        self._allowance.spend(now, self._roster.share, is_page=False)

    # What came of it

    def over(self, step: Poll, now: float) -> None:
        """Take a request from under way, whatever came of it."""
        if step in self._under_way:
            self._under_way.discard(step)
            self._latency = max(now - step.began, 0.9 * self._latency)

    def saw_one(self, step: Poll, id: str, item: T | None, now: float) -> None:
        """Take in a single read; None means that it isn't there yet."""
        self.trouble.over()
        self._listing.saw_one(id, item, now)
        awaited = self._roster.get(id)
        if awaited is not None:
            awaited.needs_own_read = False
            self._look(awaited, item, step, self._timing(now), is_whole=True)

    def saw_page(self, step: Poll, page: ReadPage, listed: ListPage[T], now: float) -> None:
        """Take in a page of the list."""
        self.trouble.over()
        told = self._listing.saw(step, page, listed, now)
        timing, is_whole = self._timing(now), self._kind.is_listed_whole
        for awaited, item in told:
            self._look(awaited, item, step, timing, is_whole=is_whole)

    def _timing(self, now: float) -> PollContext:
        """Return what the next looks depend on; one draw for all keeps a page together."""
        return PollContext(
            now=now,
            draw=self._rng.random(),
            latency=self._latency,
            is_slow=self._is_slow(),
        )

    def _look(
        self,
        awaited: Awaited[T],
        item: T | None,
        step: Poll,
        timing: PollContext,
        *,
        is_whole: bool,
    ) -> None:
        """Take in what was seen of one object, then end waits or choose the next look."""
        awaited.looked_at = timing.now
        if awaited.is_told and awaited.told_at <= step.began:
            awaited.is_told = False
        if item is not None:
            if is_whole or awaited.last is None:
                awaited.last = item
            for waiter in list(awaited.waiters):
                self._judge(awaited, waiter, item, is_whole=is_whole)
        if awaited.is_told or awaited.needs_own_read:
            awaited.due = timing.now
        else:
            awaited.reschedule(timing)

    def _judge(self, awaited: Awaited[T], waiter: Waiter[T], item: T, *, is_whole: bool) -> None:
        state = self._kind.judge(item, waiter.policy)
        if state is AudioState.PROCESSING:
            return
        if not is_whole:
            awaited.needs_own_read = True
        elif state is AudioState.READY:
            self._roster.end(waiter, item)
        else:
            self._roster.end(waiter, self._kind.failed(item))

    def failed(self, step: Poll, error: GatherError, now: float, wall: float) -> None:
        """Take in a failure: it ends all waits, or one, or is endured."""
        if is_fatal(error):
            self._roster.end_all(error)
            return
        request = step.request
        if isinstance(request, ReadPage):
            if self._listing.failed(error, now):
                return
        else:
            self._listing.failed_one(request.id)
            awaited = self._roster.get(request.id)
            if awaited is not None and is_permanent(error):
                self._roster.end_each(awaited, error)
                return
            if awaited is not None:
                awaited.needs_own_read = False  # others have their turn first
                self._look(awaited, None, step, self._timing(now), is_whole=False)
        self.trouble.happened(error, list(self._roster.policies), now, wall, self._rng.random())
