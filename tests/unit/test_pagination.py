"""Which page comes next: counts from any place, and an end for every server."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.protocol.pagination import (
    PageCounts,
    Paging,
    Progress,
    advance,
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
    page=st.none() | st.integers(min_value=0, max_value=12),
    total=st.none() | st.integers(min_value=0, max_value=10**12),
    total_pages=st.none() | st.integers(min_value=0, max_value=10**12),
    size=st.none() | st.integers(min_value=0, max_value=10**12),
)
pages = st.tuples(st.lists(st.integers(min_value=0, max_value=30), max_size=6), counts)


Server = Callable[[int], tuple[Sequence[int], PageCounts]]


def read_on(paging: Paging, server: Server, progress: Progress) -> tuple[list[int], Progress]:
    """Read to the end as the resources do; return the ids in order, and how far it came."""
    seen: dict[int, None] = {}
    while progress.has_next:
        listed, reported = server(progress.page + 1)
        ids, known = dict.fromkeys(listed), len(seen)
        seen |= ids
        progress = advance(paging, progress, reported, listed=len(ids), fresh=len(seen) - known)
    return list(seen), progress


def read_all(paging: Paging, server: Server) -> tuple[list[int], int, bool]:
    """Return the ids in order, the requests that took, and whether it is called complete."""
    ids, progress = read_on(paging, server, Progress())
    return ids, progress.page, progress.is_complete


@given(st.lists(pages, min_size=1, max_size=12), st.sampled_from([LIMIT, UNSIZED, WHOLE]))
def test_reading_ends_for_every_server_and_never_calls_too_few_complete(
    script: list[tuple[list[int], PageCounts]], paging: Paging
) -> None:
    """Whatever a server claims or repeats, it is asked finitely often, and believed least."""
    asked: list[PageCounts] = []

    def server(page: int) -> tuple[Sequence[int], PageCounts]:
        listed, reported = script[(page - 1) % len(script)]
        asked.append(reported)
        return listed, reported

    ids, requests, is_complete = read_all(paging, server)
    distinct = {each for listed, _ in script for each in listed}
    assert len(ids) == len(set(ids))
    assert set(ids) <= distinct
    assert requests <= 11 * (len(distinct) + 1)
    totals = [reported.total for reported in asked if reported.total is not None]
    if totals and len(ids) < max(totals):
        assert not is_complete


@given(
    st.integers(min_value=0, max_value=120),
    st.integers(min_value=1, max_value=20),
    st.sets(st.sampled_from(["page", "total", "total_pages", "size"])),
)
def test_an_honest_server_is_read_whole_whichever_counts_it_sends(
    items: int, size: int, reported: set[str]
) -> None:
    """No item is missed; with counts, no request is wasted."""

    def server(page: int) -> tuple[Sequence[int], PageCounts]:
        counts = {
            "page": page,
            "total": items,
            "total_pages": -(-items // size),
            "size": size,
        }
        shown = PageCounts(**{name: counts[name] for name in reported})
        return range(items)[(page - 1) * size : page * size], shown

    ids, requests, is_complete = read_all(LIMIT, server)
    assert ids == list(range(items))
    assert is_complete
    needed = max(1, -(-items // size))
    assert requests == needed if reported & {"total", "total_pages"} else requests <= needed + 1


@given(
    items=st.integers(min_value=1, max_value=60),
    size=st.integers(min_value=1, max_value=12),
    asked_size=st.integers(min_value=1, max_value=40),
    changes=st.lists(st.integers(min_value=0, max_value=25), max_size=10),
    grows=st.booleans(),
    at=st.integers(min_value=0, max_value=60),
    reported=st.sets(st.sampled_from(["page", "total_pages", "size"])),
    empty=st.sets(st.integers(min_value=1, max_value=6), max_size=3),
)
def test_nothing_is_lost_in_silence_from_a_list_that_shifts(
    *,
    items: int,
    size: int,
    asked_size: int,
    changes: list[int],
    grows: bool,
    at: int,
    reported: set[str],
    empty: set[int],
) -> None:
    """Whatever shifts, stays empty or is capped, all is read or the list isn't complete."""
    rows = list(range(items))
    news = iter(range(1000, 10_000))
    always = set(rows)

    def server(page: int) -> tuple[Sequence[int], PageCounts]:
        if page > 1 and page - 2 < len(changes):
            where, count = min(at, len(rows)), changes[page - 2]
            if grows:
                rows[where:where] = [next(news) for _ in range(count)]
            else:
                always.difference_update(rows[where : where + count])
                del rows[where : where + count]
        listed = [] if page in empty else rows[(page - 1) * size : page * size]
        counts = {
            "page": page,
            "total": len(rows),
            "total_pages": -(-len(rows) // asked_size),
            "size": asked_size,
        }
        return listed, PageCounts(**{name: counts[name] for name in reported | {"total"}})

    ids, _, is_complete = read_all(LIMIT, server)
    if is_complete:
        assert always <= set(ids)
    if not empty and not changes:
        assert is_complete


def test_an_empty_page_in_the_middle_does_not_end_the_list() -> None:
    """The counts say that there is more, so the next page is read; the gap is known."""
    listed = [[1, 2], [], [], [3, 4], [5], []]

    def server(page: int) -> tuple[Sequence[int], PageCounts]:
        return listed[page - 1], PageCounts(total=9, total_pages=5)

    assert read_all(LIMIT, server) == ([1, 2, 3, 4, 5], 6, False)


def test_a_page_full_of_rows_that_arrive_at_the_head_does_not_end_the_list() -> None:
    """Then the second page repeats the first, and the third goes on."""
    listed = [[3, 4], [3, 4], [5, 6], [7], []]

    def server(page: int) -> tuple[Sequence[int], PageCounts]:
        return listed[page - 1], PageCounts(total=5 if page == 1 else 7)

    assert read_all(LIMIT, server) == ([3, 4, 5, 6, 7], 5, False)


@pytest.mark.parametrize("told_pages", [None, 3])
@pytest.mark.parametrize("told_size", [None, 100])
def test_a_size_that_is_capped_in_silence_loses_nothing(
    told_pages: int | None, told_size: int | None
) -> None:
    """What counts is what came, not the size and pages that the server repeats."""

    def server(page: int) -> tuple[Sequence[int], PageCounts]:
        return range(300)[(page - 1) * 50 : page * 50], PageCounts(
            total=300, total_pages=told_pages, size=told_size
        )

    assert read_all(LIMIT, server) == (list(range(300)), 6, True)


def test_rows_that_are_removed_meanwhile_leave_the_list_incomplete() -> None:
    """What moved onto a page that had been read may be lost, though the last total is met."""

    def server(page: int) -> tuple[Sequence[int], PageCounts]:
        rows = range(6) if page == 1 else range(2, 6)
        return rows[(page - 1) * 2 : page * 2], PageCounts(total=len(rows))

    assert read_all(LIMIT, server) == ([0, 1, 4, 5], 2, False)


def test_items_that_shift_between_pages_are_given_once() -> None:
    """An item pushed onto the next page by a new one is not given twice."""
    shifted = [[1, 2, 3], [3, 4, 5], [5, 6], []]
    assert read_all(LIMIT, lambda page: (shifted[page - 1], PageCounts())) == (
        [1, 2, 3, 4, 5, 6],
        4,
        True,
    )


@pytest.mark.parametrize(
    ("reported", "requests"),
    [
        (PageCounts(), 2),
        (PageCounts(total=99), 3),
        (PageCounts(total_pages=99), 3),
        (PageCounts(total=99, page=1), 2),
    ],
)
def test_a_server_that_ignores_the_page_is_soon_left_alone(
    reported: PageCounts, requests: int
) -> None:
    """One page that repeats may be chance if the counts promise more; two say it all."""
    is_complete = reported == PageCounts()
    assert read_all(UNSIZED, lambda _: ([1, 2], reported)) == ([1, 2], requests, is_complete)


def test_a_full_page_that_repeats_without_counts_is_not_called_complete() -> None:
    """A server that ignores the page's number may have more than it ever shows."""
    full = range(100)
    assert read_all(LIMIT, lambda _: (full, PageCounts())) == (list(full), 2, False)
    assert read_all(LIMIT, lambda _: (full[:99], PageCounts())) == (list(full)[:99], 2, True)


def test_a_total_that_is_wrong_costs_few_requests() -> None:
    """Empty pages are passed over while the counts place anything beyond, ten at most."""

    def server(page: int) -> tuple[Sequence[int], PageCounts]:
        return [1] if page == 1 else [], PageCounts(total=10_000)

    assert read_all(LIMIT, server) == ([1], 11, False)
    counts = PageCounts(total=150, total_pages=2)
    assert read_all(LIMIT, lambda page: (range(100) if page == 1 else [], counts))[1] == 2


@pytest.mark.parametrize("counts", [PageCounts(total=0), PageCounts(total=0, total_pages=0)])
def test_counts_that_the_page_refutes_end_no_list(counts: PageCounts) -> None:
    """A total of 0 beside a hundred items is no total: the list is read to its end."""
    rows = list(range(250))
    server = lambda page: (rows[(page - 1) * 100 : page * 100], counts)  # noqa: E731
    assert read_all(LIMIT, server) == (rows, 4, True)


def test_a_list_without_paging_takes_one_request() -> None:
    """Where no paging is documented, none is asked for, unless the counts say more."""
    assert read_all(WHOLE, lambda _: ([1], PageCounts())) == ([1], 1, True)
    assert read_all(WHOLE, lambda _: ([1], PageCounts(total=1))) == ([1], 1, True)
    assert read_all(WHOLE, lambda _: ([1], PageCounts(total=5))) == ([1], 2, False)


def test_a_list_that_counts_its_pages_after_all_is_read_to_the_last() -> None:
    """A server that says that there are more pages is believed, documented or not."""
    counts = PageCounts(total=3, total_pages=3)
    assert read_all(WHOLE, lambda page: ([page], counts)) == ([1, 2, 3], 3, True)
    counts = PageCounts(total_pages=2)
    assert read_all(WHOLE, lambda page: ([page], counts)) == ([1, 2], 2, True)


@pytest.mark.parametrize(
    ("reported", "listed", "has_next"),
    [
        (PageCounts(total=300, total_pages=3), 100, False),
        (PageCounts(total=300, total_pages=4), 100, True),
        (PageCounts(total=300, size=100), 100, False),
        (PageCounts(total=301, size=100), 100, True),
        (PageCounts(total=300), 100, True),
        (PageCounts(total=300), 0, False),
        (PageCounts(), 100, True),
        (PageCounts(), 0, False),
    ],
)
def test_a_page_read_alone_relies_on_the_counts(
    reported: PageCounts, listed: int, has_next: bool
) -> None:
    """What was on the pages before it isn't known, so it never completes the list."""
    after = advance(LIMIT, Progress.before(3), reported, listed=listed, fresh=listed)
    assert (after.page, after.has_next, after.is_complete) == (3, has_next, False)


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
            PageCounts(page=1, total=120, total_pages=3, size=50),
        ),
        ({"meta": {"total": 4, "pageSize": 10}}, PageCounts(total=4, size=10)),
        ({"data": {"pagination": {"totalPages": 2}}}, PageCounts(total_pages=2)),
        ({"data": {"candidates": [], "total": 0}}, PageCounts(total=0)),
        ({"meta": {"pagination": {"total": 1}}, "data": {"total": 2}}, PageCounts(total=1)),
        ({"meta": {"pagination": {"limit": 50}}, "data": {"total": 2}}, PageCounts(total=2)),
        ({"data": [], "pagination": {"total": 3}}, PageCounts(total=3)),
        ({"data": [], "total": 3, "page": 1}, PageCounts(total=3, page=1)),
        ({"meta": {"totalCount": 3, "total_pages": 1}}, PageCounts(total=3, total_pages=1)),
        ({"meta": {"pagination": {"total": "12", "page": 2.0}}}, PageCounts(total=12, page=2)),
        ({"meta": {"pagination": {"total": "12.5"}}}, PageCounts()),
        ({"meta": {"pagination": {"total": "9" * 5000}}}, PageCounts()),
        ({"meta": {"pagination": {"total": 1e300}}}, PageCounts()),
        ({"meta": {"pagination": {"total": True}}}, PageCounts()),
        ({"meta": {"pagination": {"total": 12.5}}}, PageCounts()),
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
    reported = read_counts(payload)
    for count in (reported.total, reported.total_pages, reported.size):
        assert count is None or (type(count) is int and count >= 0)
