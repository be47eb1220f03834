"""Teams. Source: /api-reference/teams."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from gather_async.models.fields import Model, optional_id_tuple, wire

__all__ = ["NewTeam", "Team"]


@frozen(kw_only=True)
class Team(Model):
    """A team of the key's organization, with its branding."""

    id: str
    name: str | None = None
    display_name: str | None = field(default=None, metadata=wire("displayName"))
    description: str | None = None
    logo_url: str | None = field(default=None, metadata=wire("logoUrl"))
    accent_color: str | None = field(default=None, metadata=wire("accentColor"))
    """Hex, without the hash sign."""
    button_color: str | None = field(default=None, metadata=wire("buttonColor"))
    """Hex, without the hash sign."""
    background_image: str | None = field(default=None, metadata=wire("backgroundImage"))
    organization_id: str | None = field(default=None, metadata=wire("organizationId"))
    created_at: datetime | None = field(default=None, metadata=wire("createdAt"))
    """Aware, UTC."""
    updated_at: datetime | None = field(default=None, metadata=wire("updatedAt"))
    """Aware, UTC."""
    archived_at: datetime | None = field(default=None, metadata=wire("archivedAt"))
    """Aware, UTC; None while in use."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""


@frozen
class NewTeam:
    """A team to create.

    Raises:
        InvalidRequestError: ``user_ids`` is one text.
    """

    name: str
    display_name: str | None = None
    description: str | None = None
    user_ids: tuple[str, ...] | None = field(default=None, converter=optional_id_tuple)
    """Its first members."""
