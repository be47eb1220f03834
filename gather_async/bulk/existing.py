"""Index of people and invites that exist: asked one by one, or read from a list once."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

from attrs import define, field, frozen

from gather_async.bulk.journal import Journal
from gather_async.bulk.row_state import JobStatistics
from gather_async.models.candidate import Candidate, CandidateInterview
from gather_async.pager import Page, Pager
from gather_async.resources import CandidateInterviews, Candidates

__all__ = [
    "ExistingIndex",
    "ExistingRecord",
    "KeysLeft",
    "LookupCosts",
    "LookupStrategy",
    "choose_strategy",
]


class LookupStrategy(StrEnum):
    """The way in which people who are there already are found."""

    NONE = "none"
    """No person of the source can be there: the server has none yet, or those who are
    invited to the interview are all in the journal."""
    UNDECIDED = "undecided"
    """It depends on the length of the server's list, which isn't known yet."""
    EACH = "each"
    """One request for each row."""
    LIST = "list"
    """The server's list, read once in pages of 100."""


@frozen
class KeysLeft:
    """Number of keys still to come, as far as known."""

    own: int | None
    """Those that others may have given too; None if unknown."""
    derived: int | None
    """Those that only such a job makes; None if unknown."""

    @property
    def total(self) -> int | None:
        """All of them; None if unknown."""
        return None if self.own is None or self.derived is None else self.own + self.derived

    @classmethod
    def of(cls, rows: JobStatistics) -> "KeysLeft":
        """Return how many people are to be asked for, by how their external id came to be.

        Rows that weren't read yet are taken to be like those that were.
        """
        if rows.total is None:
            has_derived = rows.own_ids < rows.read
            return cls(own=None, derived=None if has_derived else 0)
        own = round(rows.unread * (rows.own_ids / rows.read)) if rows.read else 0
        return cls(
            own=rows.own_ids_waiting + own,
            derived=rows.derived_waiting + rows.unread - own,
        )


@frozen(kw_only=True)
class LookupCosts:
    """Facts known when choosing."""

    looked: int
    """Single look-ups made so far."""
    to_look: int | None
    """Single look-ups still to come; None if unknown."""
    pages_left: int | None
    """Pages of the list still to read; None if the server doesn't say how many."""


def choose_strategy(costs: LookupCosts) -> LookupStrategy:
    """Return the cheaper way from here on.

    With the number of rows unknown, look-ups go on until they have cost as
    much as the rest of the list would; so the sum is never above twice the best.
    """
    if costs.pages_left is None:
        return LookupStrategy.EACH
    if costs.to_look is not None:
        return LookupStrategy.LIST if costs.pages_left < costs.to_look else LookupStrategy.EACH
    return LookupStrategy.LIST if costs.looked >= costs.pages_left else LookupStrategy.EACH


_PAGE_SIZE = 100


@frozen
class ExistingRecord:
    """A person, or an invite, that is there."""

    id: str
    opted_in: bool | None = None
    """Whether the person agreed to text messages, as far as the server says."""
    email: str | None = field(default=None, repr=False)
    """The person's address; None if the server didn't say, or it is not remembered."""


@define(eq=False, kw_only=True)
class ExistingIndex:
    """Finds by key whichever way costs fewer requests, and remembers a list on disk."""

    kind: str
    """The name of the index in its journal."""
    journal: Journal
    look: Callable[[str], Awaitable[ExistingRecord | None]]
    """Asks the server about one key."""
    pager: Callable[[], Pager[Any]]
    """Asks the server for everything."""
    read: Callable[[Any], tuple[str | None, ExistingRecord]]
    """Returns an item's key, None if it has none, and what it is."""
    to_look: Callable[[], KeysLeft]
    """Returns how many keys are still to come."""
    is_all_ours: Callable[[], Awaitable[bool]] | None = None
    """Asks, with one request, whether all that is there is known to this journal, so that
    derived keys of rows that weren't sent can't be there."""
    choice: LookupStrategy = LookupStrategy.UNDECIDED
    looked: int = 0
    """Keys asked about one by one so far."""
    _page: Page[Any] | None = None
    _pages_left: int | None = None
    _is_read: bool = False
    _is_whole: bool = False
    """Whether what the list didn't show isn't there."""
    _shows_keys: bool | None = None
    """Whether any of the list's items shows its key; None while there are no items."""
    _all_ours: bool | None = None
    _turn: asyncio.Lock = field(factory=asyncio.Lock)

    @classmethod
    def of_people(
        cls,
        candidates: Candidates,
        invites: CandidateInterviews,
        journal: Journal,
        interview_id: str,
        rows: JobStatistics,
    ) -> "ExistingIndex":
        """Return the index of people, by external id."""

        async def look(external_id: str) -> ExistingRecord | None:
            found = await candidates.find_by_external_id(external_id)
            return None if found is None else _person(found)

        async def is_all_ours() -> bool:
            page = await invites.list(interview_id=interview_id)
            invited = page.total
            if invited is None and not page.has_next:
                invited = len(page.items)
            return invited is not None and invited <= await journal.count_invited()

        return cls(
            kind="people",
            journal=journal,
            look=look,
            pager=candidates.list,
            read=lambda person: (person.external_id, _person(person)),
            to_look=lambda: KeysLeft.of(rows),
            is_all_ours=is_all_ours,
        )

    @classmethod
    def of_invites(
        cls, invites: CandidateInterviews, journal: Journal, interview_id: str
    ) -> "ExistingIndex":
        """Return the index of those who are invited to the interview, by candidate id."""

        def key_of(item: CandidateInterview) -> str | None:
            return item.candidate_id if item.interview_id == interview_id else None

        async def look(candidate_id: str) -> ExistingRecord | None:
            pager = invites.list(candidate_id=candidate_id, interview_id=interview_id)
            found = await pager.find(lambda item: key_of(item) == candidate_id)
            return None if found is None else ExistingRecord(found.id)

        return cls(
            kind="invited",
            journal=journal,
            look=look,
            pager=lambda: invites.list(interview_id=interview_id),
            read=lambda item: (key_of(item), ExistingRecord(item.id)),
            to_look=lambda: KeysLeft(own=None, derived=0),
        )

    async def find(self, key: str, *, is_derived: bool = False) -> ExistingRecord | None:
        """Return what has the key; None if nothing has.

        Args:
            key: What to look for.
            is_derived: Whether only such a job makes this key.

        Raises:
            GatherError: The server could not be asked; ask again later.
        """
        if not self._is_read:
            async with self._turn:
                await self._decide(is_derived)
        if is_derived and self._all_ours:
            return None
        if self._is_read:
            found = await self.journal.cached(self.kind, key)
            if found is not None or self._is_whole:
                return None if found is None else ExistingRecord(*found)
        self.looked += 1
        return await self.look(key)

    def requests_left(self) -> int:
        """Return how many requests are still to come, as far as known."""
        if self._is_read and self._is_whole:
            return 0
        if self.choice is LookupStrategy.LIST:
            return self._pages_left or 0
        left = self.to_look()
        if self._all_ours:
            return left.own or 0
        if self.choice is LookupStrategy.EACH:
            return left.total or 0
        # For derived keys one request mostly shows that there is nothing to be found.
        return (left.own or 0) + bool(left.derived)

    async def _decide(self, is_derived: bool) -> None:
        """Choose again, now that more is known; read the list if that is the choice."""
        if self._is_read:
            return
        left = self.to_look()
        if self._may_ask(left) and await self.journal.count_invited():
            # A job that goes on knows its own people: one request shows if there are others.
            await self._ask_if_all_ours()
        if not (is_derived and self._all_ours):
            await self._choose(left)
            if self._may_ask(left) and self._is_dear(left):
                await self._ask_if_all_ours()
                if self._all_ours and not is_derived:
                    await self._choose(left)
        if self._all_ours and is_derived:
            self.choice = self.choice if left.own else LookupStrategy.NONE
        elif self.choice is LookupStrategy.LIST and self._page is not None:
            await self._read_on(self._page)

    async def _choose(self, left: KeysLeft) -> None:
        """Choose the cheaper way; the list's first page shows how long it is."""
        to_look = left.own if self._all_ours else left.total
        if self._page is None and to_look is not None and to_look <= 1:
            self.choice = LookupStrategy.EACH
            return
        if self._page is None:
            self._page = await self.pager()
            self._pages_left = _pages_after(self._page)
            await self._cache(self._page)
        self.choice = choose_strategy(
            LookupCosts(looked=self.looked, to_look=to_look, pages_left=self._pages_left)
        )

    def _may_ask(self, left: KeysLeft) -> bool:
        return self.is_all_ours is not None and self._all_ours is None and left.derived != 0

    def _is_dear(self, left: KeysLeft) -> bool:
        """Return whether the choice costs more than 1 % of the requests that are left.

        A row costs two writes.
        """
        if self.choice is LookupStrategy.LIST:
            return (self._pages_left or 0) > 0.02 * (left.total or 0)
        return left.total is None or left.total > 1

    async def _ask_if_all_ours(self) -> None:
        assert self.is_all_ours is not None  # noqa: S101 - as `_may_ask` has it
        self._all_ours = await self.is_all_ours()

    async def _read_on(self, page: Page[Any]) -> None:
        """Read the pages that are left; what fails goes on from there the next time."""
        while (following := await page.next()) is not None:
            await self._cache(following)
            self._page = page = following
            self._pages_left = max(0, (self._pages_left or 0) - 1)
        self._is_read = True
        self._is_whole = page.is_complete and self._shows_keys is not False
        self._page = None  # with what it knows of the items it has shown

    async def _cache(self, page: Page[Any]) -> None:
        if page.items:
            self._shows_keys = self._shows_keys or not page.keyless
        items = [self.read(item) for item in page.items]
        await self.journal.cache_listed(
            self.kind, [(key, it.id, it.opted_in) for key, it in items if key is not None]
        )


def _person(candidate: Candidate) -> ExistingRecord:
    return ExistingRecord(candidate.id, candidate.sms_opt_in, candidate.email)


def _pages_after(page: Page[Any]) -> int | None:
    """Return how many pages follow the first; None if the server doesn't say."""
    if not page.has_next:
        return 0
    if page.total is None:
        return None
    size = max(1, min(_PAGE_SIZE, len(page.items)))
    return -(-page.total // size) - 1
