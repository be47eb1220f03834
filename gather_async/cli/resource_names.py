"""The resources as the command line names them."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gather_async.client import GatherClient

__all__ = ["RESOURCES", "ResourceName"]


@frozen
class ResourceName:
    """One resource.

    Attributes:
        attribute: Its name on a client.
        columns: What a table shows of an item, the id first.
        has_get: Whether the API reads a single one.
    """

    attribute: str
    columns: tuple[str, ...]
    has_get: bool = True

    def of(self, gather: GatherClient) -> Any:
        """Return the resource of a client."""
        return getattr(gather, self.attribute)


RESOURCES: Mapping[str, ResourceName] = {
    "questions": ResourceName("questions", ("id", "title", "audio_state")),
    "interviews": ResourceName("interviews", ("id", "title", "interview_type", "status")),
    "candidates": ResourceName("candidates", ("id", "external_id", "first_name", "last_name")),
    "candidate-interviews": ResourceName(
        "candidate_interviews", ("id", "candidate_id", "interview_id", "status")
    ),
    "narrators": ResourceName("narrators", ("id", "name", "language")),
    "message-groups": ResourceName("message_groups", ("id", "title", "status", "type")),
    "teams": ResourceName("teams", ("id", "name", "display_name"), has_get=False),
    "users": ResourceName("users", ("id", "first_name", "last_name"), has_get=False),
}
