"""Message groups. Source: /api-reference/message-groups."""

from collections.abc import Mapping
from typing import Any

from attrs import Factory, field, frozen

from gather_async.models.message_group import MessageGroup
from gather_async.resources.endpoint import Endpoint
from gather_async.resources.pager import Pager
from gather_async.session import Session
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset

__all__ = ["MessageGroups"]


@frozen(eq=False)
class MessageGroups:
    """Read the message groups of the organization or team."""

    _session: Session = field(repr=False)
    _endpoint: Endpoint[MessageGroup] = field(
        init=False,
        repr=False,
        default=Factory(
            lambda self: Endpoint(
                session=self._session,
                model=MessageGroup,
                path="message-groups",
                singular="messageGroup",
                plural="messageGroups",
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
    ) -> MessageGroup:
        """Read one message group with its messages. Costs one request.

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

    def list(self, *, timeout: Timeout | Unset = UNSET) -> Pager[MessageGroup]:
        """List the organization's or team's message groups, in one page: none is documented.

        Args:
            timeout: Seconds for each attempt; UNSET takes the client's.
        """
        return self._endpoint.list(timeout=timeout)
