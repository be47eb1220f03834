"""Who is there already: asked one by one, or read from the server's list once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, field, frozen

from gather_async.bulk.journal import Journal
from gather_async.bulk.outcome import LookupCosts, LookupStrategy, choose_strategy
from gather_async.pager import Page, Pager

__all__ = ["ExistingIndex", "ExistingRecord"]

_PAGE_SIZE = 100


@frozen
class ExistingRecord:
    """Somebody, or something, that is there."""

    id: str
    opted_in: bool | None = None
    """Whether the person agreed to text messages, as far as the server says."""


@define(eq=False, kw_only=True)
class ExistingIndex:
    """Finds by key whichever way costs fewer requests, and remembers a list on disk."""

    kind: str
    """Tells apart the directories of one journal."""
    journal: Journal
    look: Callable[[str], Awaitable[ExistingRecord | None]]
    """Asks the server about one key."""
    pager: Callable[[], Pager[Any]]
    """Asks the server for everything."""
    read: Callable[[Any], tuple[str | None, ExistingRecord]]
    """Returns an item's key, None if it has none, and what it is."""
    to_look: Callable[[], int | None]
    """Returns how many keys are still to come, as far as known."""
    choice: LookupStrategy = LookupStrategy.UNDECIDED
    looked: int = 0
    """Keys asked about one by one so far."""
    _page: Page[Any] | None = None
    _pages_left: int | None = None
    _is_read: bool = False
    _is_whole: bool = False
    _turn: asyncio.Lock = field(factory=asyncio.Lock)

    async def find(self, key: str) -> ExistingRecord | None:
        """Return who has the key; None if nobody.

        Raises:
            GatherError: The server could not be asked; ask again later.
        """
        if not self._is_read:
            async with self._turn:
                await self._decide()
        if self.choice is LookupStrategy.LIST:
            found = await self.journal.recall(self.kind, key)
            if found is not None:
                return ExistingRecord(*found)
            if self._is_whole:
                return None
            # Less came than the server counts, so absence from the list proves nothing.
        self.looked += 1
        return await self.look(key)

    def requests_left(self) -> int:
        """Return how many requests are still to come, as far as known."""
        if self.choice is LookupStrategy.LIST:
            return 0 if self._is_read else self._pages_left or 0
        return self.to_look() or 0

    async def _decide(self) -> None:
        """Choose again, now that more is known; read the list if that is the choice."""
        if self._is_read:
            return
        to_look = self.to_look()
        if self._page is None and to_look is not None and to_look <= 1:
            self.choice = LookupStrategy.EACH
            return
        if self._page is None:
            self._page = await self.pager()
            self._pages_left = _pages_after(self._page)
            await self._remember(self._page)
        self.choice = choose_strategy(
            LookupCosts(looked=self.looked, to_look=to_look, pages_left=self._pages_left)
        )
        if self.choice is LookupStrategy.LIST:
            await self._read_on(self._page)

    async def _read_on(self, page: Page[Any]) -> None:
        """Read the pages that are left; what fails goes on from there the next time."""
        while (following := await page.next()) is not None:
            await self._remember(following)
            self._page = page = following
            self._pages_left = max(0, (self._pages_left or 0) - 1)
        self._is_read, self._is_whole = True, page.is_complete
        self._page = None  # with what it knows of the items it has shown

    async def _remember(self, page: Page[Any]) -> None:
        items = [self.read(item) for item in page.items]
        await self.journal.remember(
            self.kind, [(key, it.id, it.opted_in) for key, it in items if key is not None]
        )


def _pages_after(page: Page[Any]) -> int | None:
    """Return how many pages follow the first; None if the server doesn't say."""
    if not page.has_next:
        return 0
    if page.total is None:
        return None
    size = max(1, min(_PAGE_SIZE, len(page.items)))
    return -(-page.total // size) - 1
