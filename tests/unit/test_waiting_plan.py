"""Which request tells most: a page of the list, or one read."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.waiting.list_index import ListMap, ReadOne, ReadPage, next_step, poll_cost
from gather_async.waiting.registry import Sought


class Simulated:
    """A list at the server, and a look at everything awaited."""

    def __init__(self, ids: list[str], size: int, *, counts: bool = True, paged: bool = True):
        self.ids, self.size, self.counts, self.paged = ids, size, counts, paged
        self.map = ListMap()
        self.now = 0.0
        self.pages = self.singles = 0

    def sweep(self, awaited: list[Sought]) -> int:
        """Look at everything once; return the requests that it took."""
        before = self.pages + self.singles
        due = {each.id: each for each in awaited}
        while due:
            on = Counter(each.page for each in awaited if each.page is not None)
            usable = self.map if self.map.is_usable(self.now) else None
            step = next_step(list(due.values()), on, usable, busy_pages=set(), is_searching=False)
            self.now += 0.1
            if isinstance(step, ReadOne):
                self.singles += 1
                del due[step.id]
            else:
                assert isinstance(step, ReadPage)
                self._read(step, awaited, due)
        return self.pages + self.singles - before

    def _read(self, step: ReadPage, awaited: list[Sought], due: dict[str, Sought]) -> None:
        self.pages += 1
        number = step.number if self.paged else 1
        shown = set(self.ids[(number - 1) * self.size : number * self.size])
        total = len(self.ids) if self.counts else None
        has_next = step.number * self.size < len(self.ids) if self.counts else bool(shown)
        lost = [each for each in due.values() if each.page is None]
        self.map.saw(step.number, shown, total=total, has_next=has_next, at=self.now)
        for each in awaited:
            if each.id in shown:
                each.page, each.near = step.number, None
            elif each.page == step.number:
                each.page, each.near, each.since = None, step.number, self.now
        if step.is_search:
            still = [each for each in lost if each.id not in shown]
            self.map.searched(
                step.number,
                found=len(still) < len(lost),
                wanted=len(still),
                since=max(each.since for each in lost),
                at=self.now,
            )
        for name in shown:
            due.pop(name, None)


def sought(ids: list[str]) -> list[Sought]:
    """Return these ids, not located."""
    return [Sought(each, since=0.0) for each in ids]


def names(count: int) -> list[str]:
    """Return ids."""
    return [f"q{number}" for number in range(count)]


def test_one_awaited_object_is_read_alone() -> None:
    """A single object is never looked for in the list."""
    world = Simulated(names(1000), 50)
    assert world.sweep(sought(["q7"])) == 1
    assert world.singles == 1


@pytest.mark.parametrize("counts", [True, False])
def test_a_whole_list_costs_its_pages(counts: bool) -> None:
    """Awaiting everything costs one request a page, from the first look on."""
    world, awaited = Simulated(names(400), 50, counts=counts), sought(names(400))
    assert world.sweep(awaited) == 8
    assert world.sweep(awaited) == 8
    assert world.singles == 0


@pytest.mark.parametrize("newest_first", [True, False])
def test_new_objects_are_found_at_either_end_of_a_long_list(newest_first: bool) -> None:
    """Awaiting the newest 100 of 10 000 reads their pages, and few others, once."""
    ids = names(10_000)
    newest = ids[-100:]
    world = Simulated(ids[::-1] if newest_first else ids, 50)
    awaited = sought(newest)
    assert world.sweep(awaited) <= 5
    assert world.sweep(awaited) == 2


def test_a_list_that_ignores_the_page_number_is_one_page() -> None:
    """Where every page is the first one, it is not read under other numbers for long."""
    world = Simulated(names(300), 100, counts=False, paged=False)
    awaited = sought(names(300))
    first = world.sweep(awaited)
    assert world.map.pages == 1
    assert first <= 100 / 100 + 1 + 200
    assert world.sweep(awaited) == 201


def test_a_list_without_the_awaited_is_given_up() -> None:
    """A list that shows none of them costs a few pages, then each is read alone."""
    world = Simulated([f"other{number}" for number in range(5000)], 50)
    awaited = sought(names(40))
    assert world.sweep(awaited) <= 40 + 9
    assert world.sweep(awaited) == 40


def test_an_empty_list_is_left_alone_after_a_few_searches() -> None:
    """A list that never shows anything is no longer searched for newcomers."""
    world = Simulated([], 50)
    for batch in range(5):
        fresh = [Sought(f"b{batch}-{number}", since=world.now + 0.05) for number in range(4)]
        world.sweep(fresh)
    assert world.pages == 3
    assert not world.map.is_usable(world.now)
    assert world.map.is_usable(world.now + 700)


def test_a_shifted_list_costs_only_its_neighbours() -> None:
    """New items at the front move some to the next page, where they are found at once."""
    ids = names(200)
    world, awaited = Simulated(list(ids), 50), sought(ids)
    world.sweep(awaited)
    world.ids = [f"new{number}" for number in range(5)] + ids
    assert world.sweep(awaited) <= 6
    assert {each.page for each in awaited} == {1, 2, 3, 4, 5}
    assert world.sweep(awaited) <= 5


@given(
    total=st.integers(1, 600),
    size=st.integers(1, 100),
    wanted=st.integers(1, 80),
    missing=st.integers(0, 20),
    counts=st.booleans(),
    paged=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_looking_ends_and_never_costs_much_more_than_single_reads(
    *, total: int, size: int, wanted: int, missing: int, counts: bool, paged: bool, seed: int
) -> None:
    """Whatever the list does, a look costs at most the single reads and a short search."""
    rng = random.Random(seed)
    ids = names(total)
    awaited = sought(rng.sample(ids, min(wanted, total)) + [f"gone{n}" for n in range(missing)])
    world = Simulated(ids, size, counts=counts, paged=paged)
    first = world.sweep(awaited)
    assert first <= 2 * len(awaited) + 10
    settled = world.sweep(awaited)
    on = Counter(each.page for each in awaited if each.page is not None)
    assert settled <= max(first, poll_cost(on, len(awaited)) + 10)
    if paged and not missing and len(awaited) > 1:
        assert settled <= math.ceil(total / size) + 10 or settled <= len(awaited)


def test_pages_under_way_answer_for_their_objects() -> None:
    """What is being read with a page isn't asked for again, and only one search runs."""
    located = [Sought("a", since=0.0, page=3), Sought("b", since=0.0, page=3)]
    lost = [Sought("c", since=0.0), Sought("d", since=0.0)]
    step = next_step([*located, *lost], {3: 2}, ListMap(), busy_pages={3}, is_searching=True)
    assert step is None


def test_without_a_list_everything_is_read_alone() -> None:
    """Where the list is unusable, the most urgent object comes first."""
    due = [Sought("a", since=0.0, page=3), Sought("b", since=0.0, page=3)]
    step = next_step(due, {}, None, busy_pages=set(), is_searching=False)
    assert step == ReadOne("a")


def test_a_page_being_read_is_not_searched_as_well() -> None:
    """What is lost waits for the page under way, instead of asking for it once more."""
    lost = [Sought("a", since=0.0), Sought("b", since=0.0)]
    assert next_step(lost, {}, ListMap(), busy_pages=set(), is_searching=False) == ReadPage(
        1, is_search=True
    )
    assert next_step(lost, {}, ListMap(), busy_pages={1}, is_searching=False) is None
