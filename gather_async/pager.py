"""Lists, page by page or item by item."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Sequence
from copy import deepcopy
from typing import Any, Generic, TypeVar

from attrs import define, evolve, field, frozen

from gather_async.errors import InvalidRequestError, ResponseDecodeError

__all__ = ["Page", "Pager", "TaskCoroutine"]

T = TypeVar("T")
_MOST_READS = 3
"""Objects of one list that are read singly; more would cost more than they can prove."""


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
    _keyless: tuple[str, ...] = field(default=(), repr=False, eq=False, alias="keyless")
    """Ids of items that don't show their keys, such as an external id."""

    @property
    def keyless(self) -> tuple[str, ...]:
        """Ids of items that don't show their keys, such as an external id, if none shows them.

        Where some do, the others have none.
        """
        return self._keyless if len(self._keyless) == len(self.items) else ()

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
        for name, value in {**state, "_fetch_next": None, "_keyless": ()}.items():
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
    _read: Callable[[str], Awaitable[T | None]] | None = field(default=None, repr=False)
    """Reads one object singly; None if that doesn't show either by what it is found."""
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

        Costs a request for each page up to the one that has it, and a few single reads
        where the list leaves out what an item is known by.

        Args:
            matches: Whether an item is the one.

        Raises:
            ResponseDecodeError: None of those that came matches, but fewer came than
                the server counts, or they don't show it, so that nothing is proven.
            GatherError: A request failed.
        """
        keyless: list[str] = []
        shows_some = False
        async for page in self.pages():
            for item in page.items:
                if matches(item):
                    return item
            keyless += page.keyless
            shows_some = shows_some or len(page.items) > len(page.keyless)
        if keyless and not shows_some:
            found = await self._find_singly(keyless, matches)
            if found is not None:
                return found
        if not self.is_complete:
            raise _unproven(
                "The list ended, and it isn't certain that everything had come",
                "$.meta.pagination.total",
            )
        return None

    async def _find_singly(self, ids: Sequence[str], matches: Callable[[T], bool]) -> T | None:
        """Return what matches of the objects that a list shows too little of."""
        for each in ids[:_MOST_READS]:
            item = None if self._read is None else await self._read(each)
            if item is None:
                break
            if matches(item):
                return item
        else:
            if len(ids) <= _MOST_READS:
                return None
        raise _unproven("The list leaves out the keys of its objects", "$.data")


def _unproven(why: str, path: str) -> ResponseDecodeError:
    return ResponseDecodeError(
        f"{why}, so what was sought may exist although it wasn't listed: try again later.",
        body="",
        path=path,
    )
