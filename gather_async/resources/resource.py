"""The base of the resources: reads, bodies, and reading after a write."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from attrs import define, field

from gather_async.endpoint import Endpoint, Identified
from gather_async.errors import GatherError, InvalidRequestError, ResponseDecodeError
from gather_async.pager import Pager
from gather_async.protocol.requests import validate_id
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset

__all__ = ["Private", "Resource", "make", "read_after_write", "with_extra"]

Made = TypeVar("Made")


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


class Private(dict[str, Any]):
    """A body, or what one is made of; its ``repr`` shows the names alone."""

    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"


def make(model: Callable[[], Made]) -> Made:
    """Return what a caller's arguments make; the frames of a refusal show none of them.

    Raises:
        InvalidRequestError: They are not those that the model takes.
        GatherError: The model refused one of them.
    """
    try:
        return model()
    except TypeError as error:
        problem = str(error)
    except GatherError as refused:
        raise refused.with_traceback(None)  # noqa: B904 - the same error
    raise InvalidRequestError(f"{problem}.")


def with_extra(body: Mapping[str, Any], extra: Mapping[str, Any] | None) -> Private:
    """Return a body or query without what is None, and with the caller's extra as is.

    Raises:
        InvalidRequestError: What should be an id is no text.
    """
    given = Private()
    for name, value in body.items():
        if value is None:
            continue
        if type(value) is not str:  # text is a good id, and nearly always what there is
            if name.endswith("Id"):
                validate_id(name, value)
            elif name.endswith("Ids"):
                for each in value:
                    validate_id(f"Each of {name}", each)
        given[name] = value
    if extra:
        given.update(extra)
    return given


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
