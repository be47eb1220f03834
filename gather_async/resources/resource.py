"""The base of the resources: reads, alone and after a write."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from attrs import define, field

from gather_async.endpoint import Endpoint, Identified
from gather_async.errors import GatherError, ResponseDecodeError
from gather_async.pager import Pager
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset

__all__ = ["Resource", "read_after_write"]


@contextmanager
def read_after_write(done: str) -> Iterator[None]:
    """Report a failed read after a write as such, not as a failure of the write.

    A read that fails is safe to try again, and a short quota refuses it before anything
    is sent; a caller who took either for the write would invite a person twice.

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


Found = TypeVar("Found", bound=Identified)


@define(eq=False, slots=False)
class Resource(Generic[Found]):
    """One kind of object that the API lets read: one by its id, all as a list."""

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
            GatherConnectionError: The connection failed.
            GatherTimeoutError: A deadline passed.
            GatherAPIError: The server answered with another error.
            ResponseDecodeError: The response makes no sense.
            QuotaWaitError: The quota has no room within ``max_wait``.
        """
        return await self._endpoint.get(id, query=extra, timeout=timeout)

    def list(self, *, timeout: Timeout | Unset = UNSET) -> Pager[Found]:
        """List all objects.

        Args:
            timeout: Seconds for each attempt; UNSET takes the client's.
        """
        return self._endpoint.list(timeout=timeout)
