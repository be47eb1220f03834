"""What all API resources do alike: read one, list, create."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from attrs import Factory, field, frozen

from gather_async.errors import GatherError, ResponseDecodeError
from gather_async.protocol.pagination import (
    PageCounts,
    Paging,
    has_next,
    page_query,
    read_counts,
)
from gather_async.protocol.requests import Lookup, Request, path_below, path_to
from gather_async.protocol.responses import decode_item, decode_items
from gather_async.resources.pager import Page, Pager
from gather_async.session import Session
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset

__all__ = ["Catalog", "Endpoint", "Identified", "read_after_write", "with_extra"]


@contextmanager
def read_after_write(done: str) -> Iterator[None]:
    """Let no failure to read look as if the write before it had failed.

    A read that fails is safe to try again, and a short quota refuses it before anything
    is sent; a caller who took either for the write would invite somebody twice.

    Raises:
        ResponseDecodeError: Reading failed; ``maybe_processed`` is True.
    """
    try:
        yield
    except ResponseDecodeError as error:
        error.maybe_processed = True
        raise
    except GatherError as error:
        raise ResponseDecodeError(
            f"The server said that {done}, but reading it back failed with "
            f"{type(error).__name__}: read it before you do it again.",
            body="",
            path="$",
            maybe_processed=True,
        ) from error


T = TypeVar("T", bound="Identified")


class Identified(Protocol):
    """Anything the API gives an id to."""

    @property
    def id(self) -> str:
        """Opaque."""
        ...


@frozen(kw_only=True)
class Endpoint(Generic[T]):
    """One collection of the API, and how its answers are read."""

    session: Session = field(repr=False)
    model: type[T]
    path: str
    """The collection's path segment, such as ``message-groups``."""
    singular: str
    """The key of one object in ``data``, where it is nested."""
    plural: str
    """The key of a list in ``data``, where it is keyed."""
    paging: Paging = field(factory=Paging.whole)
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
        payload = await self.session.send(request, timeout=timeout)
        return decode_item(payload, self.singular, self.model)

    async def create(
        self,
        body: Mapping[str, Any],
        *,
        lookup: Callable[[], Lookup] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> T:
        """Create one object."""
        request = Request(method="POST", path=self._root, body=body, lookup=lookup)
        payload = await self.session.send(request, timeout=timeout, idempotent=idempotent)
        return decode_item(payload, self.singular, self.model, is_write=True)

    def list(
        self, query: Mapping[str, Any] | None = None, *, timeout: Timeout | Unset = UNSET
    ) -> Pager[T]:
        """Return a pager over the collection."""
        return Pager(partial(self._page, dict(query or {}), timeout, seen=frozenset[Hashable]()))

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
        number: int,
        *,
        seen: frozenset[Hashable],
    ) -> Page[T]:
        payload = await self.session.send(self.list_request(query, page=number), timeout=timeout)
        items = decode_items(payload, self.plural, self.model)
        counts: PageCounts = read_counts(payload)
        keyed = {item.id: item for item in items}
        ids = frozenset(keyed)
        return Page(
            items=tuple(item for item in keyed.values() if item.id not in seen),
            page=number,
            total=counts.total,
            has_next=has_next(self.paging, counts, page=number, ids=ids, seen=seen),
            fetch_next=partial(self._page, query, timeout, number + 1, seen=seen | ids),
        )


def with_extra(body: Mapping[str, Any], extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a body or query without what is None, and with the caller's extra as is."""
    return {**{name: value for name, value in body.items() if value is not None}, **(extra or {})}


Found = TypeVar("Found", bound=Identified)


@frozen(eq=False)
class Catalog(Generic[Found]):
    """Read one of its objects, or all."""

    _endpoint: Endpoint[Found] = field(repr=False)

    async def get(
        self,
        id: str,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> Found:
        """Read one object, with the parts that a list leaves out. Costs one request.

        Args:
            id: Its id.
            extra: Undocumented query parameters, as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.

        Raises:
            InvalidRequestError: The id is empty or could change the path.
            NotFoundError: There is none with this id.
            GatherError: The request failed.
        """
        return await self._endpoint.get(id, query=extra, timeout=timeout)

    def list(self, *, timeout: Timeout | Unset = UNSET) -> Pager[Found]:
        """List all objects.

        Args:
            timeout: Seconds for each attempt; UNSET takes the client's.
        """
        return self._endpoint.list(timeout=timeout)
