"""Places of the targets in the list, and whether the list can be relied on.

The list of questions is known from one sample call. Its page size is the server's own,
new items may come first or last, ``page`` may be ignored, items may be missing or say
less than single reads, or be old. So all of it is learned from what is read.
Source: /getting-started/authentication (the sample call)
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Generic, TypeVar

from attrs import frozen

from gather_async.errors import GatherError, ResponseDecodeError
from gather_async.models.question import AudioState
from gather_async.pager import Page
from gather_async.protocol.polling import PollPolicy
from gather_async.waiting.conditions import Condition
from gather_async.waiting.pacing import BRIEF, PATIENCE, is_permanent
from gather_async.waiting.registry import Target, WaiterRegistry

__all__ = ["ListIndex", "Poll"]

T = TypeVar("T")
_DEEPEST_BALANCE = 8  # pages beyond the ids found before a search is given up
_MOST_FAILURES = 3  # of the list in a row: answers, or searches given up


@frozen(eq=False, kw_only=True)
class Poll:
    """One poll in flight: of one object, or of a page of the list."""

    began: float
    id: str | None = None
    page: int | None = None
    is_search: bool = False
    """Whether the page is read to find out which targets are on it."""
    is_urgent: bool = False
    """Whether an event asked for it, or the list calls the object over."""
    is_final: bool = False
    """Whether a deadline is near."""


class ListIndex(Generic[T]):
    """Index of one condition's list. It outlives the waits.

    Attributes:
        pages: How many pages there are; None while unknown.
        probe_id: The target that is to be read alone before the list can be used.
        is_trusted: Whether an item that names no state was found to be the same in a
            single read.
    """

    def __init__(self, condition: Condition[T], registry: WaiterRegistry[T]) -> None:
        self.pages: int | None = None
        self.probe_id: str | None = None
        self.is_trusted: bool = False
        self._condition, self._registry = condition, registry
        self._size = 0
        self._first_ids: AbstractSet[str] = frozenset()
        self._read_at: dict[int, float] = {}
        self._on: defaultdict[int, dict[str, Target[T]]] = defaultdict(dict)
        self._moved_from: Counter[int] = Counter()
        self._located = self._balance = self._failures = self._failed_searches = 0
        self._lost_at = self._searched_for = self._usable_from = -math.inf
        self._found_on: int | None = None
        # An object that a single read found over while the list said otherwise: when, by whom.
        self._suspect: tuple[str, float, PollPolicy] | None = None

    def is_usable(self, now: float) -> bool:
        """Return whether the list is worth more than single reads."""
        return self._condition.page is not None and now >= self._usable_from

    def suspend(self, now: float, seconds: float = 15 * BRIEF) -> None:
        """Read single objects for a while: the list fails, says too little, or is old."""
        self._usable_from = now + seconds
        self._failed_searches = self._balance = self._failures = 0
        self._suspect = self.probe_id = None

    def count_on(self, page: int) -> int:
        """Return how many targets a page holds."""
        return len(self._on[page]) if page in self._on else 0

    def sweep_cost(self, now: float) -> int:
        """Return the polls that one sweep over all targets takes."""
        targets = len(self._registry)
        if not self.is_usable(now):
            return targets
        # Those that left a page lately are found together, on that page or beside it.
        pages = len(self._on.keys() | self._moved_from.keys())
        return pages + max(0, targets - self._located - self._moved_from.total())

    def pages_for(self, targets: int) -> int:
        """Return how many pages that many items fill at least; 0 while no page was read."""
        return math.ceil(targets / self._size) if self._size else 0

    def next_to_search(self) -> int | None:
        """Return the next page to search; None once single reads cost less.

        A page that shows n of what is lost saves n reads. So a search ends when it has
        read some pages more than it found ids, unless to read all that is left costs less.
        """
        lost = len(self._registry.lost)
        balance = self._balance if self._lost_at <= self._searched_for else 0
        if -balance >= max(2, min(_DEEPEST_BALANCE, lost // 4)):
            if self.pages is None:
                return None
            if sum(self._is_unread(page) for page in range(1, self.pages + 1)) >= lost:
                return None
        return next(filter(self._is_unread, self._likely()), None)

    def _is_unread(self, page: int) -> bool:
        """Return whether a page may hold what got lost since it was read."""
        return self._read_at.get(page, -math.inf) < self._lost_at

    def _likely(self) -> Iterator[int]:
        """Yield page numbers, the likeliest first: beside what is known, then from both ends."""
        last = self.pages or max(self._read_at, default=0) + 1
        known = [*self._moved_from, *([] if self._found_on is None else [self._found_on])]
        yield from (
            page + step for page in known for step in (0, 1, -1) if 1 <= page + step <= last
        )
        for page in range(1, (last + 1) // 2 + 1):  # new items come first or last
            yield from (page, last + 1 - page)

    def add(self, target: Target[T], now: float) -> None:
        """Note a target; its place may be unknown."""
        if target.page is None:
            self._lost_at = max(self._lost_at, now)

    def remove(self, target: Target[T]) -> None:
        """Forget a target."""
        self._move(target, None)
        self.record_failed_read(target.id)

    def clear(self) -> None:
        """Forget all targets: their event loop is gone."""
        self._on.clear()
        self._moved_from.clear()
        self._located, self.probe_id = 0, None

    def record_page(self, poll: Poll, number: int, page: Page[Any], items: Mapping[str, T]) -> None:
        """Note what a page holds, and what it doesn't hold any more."""
        self._failures = found = 0
        self._record_size(poll.began, number, page, items.keys())
        for gone in [each for each in self._on.get(number, {}).values() if each.id not in items]:
            self._move(gone, None, near=number)
            self._lost_at = max(self._lost_at, poll.began)
        for item_id in items:
            target = self._registry.get(item_id)
            if target is not None and target.page != number:
                found += target.page is None
                self._move(target, number)
        if poll.is_search:
            self._record_search(poll, number, found)

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

    def _record_search(self, poll: Poll, number: int, found: int) -> None:
        if self._lost_at > self._searched_for:
            self._searched_for, self._balance = self._lost_at, 0
        self._balance += found - 1
        if found:
            self._found_on, self._failed_searches = number, 0
        elif self._registry.lost and self.next_to_search() is None:
            self._failed_searches += 1
            if self._failed_searches >= _MOST_FAILURES:
                self.suspend(poll.began)

    def _move(self, target: Target[T], page: int | None, *, near: int | None = None) -> None:
        """Note the page that a target is on, or the one that it just left."""
        if target.page is not None:
            del self._on[target.page][target.id]
            if not self._on[target.page]:
                del self._on[target.page]
            self._located -= 1
        self._forget_near(target)
        target.page, target.near = page, near
        if page is not None:
            self._on[page][target.id] = target
            self._located += 1
        if near is not None:
            self._moved_from[near] += 1
        if target.queue is not None:
            self._registry.enqueue(target)

    def _forget_near(self, target: Target[T]) -> None:
        if target.near is not None:
            self._moved_from[target.near] -= 1
            if not self._moved_from[target.near]:
                del self._moved_from[target.near]
            target.near = None

    def record_failure(self, error: GatherError, now: float) -> bool:
        """Note a failure of the list; return whether it is about the list alone."""
        self._failures += 1
        is_own = is_permanent(error) or isinstance(error, ResponseDecodeError)
        if is_own or self._failures >= _MOST_FAILURES:
            self.suspend(now)
        return is_own

    def telling(self, shown: "list[tuple[Target[T], T]]") -> "list[tuple[Target[T], T]]":
        """Return those whose item can be believed; one of the others is to be read alone.

        An item that names no state may be all there is to know, or the list shows too little.
        """
        if self.is_trusted:
            return shown
        silent = [each for each, item in shown if not self._condition.is_telling(item)]
        if silent and self.probe_id is None:
            chosen = min(silent, key=lambda each: each.polled_at)
            self.probe_id, chosen.needs_own_read = chosen.id, True
            self._registry.enqueue(chosen)
        return [(each, item) for each, item in shown if self._condition.is_telling(item)]

    def record_read(self, poll: Poll, target: Target[T], item: T | None, now: float) -> None:
        """Compare a single read with what the list said of the same object."""
        self._forget_near(target)
        if poll.id == self.probe_id:
            self.probe_id = None
            if item is not None and self._condition.is_telling(item):
                self.suspend(now)
            else:
                self.is_trusted = True
        if item is None or self._suspect is not None or target.listed_at == -math.inf:
            return
        for policy in {each.policy for each in target.waiters}:
            if self._condition.judge(item, policy) is not AudioState.PROCESSING:
                self._suspect = target.id, poll.began, policy

    def record_failed_read(self, id: str) -> None:
        """Note a single read that failed: another one may be the probe."""
        if id == self.probe_id:
            self.probe_id = None

    def check_suspect(self, poll: Poll, items: Mapping[str, T], now: float) -> None:
        """Suspend a list that goes on showing as unfinished what a single read found over."""
        if self._suspect is None or self._suspect[0] not in items:
            return
        name, read_at, policy = self._suspect
        if self._condition.judge(items[name], policy) is not AudioState.PROCESSING:
            self._suspect = None
        elif poll.began - read_at >= PATIENCE:
            self.suspend(now, BRIEF)
