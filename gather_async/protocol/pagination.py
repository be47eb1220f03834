"""The page that comes next, if any, and whether a reading got the whole list.

The documentation shows counts for one list and paging for three, each with its
own size parameter, and no order of any list. So nothing is taken for granted: pages
may shift, be empty, or be smaller than was asked for, and a reading goes on while the
server's own counts say that there is more and the page number makes a difference.
Source: /api-reference/candidate-interviews, /api-reference/candidates, /api-reference/interviews
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

__all__ = ["PageCounts", "Paging", "Progress", "advance", "page_query", "read_counts"]

# Pages in a row without a new item that are read while the counts promise more: filters
# applied after paging empty a few, and a wrong total must not cost hundreds of requests.
_MOST_FRUITLESS = 10
# Pages in a row that repeat known items. One may: a hundred new rows at the head of the
# list push the page before down by exactly one. Two say that the number is ignored.
_MOST_REPEATED = 1


@frozen
class Paging:
    """Paging of one list."""

    size_parameter: str | None = None
    """The list's own name for the page size; None if none is documented."""
    max_size: int = 100
    is_paged: bool = True
    """False: no paging is documented, so the list comes whole, unless its response counts
    more after all."""

    @classmethod
    def whole(cls) -> "Paging":
        """Return how a list comes that documents no paging."""
        return cls(is_paged=False)


@frozen(kw_only=True)
class PageCounts:
    """Counts that a response has of its place in the list; None where it has none."""

    page: int | None = None
    total: int | None = None
    total_pages: int | None = None
    size: int | None = None


@frozen(kw_only=True)
class Progress:
    """Progress of one reading of a list, its latest page included."""

    page: int = 0
    """The latest page's number; the reading goes on with the one after it."""
    is_from_start: bool = True
    """Whether the reading began with the first page."""
    known: int = 0
    """Distinct items so far."""
    total: int | None = None
    """The largest total that any page counted: where it shrank, rows that were removed
    moved others onto pages that had been read already."""
    largest: int = 0
    """Items on the fullest page, which may be fewer than were asked for."""
    fruitless: int = 0
    """Pages without a new item since the last one with some."""
    has_next: bool = True
    """Whether there may be another page."""
    is_complete: bool = False
    """Whether everything has come that the server counts."""

    @classmethod
    def before(cls, page: int) -> "Progress":
        """Return where a reading stands that begins with this page."""
        return cls(page=page - 1, is_from_start=page == 1)


def page_query(paging: Paging, page: int) -> dict[str, int]:
    """Return the query parameters that ask for a page, the first being 1.

    The largest documented size is always asked for. Where no size is
    documented, the first page is asked for without any parameter.
    """
    query: dict[str, int] = {}
    if page > 1 or paging.size_parameter is not None:
        query["page"] = page
    if paging.size_parameter is not None:
        query[paging.size_parameter] = paging.max_size
    return query


def read_counts(payload: Any) -> PageCounts:
    """Return the counts of a list response, from wherever it keeps them.

    They are documented at ``meta.pagination`` of one list, and may sit in
    ``meta``, ``data.pagination``, ``data``, ``pagination`` or at the top of others.
    """
    meta, data = _object(payload, "meta"), _object(payload, "data")
    inner = [_object(place, "pagination") for place in (meta, data, payload)]
    for place in (inner[0], meta, inner[1], data, inner[2], payload):
        if not isinstance(place, Mapping):
            continue
        counts = PageCounts(
            page=_count(place, "page"),
            total=_first(place, _TOTALS),
            total_pages=_first(place, _PAGES),
            size=_count(place, "limit") or _count(place, "pageSize"),
        )
        if counts.total is not None or counts.total_pages is not None:
            return counts
    return PageCounts()


def advance(
    paging: Paging, before: Progress, counts: PageCounts, *, listed: int, fresh: int
) -> Progress:
    """Return how far a reading has come with one page more.

    Args:
        paging: How the list is paged.
        before: How far it had come.
        counts: What this page's response said.
        listed: Distinct items on this page.
        fresh: Those of them that were on no page before.
    """
    counts = _credible(counts, page=before.page + 1, listed=listed)
    totals = [each for each in (before.total, counts.total) if each is not None]
    after = evolve(
        before,
        page=before.page + 1,
        known=before.known + fresh,
        total=max(totals, default=None),
        largest=max(before.largest, listed),
        fruitless=0 if fresh else before.fruitless + 1,
    )
    has_next = _has_next(paging, after, counts, listed=listed)
    return evolve(
        after,
        has_next=has_next,
        is_complete=not has_next and _is_complete(paging, after, counts, listed=listed),
    )


def _credible(counts: PageCounts, *, page: int, listed: int) -> PageCounts:
    """Return the counts without those that the page itself refutes: it holds more.

    A total of 0 beside items is a field that is never filled in, and no end of the list.
    """
    if listed and counts.total is not None and counts.total < listed:
        counts = evolve(counts, total=None)
    if listed and counts.total_pages is not None and counts.total_pages < page:
        counts = evolve(counts, total_pages=None)
    return counts


def _has_next(paging: Paging, after: Progress, counts: PageCounts, *, listed: int) -> bool:
    if counts.total is None and counts.total_pages is None:
        return paging.is_paged and after.fruitless == 0
    if after.fruitless == 0:
        return _is_more_promised(after, counts)
    if listed and counts.page != after.page:
        may_repeat = paging.is_paged and counts.page is None
        return may_repeat and after.fruitless <= _MOST_REPEATED and _is_within(after, counts)
    return after.fruitless < _MOST_FRUITLESS and _is_within(after, counts)


def _is_more_promised(after: Progress, counts: PageCounts) -> bool:
    """Return whether the counts say that items are missing."""
    if counts.total_pages is not None and after.page < counts.total_pages:
        return True
    if counts.total is None:
        return False
    if after.is_from_start:
        # Not by the size: servers repeat what was asked for, and send fewer.
        return after.known < counts.total
    return counts.total_pages is None and (
        not counts.size or after.page * counts.size < counts.total
    )


def _is_within(after: Progress, counts: PageCounts) -> bool:
    """Return whether the counts place anything on pages after this one."""
    pages = counts.total_pages or 0
    if counts.total is not None and after.largest:
        pages = max(pages, -(-counts.total // after.largest))
    return after.page < pages


def _is_complete(paging: Paging, after: Progress, counts: PageCounts, *, listed: int) -> bool:
    """Return whether a reading that is over got everything."""
    if not after.is_from_start:
        return False
    if after.total is not None:
        return after.known >= after.total
    if counts.total_pages is not None:
        return after.page >= counts.total_pages
    # Without counts, a full page that repeats may be all that a server ever shows.
    return paging.size_parameter is None or listed < paging.max_size


def _object(value: Any, key: str) -> Mapping[str, Any]:
    inner = value.get(key) if isinstance(value, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


_TOTALS = ("total", "totalCount", "total_count")
_PAGES = ("totalPages", "total_pages")
_LARGEST_COUNT = 1e15  # a float has it exactly
_LONGEST_COUNT = 15  # digits


def _first(place: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    counts = (_count(place, key) for key in keys)
    return next((each for each in counts if each is not None), None)


def _count(place: Mapping[str, Any], key: str) -> int | None:
    """Return a count, which some databases and languages write as text or with a fraction."""
    value = place.get(key)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value) if len(value) <= _LONGEST_COUNT else None
    elif isinstance(value, float) and value.is_integer() and value < _LARGEST_COUNT:
        value = int(value)
    return value if type(value) is int and value >= 0 else None
