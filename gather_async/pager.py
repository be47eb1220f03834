"""Lists, page by page or item by item."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from copy import deepcopy
from typing import Any, Generic, TypeVar

from attrs import define, evolve, field, frozen

from gather_async.errors import InvalidRequestError, ResponseDecodeError

__all__ = ["Page", "Pager", "TaskCoroutine"]

T = TypeVar("T")


class TaskCoroutine(Coroutine[Any, Any, T]):
    """An awaitable that tasks run as it is: `asyncio.create_task` takes coroutines alone.

    Unlike a coroutine it can be awaited again, and by many tasks: each task that steps it
    runs an ``__await__`` of its own.
    """

    _runs: dict[asyncio.Task[Any] | None, Generator[Any, None, T]]

    def send(self, value: Any) -> Any:
        """Go on with the current task's run, which begins here if there is none."""
        return self._step(lambda run: run.send(value))

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """Raise an error where the current task's run stands."""
        return self._step(lambda run: run.throw(kind if value is None else value))

    def close(self) -> None:
        """End the current task's run, if there is one."""
        run = self._runs.pop(asyncio.current_task(), None)
        if run is not None:
            run.close()

    def _step(self, step: Callable[[Generator[Any, None, T]], Any]) -> Any:
        task = asyncio.current_task()
        run = self._runs.get(task)
        if run is None:
            run = self._runs[task] = self.__await__()
        try:
            return step(run)
        except BaseException:  # StopIteration has the result; a run that raised is over, too
            del self._runs[task]
            raise


@frozen(kw_only=True)
class Page(Generic[T]):
    """One page of a list.

    It can be pickled and copied. What comes out of a pickle has no client, so that
    its ``next`` raises; a copy in the same process goes on as the original does.
    """

    items: tuple[T, ...]
    """Without those that an earlier page had: pages may shift while they are read."""
    page: int
    """This page's number; the first is 1."""
    total: int | None
    """Items in the whole list; None if the server doesn't say."""
    has_next: bool
    """Whether there may be another page. The last one may turn out to be empty where
    the server gives no counts."""
    is_complete: bool = False
    """Whether this page and those before it are everything that the server counts. False
    on the last page: the list ended early or shifted while it was read, so that nothing
    can be concluded from what is absent."""
    request_id: str | None = field(default=None, repr=False, eq=False)
    """The id of the request that returned this page; None if the server gave none."""
    _fetch_next: "Callable[[], Awaitable[Page[T]]] | None" = field(
        default=None, repr=False, eq=False, alias="fetch_next"
    )

    async def next(self) -> "Page[T] | None":
        """Return the next page, at the cost of one request; None if there is none.

        Raises:
            InvalidRequestError: The page was pickled, and has no client any more.
            GatherError: As for the first page.
        """
        if not self.has_next:
            return None
        if self._fetch_next is None:
            raise InvalidRequestError(
                "A page that was pickled has no client: "
                f"ask for page {self.page + 1} with `await client....list().page(...)`."
            )
        return await self._fetch_next()

    def __getstate__(self) -> dict[str, Any]:
        names = ("items", "page", "total", "has_next", "is_complete")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in {**state, "_fetch_next": None}.items():
            object.__setattr__(self, name, value)

    def __copy__(self) -> "Page[T]":
        return evolve(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Page[T]":
        return evolve(self, items=deepcopy(self.items, memo))


@define(eq=False)
class Pager(TaskCoroutine[Page[T]], Generic[T]):
    """A list that was asked for and not yet read.

    ``await pager`` reads the first page. ``async for item in pager`` reads every
    page as it gets there, and gives each item once. Each use starts anew.
    """

    _fetch: Callable[[int], Awaitable[Page[T]]] = field(repr=False)
    is_complete: bool = field(default=False, init=False)
    """Whether the latest reading, as far as it got, has everything that the server counts:
    see `Page.is_complete`."""
    _runs: dict[asyncio.Task[Any] | None, Generator[Any, None, Page[T]]] = field(
        factory=dict, init=False, repr=False
    )

    def __await__(self) -> Generator[Any, None, Page[T]]:
        return self.page(1).__await__()

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
        page = await self._fetch(number)
        self.is_complete = page.is_complete
        return page

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.items:
                yield item

    async def pages(self) -> AsyncIterator[Page[T]]:
        """Give every page, each at the cost of one request.

        Raises:
            GatherError: As for the first page.
        """
        page: Page[T] | None = await self.page(1)
        while page is not None:
            self.is_complete = page.is_complete
            yield page
            page = await page.next()

    async def find(self, matches: Callable[[T], bool]) -> T | None:
        """Return the first item that matches; None if the whole list has none.

        Costs a request for each page up to the one that has it.

        Args:
            matches: Whether an item is the one.

        Raises:
            ResponseDecodeError: None of those that came matches, but fewer came than
                the server counts, so that nothing is proven.
            GatherError: A request failed.
        """
        async for item in self:
            if matches(item):
                return item
        if not self.is_complete:
            raise ResponseDecodeError(
                "The list ended before everything had come that the server counts, so what "
                "was sought may exist although it wasn't listed: try again later.",
                body="",
                path="$.meta.pagination.total",
            )
        return None
