"""The list of what is awaited: where everybody is, and whether it can be believed."""

from collections import Counter
from collections.abc import Mapping
from typing import Generic, TypeVar

from attrs import define

from gather_async.errors import GatherError, ResponseDecodeError
from gather_async.waiting.conditions import Kind, Listed
from gather_async.waiting.failures import is_final
from gather_async.waiting.list_index import ListMap, ReadOne, ReadPage, cost_of_a_look
from gather_async.waiting.registry import Roster
from gather_async.waiting.waiter import Awaited

__all__ = ["Listing", "Step"]

T = TypeVar("T")
_SAYS_TOO_LITTLE = 3600.0  # seconds until a list that lacks the state is tried again
_REFUSED = 900.0  # seconds until a list that answers 4xx, or nonsense, is tried again
_MOST_FAILURES = 3  # of the list in a row, while single reads may work


@define(eq=False)
class Step:
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

    def __init__(self, kind: Kind[T], roster: Roster[T]) -> None:
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

    def cost_of_a_look(self, now: float) -> int:
        """Return the requests that one look at everything awaited takes."""
        moved: Counter[int] = Counter()
        for each in self._roster:
            near = each.place.near
            # What was read alone since then has left the list, for all that is known.
            if near is not None and each.looked_at <= each.place.since:
                moved[near] += 1
        return cost_of_a_look(
            self.awaited_on(now), len(self._roster), moved if self.map(now) else None
        )

    def pages_for(self, count: int) -> int:
        """Return how many pages that many items fill at least; 0 while unknown."""
        return self._map.pages_for(count)

    def saw(
        self, step: Step, page: ReadPage, listed: Listed[T], now: float
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

    def _searched(self, step: Step, number: int, seen: Mapping[str, T]) -> None:
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
        if is_final(error) or isinstance(error, ResponseDecodeError):
            self._map.leave_alone(now, _REFUSED)
            return True
        if self._failures >= _MOST_FAILURES:
            self._failures = 0
            self._map.leave_alone(now)
        return False
