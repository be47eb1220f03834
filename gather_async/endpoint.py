"""One collection of the API under the options of one session: read one, list, create."""

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from attrs import Factory, field, frozen

from gather_async.errors import NotFoundError, ResponseDecodeError
from gather_async.models.candidate import Candidate, CandidateInterview
from gather_async.models.interview import Interview
from gather_async.models.question import Question
from gather_async.pager import Page, Pager
from gather_async.protocol.pagination import (
    PageCounts,
    Paging,
    Progress,
    advance,
    page_query,
    read_counts,
)
from gather_async.protocol.requests import Lookup, Private, Request, path_below, path_to
from gather_async.protocol.responses import (
    decode_item,
    decode_items,
    find_list,
    find_object,
    request_id_of,
)
from gather_async.session import Session
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset

if TYPE_CHECKING:
    from gather_async.models.organization import MessageGroup, Narrator, Team, User

__all__ = [
    "Endpoint",
    "Identified",
    "candidate_interviews_endpoint",
    "candidates_endpoint",
    "interviews_endpoint",
    "message_groups_endpoint",
    "narrators_endpoint",
    "questions_endpoint",
    "teams_endpoint",
    "users_endpoint",
]

T = TypeVar("T", bound="Identified")
Part = TypeVar("Part")


class Identified(Protocol):
    """Anything the API gives an id to."""

    @property
    def id(self) -> str:
        """Opaque."""
        ...


@frozen(kw_only=True)
class Endpoint(Generic[T]):
    """One collection of the API, and how its responses are read."""

    session: Session = field(repr=False)
    model: type[T]
    path: str
    """The collection's path segment, such as ``message-groups``."""
    singular: str
    """The key of one object in ``data``, where it is nested."""
    plural: str
    """The key of a list in ``data``, where it is keyed."""
    paging: Paging = field(factory=Paging.whole)
    keys: tuple[str, ...] = ()
    """Wire names of what an object is found by; one that doesn't show them may be any."""
    has_all_keys: bool = True
    """Whether each object has them, so that null shows nothing either."""
    _root: str = field(
        init=False,
        repr=False,
        default=Factory(lambda self: path_to(self.path), takes_self=True),
    )

    async def get(
        self,
        id: str,
        *,
        query: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> T:
        """Read one object."""
        request = Request(method="GET", path=path_below(self._root, id), query=query or {})
        return await self.session.send(request, decode=partial(self._decode, id), timeout=timeout)

    def _decode(self, id: str, payload: Any) -> T:
        """Return the object that was asked for.

        Raises:
            ResponseDecodeError: There is none, or another one.
        """
        item = decode_item(payload, self.singular, self.model)
        if item.id != id and item.id.casefold() != id.casefold():
            raise self._mixed_up()
        return item

    def _mixed_up(self) -> ResponseDecodeError:
        return ResponseDecodeError(
            f"GET {self._root}: the response holds another object than the one asked for, "
            "at $.data.id: a proxy or the server mixes up responses.",
            body="",
            path="$.data.id",
        )

    async def get_part(
        self,
        id: str,
        name: str,
        model: type[Part],
        *,
        query: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> Part:
        """Read what belongs to one object, such as its ``results``."""
        path = path_to(self.path, id, name)
        request = Request(method="GET", path=path, query=query or {})

        def decode(payload: Any) -> Part:
            part = decode_item(payload, name, model)
            owner = getattr(part, "extra", {}).get(f"{self.singular}Id")
            if owner is not None and str(owner).casefold() != id.casefold():
                raise self._mixed_up()
            return part

        return await self.session.send(request, decode=decode, timeout=timeout)

    async def create(
        self,
        body: Mapping[str, Any],
        *,
        lookup: Callable[[], Lookup] | None = None,
        key: Hashable = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> T:
        """Create one object; ``key`` lets `get_created` find it again."""
        request = Request(method="POST", path=self._root, body=body, lookup=lookup)
        created = await self.session.send(
            request,
            decode=lambda payload: decode_item(payload, self.singular, self.model, is_write=True),
            timeout=timeout,
            idempotent=idempotent,
        )
        self.session.created.add(created.id, None if key is None else (self.path, key))
        return created

    async def get_created(self, key: Hashable, *, timeout: Timeout | Unset = UNSET) -> T | None:
        """Read the object that this client created last under a key, before a list shows it.

        Returns:
            None if it created none, or it is gone.
        """
        created_id = self.session.created.find((self.path, key))
        if created_id is None:
            return None
        try:
            return await self.get(created_id, timeout=timeout)
        except NotFoundError:
            return None

    def turn(self, key: Hashable) -> asyncio.Lock:
        """Return the lock of those who look for an object and would create it."""
        return self.session.created.turn((self.path, key))

    def lookup(
        self,
        filter: Mapping[str, Any],
        *,
        sent: Mapping[str, Any] | None = None,
        before: Collection[str] | None = None,
    ) -> Lookup:
        """Return how a created object of unknown fate is found; see `Lookup` for the arguments."""
        return Lookup(
            request=self.list_request(filter),
            read=lambda each: Request(method="GET", path=path_below(self._root, each)),
            plural=self.plural,
            singular=self.singular,
            model=self.model,
            filter=filter,
            sent=sent or {},
            before=before,
        )

    def list(
        self, query: Mapping[str, Any] | None = None, *, timeout: Timeout | Unset = UNSET
    ) -> Pager[T]:
        """Return a pager over the collection."""
        query = Private(query or {})  # error reporters print the locals of frames
        return Pager(
            lambda number: self._page(query, timeout, Progress.before(number), {}),
            lambda each: self._get_shown(each, timeout),
        )

    async def _get_shown(self, id: str, timeout: Timeout | Unset) -> T | None:
        """Read one object; None if it doesn't show its keys either, or is gone."""

        def decode(payload: Any) -> T | None:
            item = self._decode(id, payload)
            shown, _ = find_object(payload, self.singular, self.model)
            return None if self._keyless([shown]) else item

        request = Request(method="GET", path=path_below(self._root, id))
        try:
            return await self.session.send(request, decode=decode, timeout=timeout)
        except NotFoundError:
            return None

    def _keyless(self, shown: Sequence[Mapping[str, Any]]) -> frozenset[str]:
        """Return the ids of those objects that leave out one of their keys, or garble it."""
        fit = {str} if self.has_all_keys else {str, type(None)}
        columns = [[each.get(name, ...) for each in shown] for name in self.keys]
        if all(fit.issuperset(map(type, column)) for column in columns):
            return frozenset()  # nearly always, and a page has a hundred
        rows = zip(shown, *columns, strict=True)
        return frozenset(
            [each["id"] for each, *keys in rows if not fit.issuperset(map(type, keys))]
        )

    def list_request(self, query: Mapping[str, Any], *, page: int = 1) -> Request:
        """Return the request of one page."""
        return Request(
            method="GET",
            path=self._root,
            query={**page_query(self.paging, page), **query},
        )

    async def _page(
        self,
        query: Mapping[str, Any],
        timeout: Timeout | Unset,
        before: Progress,
        first_on: dict[str, int],
    ) -> Page[T]:
        """Read the page after ``before``.

        ``first_on`` has the page on which each item of this reading was first seen. All its
        pages share it: a set of each page's own would grow with the square of the list.
        """
        number, is_beyond = before.page + 1, False
        request = self.list_request(query, page=number)
        try:
            found, counts, request_id, keyless = await self.session.send(
                request, decode=self.read_page, timeout=timeout
            )
        except NotFoundError:
            if number == 1 or before.known < (before.total or 0):
                raise
            # Some frameworks say so of a page beyond the end, which others give empty.
            found, counts, request_id, keyless = (), PageCounts(), None, frozenset()
            is_beyond = True
        listed = {item.id: item for item in found}
        # Not before this page: one that is read a second time gives the same items.
        items = tuple(
            [item for key, item in listed.items() if first_on.setdefault(key, number) >= number]
        )
        after = advance(self.paging, before, counts, listed=len(listed), fresh=len(items))
        return Page(
            items=items,
            page=number,
            total=counts.total,
            has_next=after.has_next,
            # A gateway may say it, too: without counts it proves nothing.
            is_complete=after.is_complete and not (is_beyond and after.total is None),
            request_id=request_id,
            keyless=tuple([item.id for item in items if item.id in keyless]),
            fetch_next=partial(self._page, query, timeout, after, first_on),
        )

    def read_page(
        self, payload: Any
    ) -> tuple[tuple[T, ...], PageCounts, str | None, frozenset[str]]:
        """Return a list response's items, counts, request id, and the ids of keyless items.

        Raises:
            ResponseDecodeError: There is no array, or one of its items doesn't fit.
        """
        items = decode_items(payload, self.plural, self.model)
        keyless = self._keyless(find_list(payload, self.plural)[0])
        return items, read_counts(payload), request_id_of(payload), keyless


def questions_endpoint(session: Session) -> Endpoint[Question]:
    """Return the questions. Source: /api-reference/questions."""
    return Endpoint(
        session=session,
        model=Question,
        path="questions",
        singular="question",
        plural="questions",
        paging=Paging(),
    )


def interviews_endpoint(session: Session) -> Endpoint[Interview]:
    """Return the interviews. Source: /api-reference/interviews."""
    return Endpoint(
        session=session,
        model=Interview,
        path="interviews",
        singular="interview",
        plural="interviews",
        paging=Paging(size_parameter="limit"),
    )


def candidates_endpoint(session: Session) -> Endpoint[Candidate]:
    """Return the candidates. Source: /api-reference/candidates."""
    return Endpoint(
        session=session,
        model=Candidate,
        path="candidates",
        singular="candidate",
        plural="candidates",
        paging=Paging(size_parameter="pageSize"),
        keys=("externalId",),
        has_all_keys=False,
    )


def candidate_interviews_endpoint(session: Session) -> Endpoint[CandidateInterview]:
    """Return the candidate interviews. Source: /api-reference/candidate-interviews."""
    return Endpoint(
        session=session,
        model=CandidateInterview,
        path="candidate-interviews",
        singular="candidateInterview",
        plural="candidateInterviews",
        paging=Paging(size_parameter="limit"),
        keys=("candidateId", "interviewId"),
    )


def narrators_endpoint(session: Session) -> "Endpoint[Narrator]":
    """Return the narrators. Source: /api-reference/narrators."""
    from gather_async.models.organization import Narrator  # noqa: PLC0415 - as `models` does

    return Endpoint(
        session=session, model=Narrator, path="narrators", singular="narrator", plural="narrators"
    )


def message_groups_endpoint(session: Session) -> "Endpoint[MessageGroup]":
    """Return the message groups. Source: /api-reference/message-groups."""
    from gather_async.models.organization import MessageGroup  # noqa: PLC0415 - as `models` does

    return Endpoint(
        session=session,
        model=MessageGroup,
        path="message-groups",
        singular="messageGroup",
        plural="messageGroups",
    )


def teams_endpoint(session: Session) -> "Endpoint[Team]":
    """Return the teams. Source: /api-reference/teams."""
    from gather_async.models.organization import Team  # noqa: PLC0415 - as `models` does

    return Endpoint(session=session, model=Team, path="teams", singular="team", plural="teams")


def users_endpoint(session: Session) -> "Endpoint[User]":
    """Return the users. Source: /api-reference/users."""
    from gather_async.models.organization import User  # noqa: PLC0415 - as `models` does

    return Endpoint(session=session, model=User, path="users", singular="user", plural="users")
