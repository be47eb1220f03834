"""Lists, page by page or item by item."""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from attrs import field, frozen

__all__ = ["Page", "Pager"]

T = TypeVar("T")


@frozen(kw_only=True)
class Page(Generic[T]):
    """One page of a list."""

    items: tuple[T, ...]
    """Without those that an earlier page had: pages may shift while they are read."""
    page: int
    """This page's number; the first is 1."""
    total: int | None
    """Items in the whole list; None if the server doesn't say."""
    has_next: bool
    """Whether there may be another page. The last one may turn out to be empty where
    the server gives no counts."""
    _fetch_next: "Callable[[], Awaitable[Page[T]]]" = field(
        repr=False, eq=False, alias="fetch_next"
    )

    async def next(self) -> "Page[T] | None":
        """Return the next page, at the cost of one request; None if there is none.

        Raises:
            GatherError: As for the first page.
        """
        return await self._fetch_next() if self.has_next else None


@frozen(eq=False)
class Pager(Generic[T]):
    """A list that was asked for and not yet read.

    ``await pager`` reads the first page. ``async for item in pager`` reads every
    page as it gets there, and gives each item once. Each use starts anew.
    """

    _fetch: Callable[[int], Awaitable[Page[T]]] = field(repr=False)

    def __await__(self) -> Generator[Any, None, Page[T]]:
        return self._fetch(1).__await__()

    async def page(self, number: int) -> Page[T]:
        """Return one page alone, at the cost of one request.

        Nothing is known then of the pages before it: its items may have been on them,
        and ``has_next`` relies on the server's counts.

        Args:
            number: From 1. A page beyond the end is empty, unless the server ignores
                the number and gives the first page again.

        Raises:
            GatherError: As for the first page.
        """
        return await self._fetch(number)

    async def __aiter__(self) -> AsyncIterator[T]:
        page: Page[T] | None = await self._fetch(1)
        while page is not None:
            for item in page.items:
                yield item
            page = await page.next()

    async def pages(self) -> AsyncIterator[Page[T]]:
        """Give every page, each at the cost of one request.

        Raises:
            GatherError: As for the first page.
        """
        page: Page[T] | None = await self._fetch(1)
        while page is not None:
            yield page
            page = await page.next()
