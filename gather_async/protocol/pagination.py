"""Which page comes next, if any, whatever the server says about its pages.

The documentation shows counts for one list and paging for three, each with its
own size parameter, so a reader goes on until the counts, an empty page or a
page without anything new says that it is over.
Source: /api-reference/candidate-interviews, /api-reference/candidates, /api-reference/interviews
"""

from collections.abc import Hashable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from attrs import frozen

__all__ = ["PageCounts", "Paging", "has_next", "page_query", "read_counts"]


@frozen
class Paging:
    """How one list is paged."""

    size_parameter: str | None = None
    """The list's own name for the page size; None if none is documented."""
    max_size: int = 100
    is_paged: bool = True
    """False: no paging is documented, so the list comes whole, unless its answer counts
    pages after all."""

    @classmethod
    def whole(cls) -> "Paging":
        """Return how a list comes that documents no paging."""
        return cls(is_paged=False)


@frozen(kw_only=True)
class PageCounts:
    """What an answer says of its place in the list; None where it doesn't say."""

    total: int | None = None
    total_pages: int | None = None
    size: int | None = None


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
    """Return the counts of a list answer, from wherever it keeps them.

    They are documented at ``meta.pagination`` of one list, and may sit in
    ``meta``, ``data.pagination`` or ``data`` of others.
    """
    meta, data = _object(payload, "meta"), _object(payload, "data")
    for place in (_object(meta, "pagination"), meta, _object(data, "pagination"), data):
        counts = PageCounts(
            total=_count(place, "total"),
            total_pages=_count(place, "totalPages"),
            size=_count(place, "limit") or _count(place, "pageSize"),
        )
        if counts.total is not None or counts.total_pages is not None:
            return counts
    return PageCounts()


def has_next(
    paging: Paging,
    counts: PageCounts,
    *,
    page: int,
    ids: AbstractSet[Hashable],
    seen: AbstractSet[Hashable],
) -> bool:
    """Return whether there may be a page after this one.

    Args:
        paging: How the list is paged.
        counts: What this page's answer said.
        page: This page's number, from 1.
        ids: The ids on this page.
        seen: The ids on the pages before it.
    """
    if ids <= seen or (not paging.is_paged and counts.total_pages is None):
        return False
    if counts.total_pages is not None:
        return page < counts.total_pages
    if counts.total is not None:
        if counts.size:
            return page * counts.size < counts.total
        return len(ids | seen) < counts.total
    return True


def _object(value: Any, key: str) -> Mapping[str, Any]:
    inner = value.get(key) if isinstance(value, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _count(place: Mapping[str, Any], key: str) -> int | None:
    value = place.get(key)
    return value if type(value) is int and value >= 0 else None
