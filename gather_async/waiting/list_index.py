"""Which request tells most about what is awaited: a page of the list, or one read.

The list of questions is known from one sample call. Its page size is the
server's own, new items may come first or last, ``page`` may be ignored, and
items may be missing. So all of it is learned from the pages that are read.
Source: /getting-started/authentication (the sample call)
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

from attrs import define, field, frozen

from gather_async.errors import GatherError, ResponseDecodeError
from gather_async.waiting.conditions import Condition, ListPage
from gather_async.waiting.failures import is_permanent
from gather_async.waiting.registry import Awaited, Sought, WaiterRegistry

__all__ = ["ListMap", "Listing", "Poll", "ReadOne", "ReadPage", "next_step", "poll_cost"]

_MOST_FRUITLESS = 8  # pages in a row without anything awaited before a search is given up
_MOST_MISSES = 3  # searches in a row given up before the list is left alone
_LEFT_ALONE = 600.0  # seconds


@frozen
class ReadPage:
    """Read one page of the list."""

    number: int
    is_search: bool
    """Whether it is read to find out who is on it."""


@frozen
class ReadOne:
    """Read one object."""

    id: str


@define(eq=False)
class ListMap:
    """What is known of a list."""

    pages: int | None = None
    """How many there are; None while unknown."""
    is_trusted: bool = False
    """Whether an item that names no state was found to be the same in a single read."""
    _size: int = 0
    _first_ids: AbstractSet[str] = frozenset()
    _read_at: dict[int, float] = field(factory=dict)
    _found_on: int | None = None
    _fruitless: int = 0
    _searched_for: float = -math.inf
    _misses: int = 0
    _usable_from: float = -math.inf

    def pages_for(self, count: int) -> int:
        """Return how many pages that many items fill at least; 0 while no page was read."""
        return math.ceil(count / self._size) if self._size else 0

    def is_usable(self, now: float) -> bool:
        """Whether reading the list makes sense."""
        return now >= self._usable_from

    def leave_alone(self, now: float, seconds: float = _LEFT_ALONE) -> None:
        """Read single objects for a while: the list fails, or says too little."""
        self._usable_from = now + seconds
        self._misses = self._fruitless = 0

    def saw(
        self, number: int, ids: AbstractSet[str], *, total: int | None, has_next: bool, at: float
    ) -> None:
        """Take in what a page says of the list's size.

        Args:
            number: The page's number.
            ids: All ids on it.
            total: Items in the whole list, if the answer said so.
            has_next: Whether there may be another page.
            at: When it was asked for.
        """
        self._read_at[number] = at
        if number == 1:
            self._first_ids = ids
        elif ids and ids <= self._first_ids:
            self.pages = 1  # the server ignores the page's number
            return
        self._size = max(self._size, len(ids))
        if total is not None and self._size:
            self.pages = max(1, math.ceil(total / self._size))
        elif not ids and number > 1:
            self.pages = number - 1
        elif not has_next or (self.pages is not None and self.pages <= number):
            self.pages = None if has_next else number

    def searched(self, number: int, *, found: bool, wanted: int, since: float, at: float) -> None:
        """Take in how a search went on.

        Args:
            number: The page that was read.
            found: Whether anything sought was on it.
            wanted: How many ids are still sought.
            since: Since when the newest of them is sought.
            at: When the page was asked for.
        """
        if since > self._searched_for:
            self._searched_for, self._fruitless = since, 0
        if found:
            self._found_on, self._fruitless, self._misses = number, 0, 0
            return
        self._fruitless += 1
        if wanted and self.next_to_search(wanted, since=since, near=()) is None:
            self._misses += 1
            if self._misses >= _MOST_MISSES:
                self.leave_alone(at)

    def next_to_search(self, wanted: int, *, since: float, near: Sequence[int]) -> int | None:
        """Return the page on which what is sought most likely is; None if single reads cost less.

        Args:
            wanted: How many ids are sought.
            since: Since when the newest of them is sought.
            near: Pages that lost one of them.
        """
        fruitless = self._fruitless if since <= self._searched_for else 0
        if fruitless >= max(2, min(_MOST_FRUITLESS, wanted // 4)):
            unread = sum(1 for _ in self._unread(range(1, (self.pages or 0) + 1), since))
            if self.pages is None or unread >= wanted:
                return None
        return next(self._unread(self._likely(near), since), None)

    def _likely(self, near: Sequence[int]) -> Iterator[int]:
        """Give page numbers, the likeliest first; some may be given twice, or not exist."""
        if not self._read_at:
            yield 1
        for page in near:
            yield from (page, page + 1, page - 1)
        if self._found_on is not None:
            yield from (self._found_on, self._found_on + 1, self._found_on - 1)
        yield 1
        if self.pages is not None:  # new items come first or last
            yield self.pages
            yield from range(self.pages - 1, 1, -1)
        else:
            yield from range(2, max(self._read_at, default=1) + 2)

    def _unread(self, numbers: "Iterator[int] | range", since: float) -> Iterator[int]:
        """Give those that exist and were not read since."""
        for number in numbers:
            exists = number >= 1 and (self.pages is None or number <= self.pages)
            if exists and self._read_at.get(number, -math.inf) < since:
                yield number


def next_step(
    due: Sequence[Sought],
    awaited_on: Mapping[int, int],
    list_map: ListMap | None,
    *,
    busy_pages: AbstractSet[int],
    is_searching: bool,
) -> ReadPage | ReadOne | None:
    """Return the best next request; None if what is under way may answer it all.

    A page that holds two or more awaited ids is worth more than single reads. What
    is not yet located is searched for while there is reason to hope.

    Args:
        due: What should be looked at, the most urgent first.
        awaited_on: How many awaited ids, due or not, each page holds.
        list_map: What is known of the list; None if there is none to read.
        busy_pages: Pages being read.
        is_searching: Whether one of them is a search.
    """
    lost = [each for each in due if each.page is None]
    for each in due:
        if list_map is None:
            return ReadOne(each.id)
        if each.page is not None:
            if each.page in busy_pages:
                continue
            is_shared = awaited_on.get(each.page, 0) > 1
            return ReadPage(each.page, is_search=False) if is_shared else ReadOne(each.id)
        if len(lost) > 1:
            if is_searching:
                continue
            page = _search(lost, list_map)
            if page in busy_pages:
                continue
            if page is not None:
                return ReadPage(page, is_search=True)
        return ReadOne(each.id)
    return None


def _search(lost: Sequence[Sought], list_map: ListMap) -> int | None:
    since = max(each.since for each in lost)
    near = list(dict.fromkeys(each.near for each in lost if each.near is not None))
    return list_map.next_to_search(len(lost), since=since, near=near)


def poll_cost(
    awaited_on: Mapping[int, int], awaited: int, moved_from: Mapping[int, int] | None = None
) -> int:
    """Return the requests that one look at everything awaited takes.

    Args:
        awaited_on: How many awaited ids each page holds.
        awaited: How many there are in all.
        moved_from: How many were on each page a moment ago; they are found together,
            on that page or beside it.

    >>> poll_cost({1: 50, 2: 1}, awaited=53)
    4
    >>> poll_cost({1: 50, 2: 1}, awaited=53, moved_from={1: 2})
    2
    """
    moved_from = moved_from or {}
    located = sum(awaited_on.values()) + sum(moved_from.values())
    return len(awaited_on.keys() | moved_from.keys()) + max(0, awaited - located)


T = TypeVar("T")
_SAYS_TOO_LITTLE = 3600.0  # seconds until a list that lacks the state is tried again
_REFUSED = 900.0  # seconds until a list that answers 4xx, or nonsense, is tried again
_MOST_FAILURES = 3  # of the list in a row, while single reads may work


@define(eq=False)
class Poll:
    """One request under way."""

    request: ReadPage | ReadOne
    began: float
    sought: frozenset[str]
    """What a search is for."""
    since: float
    """Since when the newest of them is sought."""


class Listing(Generic[T]):
    """What is known of one kind's list. It outlives those who wait.

    An item that names no state may be all there is to know, or the list may show too
    little. One object is read alone to find out.
    """

    def __init__(self, kind: Condition[T], roster: WaiterRegistry[T]) -> None:
        self._kind = kind
        self._roster = roster
        self._map = ListMap()
        self._failures = 0
        self._doubted: str | None = None

    def map(self, now: float) -> ListMap | None:
        """Return the map; None while single reads are better than the list."""
        is_usable = self._kind.has_list and self._map.is_usable(now)
        return self._map if is_usable else None

    def awaited_on(self, now: float) -> Counter[int]:
        """Return how many awaited objects each page holds."""
        if self.map(now) is None:
            return Counter()
        places = (each.place.page for each in self._roster)
        return Counter(page for page in places if page is not None)

    def poll_cost(self, now: float) -> int:
        """Return the requests that one look at everything awaited takes."""
        moved: Counter[int] = Counter()
        for each in self._roster:
            near = each.place.near
            # What was read alone since then has left the list, for all that is known.
            if near is not None and each.looked_at <= each.place.since:
                moved[near] += 1
        return poll_cost(self.awaited_on(now), len(self._roster), moved if self.map(now) else None)

    def pages_for(self, count: int) -> int:
        """Return how many pages that many items fill at least; 0 while unknown."""
        return self._map.pages_for(count)

    def saw(
        self, step: Poll, page: ReadPage, listed: ListPage[T], now: float
    ) -> "list[tuple[Awaited[T], T]]":
        """Take in a page, and return what it tells of awaited objects."""
        self._failures = 0
        items = listed.items
        self._map.saw(
            page.number,
            items.keys(),
            total=listed.total,
            has_next=listed.has_next,
            at=step.began,
        )
        self._locate(items, page.number, now)
        if page.is_search:
            self._searched(step, page.number, items)
        shown = [(each, items[each.id]) for each in self._roster if each.id in items]
        if self._map.is_trusted:
            return shown
        doubtful = [each for each, item in shown if not self._kind.is_telling(item)]
        if doubtful:
            self._doubt(doubtful, now)
        return [(each, item) for each, item in shown if self._kind.is_telling(item)]

    def _searched(self, step: Poll, number: int, seen: Mapping[str, T]) -> None:
        still = [each for each in step.sought if self._roster.get(each) and each not in seen]
        self._map.searched(
            number,
            found=not step.sought.isdisjoint(seen),
            wanted=len(still),
            since=step.since,
            at=step.began,
        )

    def _locate(self, seen: Mapping[str, T], number: int, now: float) -> None:
        """Note who is on a page, and who isn't any more."""
        for awaited in self._roster:
            place = awaited.place
            if awaited.id in seen:
                place.page, place.near = number, None
            elif place.page == number:
                place.page, place.near, place.since = None, number, now

    def _doubt(self, doubtful: "list[Awaited[T]]", now: float) -> None:
        """Choose one whose item names no state, to be read alone: the longest not looked at."""
        if self._doubted is None:
            chosen = min(doubtful, key=lambda each: each.looked_at)
            self._doubted, chosen.due = chosen.id, now

    @property
    def doubted(self) -> str | None:
        """The awaited id that is to be read alone before the list can be used."""
        if self._doubted is not None and self._roster.get(self._doubted) is None:
            self._doubted = None  # nobody waits for it any more
        return self._doubted

    def saw_one(self, id: str, item: T | None, now: float) -> None:
        """Take in a single read, which may settle a doubt."""
        if id != self._doubted:
            return
        self._doubted = None
        if item is not None and self._kind.is_telling(item):
            self._map.leave_alone(now, _SAYS_TOO_LITTLE)
        else:
            self._map.is_trusted = True

    def failed_one(self, id: str) -> None:
        """Take in a single read that failed: another one may settle the doubt."""
        if id == self._doubted:
            self._doubted = None

    def failed(self, error: GatherError, now: float) -> bool:
        """Take in a failure of the list; tell whether it is about the list alone."""
        self._failures += 1
        if is_permanent(error) or isinstance(error, ResponseDecodeError):
            self._map.leave_alone(now, _REFUSED)
            return True
        if self._failures >= _MOST_FAILURES:
            self._failures = 0
            self._map.leave_alone(now)
        return False
