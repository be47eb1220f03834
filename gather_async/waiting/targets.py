"""Targets with their waiters, and where they are in the list.

The list of questions is known from one sample call. Its page size is the server's own,
new items may come first or last, ``page`` may be ignored, items may be missing or say
less than single reads, or be old. So all of it is learned from what is read.
Source: /getting-started/authentication (the sample call)
"""

import copy
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Generic, TypeVar

from attrs import define, field

from gather_async.errors import (
    GatherAPIError,
    GatherError,
    InvalidRequestError,
    RateLimitedError,
    ResponseDecodeError,
    WaitTimeoutError,
)
from gather_async.observability import log_fields
from gather_async.pager import Page
from gather_async.protocol.polling import BRIEF, HORIZON, PollPolicy, next_interval
from gather_async.waiting.conditions import Condition

__all__ = ["CHUNK", "ListIndex", "PATIENCE", "Target", "Waiter", "is_lasting"]

_LOG = logging.getLogger("gather_async.waiting")
T = TypeVar("T")
CHUNK = 200  # targets handled in one step of the event loop: some 2 ms
# A page that takes longer, or is behind by more, gives way to single reads.
PATIENCE = 5.0  # seconds
_DEEPEST_BALANCE = 8  # pages beyond the ids found before a search is given up
_MOST_FAILURES = 3  # of the list in a row: answers, or searches given up


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

    def own_error(self, error: BaseException, now: float) -> BaseException:
        """Return an error of this wait: one traceback for each caller."""
        if not isinstance(error, GatherError):
            return error
        own = copy.copy(error)
        own.__cause__ = error
        if isinstance(own, WaitTimeoutError):
            own.waited = now - self.began
        return own

    def final_poll(self, latency: float) -> float:
        """Return when to start the final poll, so that its answer comes before the deadline."""
        return self.deadline - min(self.timeout / 4, max(PATIENCE / 10, 2 * latency))

    def next_poll(
        self, now: float, *, draw: float, latency: float, is_slow: bool, since: float
    ) -> float:
        """Return when to poll again, by the seconds since an event; ``inf``: there is no time."""
        final = self.final_poll(latency)
        if now >= final:
            return math.inf
        age = now - self.began
        if since <= BRIEF:  # what an event announced may take a moment to show
            age, is_slow = min(age, since), False
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
    """The page of the list that showed it last, until it is read alone while it is lost."""
    is_lost: bool = True
    """Whether there is no such page, or it was read again and didn't show it."""
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
    needs_own_read: bool = False
    """Whether the list says that it is over, but shows too little of it."""
    read_after: float = HORIZON
    """Seconds after which the list alone is no longer believed."""

    def add(self, waiter: Waiter[T]) -> None:
        """Add a waiter."""
        self.waiters.add(waiter)
        self.last = waiter.seen if self.last is None else self.last
        self.read_after = min(self.read_after, waiter.timeout / 2)

    @property
    def is_urgent(self) -> bool:
        """Whether an event asks for a read, or the list calls it over."""
        return self.is_notified or self.needs_own_read

    def is_final(self, now: float, latency: float) -> bool:
        """Return whether a deadline is too close to put this off."""
        return any(now >= each.final_poll(latency) for each in self.waiters)

    def is_unchecked(self, now: float, latency: float) -> bool:
        """Return whether the list alone was believed for long enough: an hour at most."""
        grown = min(self.read_at - self.began, 60 * BRIEF)  # as links may expire
        at = self.read_at + max(self.read_after, grown)
        return at <= now or self.is_final(now, latency)

    def record(
        self, condition: Condition[T], item: T | None, began: float, now: float, *, is_own: bool
    ) -> Iterator[tuple[Waiter[T], T | GatherError]]:
        """Note what a poll showed, if anything; yield the waits that it ends, and how."""
        self.polled_at = now
        if self.notified_at <= began:
            self.is_notified = False
        if is_own:
            self.needs_own_read, self.read_at = False, now
        if item is None:
            return
        if is_own or self.last is None or condition.is_whole(item, None):
            self.last = item
        if not is_own:
            self.listed_at = began
        for waiter in list(self.waiters):
            outcome = condition.judge(item, waiter.policy, now - waiter.began)
            if outcome is not None and (is_own or condition.is_whole(item, outcome)):
                yield waiter, outcome
            elif outcome is not None:
                self.needs_own_read = True

    def next_poll(self, now: float, *, draw: float, latency: float, is_slow: bool) -> float:
        """Return when to poll it again."""
        if self.is_urgent:
            return now
        since = now - self.notified_at
        return min(
            each.next_poll(now, draw=draw, latency=latency, is_slow=is_slow, since=since)
            for each in self.waiters
        )


class ListIndex(Generic[T]):
    """Index of one condition's list. It outlives the waits.

    Attributes:
        lost: How many targets are on no known page.
        pages: How many pages there are; None while unknown.
        is_doubted: Whether the list showed an item that names no state. That may be all there
            is to know, or the list shows too little, so one object is to be read alone.
    """

    def __init__(self, condition: Condition[T], targets: Mapping[str, Target[T]]) -> None:
        self.lost: int = 0
        self.pages: int | None = None
        self.is_doubted: bool = False
        self._is_trusted = False
        self._condition, self._targets = condition, targets
        self._on: defaultdict[int, dict[str, Target[T]]] = defaultdict(dict)
        self._size = 0
        self._first_ids: AbstractSet[str] = frozenset()
        self._read_at: dict[int, float] = {}
        self._near: dict[int, None] = {}
        self._balance, self._failures = 0.0, 0
        self._lost_at = self._usable_from = -math.inf
        self._retry_after = BRIEF / 2  # seconds until what is lost is searched for again
        # An object that a single read found over while the list said otherwise: when, by whom.
        self._suspect: tuple[str, float, PollPolicy] | None = None

    def lose(self, many: int, now: float) -> None:
        """Note that so many targets are on no known page any more: they are searched for.

        They pay for a part of a search, as one after the other would begin it anew each time.
        """
        self.lost += many
        if many:
            self._lost_at, self._retry_after = max(self._lost_at, now), BRIEF / 2
            self._balance = min(0.0, self._balance + many / _DEEPEST_BALANCE)

    def remove(self, target: Target[T]) -> None:
        """Forget a target."""
        self._move(target, None)
        self.lost -= 1

    def is_usable(self, now: float) -> bool:
        """Return whether the list is worth more than single reads."""
        is_known = self._condition.page is not None and not self.is_doubted
        return is_known and now >= self._usable_from

    def suspend(self, now: float, seconds: float = 15 * BRIEF) -> None:
        """Read single objects for a while: the list fails, says too little, or is old."""
        self._usable_from = now + seconds
        self._suspect, self.is_doubted = None, False

    def page_for(self, target: Target[T], lost: int) -> int | None:
        """Return the page that shows a target and others; None if a single read costs less."""
        if target.is_lost:
            return self.next_to_search() if lost > 1 else None
        return target.page if len(self._on.get(target.page or 0, ())) > 1 else None

    def sweep_cost(self, now: float) -> int:
        """Return the polls that one sweep over all targets takes."""
        if not self.is_usable(now):
            return len(self._targets)
        # Those that left a page lately are found together, on that page or beside it.
        return len(self._on) + len(self._targets) - sum(map(len, self._on.values()))

    def pages_for(self, targets: int) -> int:
        """Return how many pages that many items fill at least; 0 while no page was read."""
        return math.ceil(targets / self._size) if self._size else 0

    def next_to_search(self) -> int | None:
        """Return the next page to search; None once single reads cost less.

        A page that shows n of what is due anew saves n reads. So a search ends when it
        has read some pages more than it saved reads, unless to read all that is left costs less.
        """
        if -self._balance < max(2, min(_DEEPEST_BALANCE, self.lost // 4)):
            return next(filter(self._is_unread, self._likely()), None)
        pages = self.pages or 0
        rest = list(filter(self._is_unread, range(1, pages + 1)))
        if not 0 < len(rest) < self.lost or -self._balance >= pages + _DEEPEST_BALANCE:
            return None
        return min(rest, key=lambda page: self._read_at.get(page, -math.inf))

    def _is_unread(self, page: int) -> bool:
        """Return whether a page may hold what got lost since it was read."""
        return self._read_at.get(page, -math.inf) < self._lost_at

    def _likely(self) -> Iterator[int]:
        """Yield page numbers, the likeliest first: beside what is known, then from both ends."""
        last = self.pages or max(self._read_at, default=0) + 1
        beside = (page + step for page in reversed(self._near) for step in (0, 1, -1))
        yield from (page for page in beside if 1 <= page <= last)
        for page in range(1, (last + 1) // 2 + 1):  # new items come first or last
            yield from (page, last + 1 - page)

    def record_page(
        self, began: float, number: int, page: Page[Any], items: Mapping[str, T], *, is_search: bool
    ) -> None:
        """Note what a page holds, and what it doesn't hold any more."""
        self._record_size(began, number, page, items.keys())
        on = self._on.get(number, {}).values()
        left = [each for each in on if not each.is_lost and each.id not in items]
        for each in left:
            each.is_lost = True
        self.lose(len(left), began)
        found = saved = 0
        for item_id in items:
            target = self._targets.get(item_id)
            if target is not None and (target.is_lost or target.page != number):
                found += target.is_lost
                saved += target.due <= began
                self._move(target, number)
        if left or found:
            self._near.pop(number, None)
            self._near[number] = None
        if is_search:
            self._balance += saved - 1
        if found or not is_search:
            self._failures = 0
        elif self.lost and not any(map(self._is_unread, self._likely())):
            self._count_failure(began)

    def _record_size(
        self, began: float, number: int, page: Page[Any], ids: AbstractSet[str]
    ) -> None:
        self._read_at[number] = began
        if number == 1:
            self._first_ids = ids
        elif ids and ids <= self._first_ids:
            self.pages = 1  # the server ignores the page's number
            return
        self._size = max(self._size, len(ids))
        if page.total is not None and self._size:
            self.pages = max(1, math.ceil(page.total / self._size))
        elif not ids and number > 1:
            self.pages = number - 1
        elif not page.has_next or (self.pages is not None and self.pages <= number):
            self.pages = None if page.has_next else number

    def _move(self, target: Target[T], page: int | None) -> None:
        """Note the page that a target is on."""
        if target.page is not None:
            del self._on[target.page][target.id]
            if not self._on[target.page]:
                del self._on[target.page]
        if page is not None:
            self._on[page][target.id] = target
        self.lost += (page is None) - target.is_lost
        target.page, target.is_lost = page, page is None

    def record_failure(self, error: GatherError, now: float) -> bool:
        """Note a failure of the list; return whether it is about the list alone."""
        is_own = is_lasting(error) or isinstance(error, ResponseDecodeError)
        if is_own:
            self.suspend(now)
        elif not isinstance(error, RateLimitedError):  # which is about the quota
            self._count_failure(now)
        return is_own

    def _count_failure(self, now: float) -> None:
        self._failures += 1  # maybe everything fails, or the list is some seconds behind
        if self._failures >= _MOST_FAILURES:
            self.suspend(now, BRIEF * min(15, 1 + self._failures - _MOST_FAILURES))

    def is_believed(self, item: T) -> bool:
        """Return whether what a page shows of a target is the state it is in."""
        if not (self._is_trusted or self._condition.is_telling(item)):
            self.is_doubted = True
            return False
        return True

    def record_read(self, target: Target[T], item: T | None, now: float) -> None:
        """Compare a single read with what the list said."""
        if target.is_lost:
            self._move(target, None)
            if now - self._lost_at >= self._retry_after:  # the list may have been behind
                self._lost_at, self._balance, self._retry_after = now, 0.0, 60 * BRIEF
        if self.is_doubted:
            if item is not None and self._condition.is_telling(item):
                self.suspend(now)
            else:
                self.is_doubted, self._is_trusted = False, True

    def suspect(self, target: Target[T], policy: PollPolicy, began: float) -> None:
        """Note that a single read found an object over, maybe before the list does."""
        if self._suspect is None and target.listed_at > -math.inf:
            self._suspect = target.id, began, policy

    def check_suspect(self, began: float, items: Mapping[str, T], now: float) -> None:
        """Suspend a list that goes on showing as unfinished what a single read found over."""
        if self._suspect is None or self._suspect[0] not in items:
            return
        name, read_at, policy = self._suspect
        if self._condition.judge(items[name], policy, 0.0) is not None:
            self._suspect = None
        elif began - read_at >= PATIENCE:
            self.suspend(now, BRIEF)


def is_lasting(error: GatherError) -> bool:
    """Return whether asking the same again makes no sense: a 4xx, a bad id, a late wait.

    A body that makes no sense may be a proxy's, and passes.
    """
    if isinstance(error, GatherAPIError):
        return 400 <= error.status < 500 and error.status not in {408, 425, 429}
    return isinstance(error, InvalidRequestError | WaitTimeoutError)
