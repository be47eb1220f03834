"""Text-to-speech narrators. Source: /api-reference/narrators."""

from collections.abc import Mapping
from typing import Any

from attrs import Factory, field, frozen

from gather_async.models.narrator import Narrator
from gather_async.resources.endpoint import Endpoint
from gather_async.resources.pager import Pager
from gather_async.session import Session
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset

__all__ = ["Narrators"]


@frozen(eq=False)
class Narrators:
    """Read the text-to-speech narrators."""

    _session: Session = field(repr=False)
    _endpoint: Endpoint[Narrator] = field(
        init=False,
        repr=False,
        default=Factory(
            lambda self: Endpoint(
                session=self._session,
                model=Narrator,
                path="narrators",
                singular="narrator",
                plural="narrators",
            ),
            takes_self=True,
        ),
    )

    async def get(
        self,
        id: str,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> Narrator:
        """Read one narrator with its voices. Costs one request.

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

    def list(self, *, timeout: Timeout | Unset = UNSET) -> Pager[Narrator]:
        """List the text-to-speech narrators, in one page: no paging is documented.

        Args:
            timeout: Seconds for each attempt; UNSET takes the client's.
        """
        return self._endpoint.list(timeout=timeout)
