"""A collection that can only be read, in one page: no paging is documented."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from gather_async.resources.endpoint import Endpoint, Identified
from gather_async.resources.pager import Pager
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset

__all__ = ["Catalog"]

T = TypeVar("T", bound=Identified)


@frozen(eq=False)
class Catalog(Generic[T]):
    """Read one of its objects, or all."""

    _endpoint: Endpoint[T] = field(repr=False)

    async def get(
        self,
        id: str,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> T:
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

    def list(self, *, timeout: Timeout | Unset = UNSET) -> Pager[T]:
        """List all objects.

        Args:
            timeout: Seconds for each attempt; UNSET takes the client's.
        """
        return self._endpoint.list(timeout=timeout)
