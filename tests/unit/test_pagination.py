"""Which page comes next: counts from any place, and an end for every server."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.protocol.pagination import (
    PageCounts,
    Paging,
    has_next,
    page_query,
    read_counts,
)

LIMIT = Paging(size_parameter="limit")
UNSIZED = Paging()
WHOLE = Paging.whole()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["meta", "data", "pagination", "total", "totalPages", "limit"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
counts = st.builds(
    PageCounts,
    total=st.none() | st.integers(min_value=0, max_value=10**12),
    total_pages=st.none() | st.integers(min_value=0, max_value=10**12),
    size=st.none() | st.integers(min_value=0, max_value=10**12),
)
pages = st.tuples(st.lists(st.integers(min_value=0, max_value=30), max_size=6), counts)


def read_all(
    paging: Paging, server: Callable[[int], tuple[Sequence[int], PageCounts]]
) -> tuple[list[int], int]:
    """Read as the resources do; return the ids in order and how many requests that took."""
    seen: frozenset[int] = frozenset()
    given_ids: list[int] = []
    page = 1
    while True:
        listed, told = server(page)
        given_ids += [each for each in dict.fromkeys(listed) if each not in seen]
        ids = frozenset(listed)
        if not has_next(paging, told, page=page, ids=ids, seen=seen):
            return given_ids, page
        seen |= ids
        page += 1


@given(st.lists(pages, min_size=1, max_size=12), st.sampled_from([LIMIT, UNSIZED, WHOLE]))
def test_reading_ends_for_every_server_and_gives_each_id_once(
    script: list[tuple[list[int], PageCounts]], paging: Paging
) -> None:
    """Each page but the last brings a new id, whatever the server claims or repeats."""

    def server(page: int) -> tuple[Sequence[int], PageCounts]:
        return script[(page - 1) % len(script)]

    ids, requests = read_all(paging, server)
    distinct = {each for listed, _ in script for each in listed}
    assert len(ids) == len(set(ids))
    assert set(ids) <= distinct
    assert requests <= len(distinct) + 1


@given(
    st.integers(min_value=0, max_value=120),
    st.integers(min_value=1, max_value=20),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_an_honest_server_is_read_whole_whichever_counts_it_sends(
    items: int, size: int, total: bool, total_pages: bool, told_size: bool
) -> None:
    """No item is missed; with counts, no request is wasted."""
    told = PageCounts(
        total=items if total else None,
        total_pages=-(-items // size) if total_pages else None,
        size=size if told_size else None,
    )

    def server(page: int) -> tuple[Sequence[int], PageCounts]:
        return range(items)[(page - 1) * size : page * size], told

    ids, requests = read_all(LIMIT, server)
    assert ids == list(range(items))
    needed = max(1, -(-items // size))
    assert requests == needed if total or total_pages else requests <= needed + 1


def test_items_that_shift_between_pages_are_given_once() -> None:
    """An item pushed onto the next page by a new one is not given twice."""
    shifted = [[1, 2, 3], [3, 4, 5], [5, 6], []]
    ids, requests = read_all(LIMIT, lambda page: (shifted[page - 1], PageCounts()))
    assert ids == [1, 2, 3, 4, 5, 6]
    assert requests == 4


@pytest.mark.parametrize("told", [PageCounts(), PageCounts(total=99), PageCounts(total_pages=99)])
def test_a_server_that_ignores_the_page_is_asked_twice_at_most(told: PageCounts) -> None:
    """A page that repeats is the end, even if the counts promise more."""
    assert read_all(UNSIZED, lambda _: ([1, 2], told)) == ([1, 2], 2)


def test_a_list_without_paging_takes_one_request() -> None:
    """Where no paging is documented, none is asked for."""
    assert read_all(WHOLE, lambda _: ([1], PageCounts(total=5))) == ([1], 1)


def test_a_list_that_counts_its_pages_after_all_is_read_to_the_last() -> None:
    """A server that says that there are more pages is believed, documented or not."""
    counts = PageCounts(total=3, total_pages=3)
    assert read_all(WHOLE, lambda page: ([page], counts)) == ([1, 2, 3], 3)


@pytest.mark.parametrize(
    ("paging", "page", "query"),
    [
        (LIMIT, 1, {"page": 1, "limit": 100}),
        (LIMIT, 7, {"page": 7, "limit": 100}),
        (Paging(size_parameter="pageSize", max_size=20), 1, {"page": 1, "pageSize": 20}),
        (UNSIZED, 1, {}),
        (UNSIZED, 2, {"page": 2}),
        (WHOLE, 1, {}),
        (WHOLE, 2, {"page": 2}),
    ],
)
def test_a_page_is_asked_for_in_the_lists_own_words(
    paging: Paging, page: int, query: dict[str, int]
) -> None:
    """Only documented parameters are sent, and the largest size is asked for."""
    assert page_query(paging, page) == query


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            {"meta": {"pagination": {"page": 1, "limit": 50, "total": 120, "totalPages": 3}}},
            PageCounts(total=120, total_pages=3, size=50),
        ),
        ({"meta": {"total": 4, "pageSize": 10}}, PageCounts(total=4, size=10)),
        ({"data": {"pagination": {"totalPages": 2}}}, PageCounts(total_pages=2)),
        ({"data": {"candidates": [], "total": 0}}, PageCounts(total=0)),
        ({"meta": {"pagination": {"total": 1}}, "data": {"total": 2}}, PageCounts(total=1)),
        ({"meta": {"pagination": {"limit": 50}}, "data": {"total": 2}}, PageCounts(total=2)),
        ({"meta": {"pagination": {"total": "12"}}}, PageCounts()),
        ({"meta": {"pagination": {"total": True}}}, PageCounts()),
        ({"meta": {"pagination": {"total": 12.0}}}, PageCounts()),
        ({"meta": {"pagination": {"total": -1}}}, PageCounts()),
        ({"meta": {"pagination": {"total": 5, "limit": 0}}}, PageCounts(total=5)),
        ({"meta": {"requestId": "r"}, "data": [1, 2]}, PageCounts()),
        ({"meta": None, "data": None}, PageCounts()),
        ({"meta": "x", "data": "y"}, PageCounts()),
        ([], PageCounts()),
        (None, PageCounts()),
    ],
)
def test_counts_are_read_from_wherever_they_are(payload: Any, expected: PageCounts) -> None:
    """The documented place goes first; what is no count is ignored."""
    assert read_counts(payload) == expected


@given(json_values)
def test_any_json_gives_counts_that_are_counts(payload: Any) -> None:
    """No answer makes reading the counts fail."""
    told = read_counts(payload)
    for count in (told.total, told.total_pages, told.size):
        assert count is None or (type(count) is int and count >= 0)
