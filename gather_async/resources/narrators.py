"""Text-to-speech narrators. Source: /api-reference/narrators."""

from gather_async.endpoint import Endpoint
from gather_async.models.narrator import Narrator
from gather_async.resources.resource import Catalog
from gather_async.session import Session

__all__ = ["narrator_catalog"]


def narrator_catalog(session: Session) -> Catalog[Narrator]:
    """Return what reads narrators and their voices."""
    return Catalog(
        Endpoint(
            session=session,
            model=Narrator,
            path="narrators",
            singular="narrator",
            plural="narrators",
        )
    )
