"""Text-to-speech narrators. Source: /api-reference/narrators."""

from attrs import define

from gather_async.models.organization import Narrator
from gather_async.resources.resource import Resource

__all__ = ["Narrators"]


@define(eq=False, slots=False)
class Narrators(Resource[Narrator]):
    """Read narrators and their voices."""
