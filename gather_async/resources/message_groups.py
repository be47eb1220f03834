"""Message groups of the organization or team. Source: /api-reference/message-groups."""

from attrs import define

from gather_async.models.organization import MessageGroup
from gather_async.resources.resource import Resource

__all__ = ["MessageGroups"]


@define(eq=False, slots=False)
class MessageGroups(Resource[MessageGroup]):
    """Read message groups; only single reads show their messages."""
