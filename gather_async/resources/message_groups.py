"""Message groups of the organization or team. Source: /api-reference/message-groups."""

from gather_async.endpoint import Endpoint
from gather_async.models.message_group import MessageGroup
from gather_async.resources.resource import Catalog
from gather_async.session import Session

__all__ = ["message_group_catalog"]


def message_group_catalog(session: Session) -> Catalog[MessageGroup]:
    """Return what reads message groups; only single reads show their messages."""
    return Catalog(
        Endpoint(
            session=session,
            model=MessageGroup,
            path="message-groups",
            singular="messageGroup",
            plural="messageGroups",
        )
    )
