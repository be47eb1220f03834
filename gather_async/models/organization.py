"""The organization and what it shares: teams, users, narrators and message groups.

Source: /api-reference/teams, /api-reference/users, /api-reference/narrators,
/api-reference/message-groups
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from gather_async.models.enums import InterviewType
from gather_async.models.fields import Model, wire
from gather_async.phone import to_e164
from gather_async.validators import check_email, id_tuple, optional_id_tuple, private_init

__all__ = [
    "Message",
    "MessageGroup",
    "Narrator",
    "NewTeam",
    "NewUser",
    "Team",
    "User",
    "Voice",
]


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


@frozen(kw_only=True)
class User(Model):
    """A member of the organization. Its ``repr`` shows no personal data."""

    id: str
    first_name: str | None = field(default=None, repr=False, metadata=wire("firstName"))
    last_name: str | None = field(default=None, repr=False, metadata=wire("lastName"))
    email: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    is_api_user: bool | None = field(default=None, metadata=wire("isApiUser"))
    """True for a user who can't enter the dashboard."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent; the user's teams are among them."""


def _optional_phone(raw: object) -> str | None:
    return None if raw is None else to_e164(raw)


@private_init
@frozen
class NewUser:
    """A user to create, checked. Its ``repr`` shows no personal data.

    Raises:
        InvalidPhoneNumberError: The phone number is not E.164.
        InvalidEmailError: The email address can't be one.
        InvalidRequestError: ``team_ids`` is one text.
    """

    first_name: str = field(repr=False)
    last_name: str = field(repr=False)
    email: str = field(repr=False, converter=check_email)
    team_ids: tuple[str, ...] = field(converter=id_tuple)
    """At least one, all in the key's organization."""
    phone: str | None = field(default=None, repr=False, converter=_optional_phone)
    create_auth0_account: bool | None = None
    """True makes a regular user; otherwise an API user without dashboard access."""


@frozen(kw_only=True)
class Voice(Model):
    """One voice of a narrator."""

    id: str
    name: str | None = None
    gender: str | None = None
    description: str | None = None
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""


@frozen(kw_only=True)
class Narrator(Model):
    """The voice that speaks a question's script."""

    id: str
    name: str | None = None
    language: str | None = None
    """Such as ``en``."""
    voices: tuple[Voice, ...] = ()
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""


@frozen(kw_only=True)
class Message(Model):
    """One template of a group."""

    id: str
    type: str | None = None
    """Such as ``INVITE``."""
    sms_body: str | None = field(default=None, metadata=wire("smsBody"))
    """May hold the placeholder ``{{link}}``."""
    sms_enabled: bool | None = field(default=None, metadata=wire("smsEnabled"))
    email_subject: str | None = field(default=None, metadata=wire("emailSubject"))
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""


@frozen(kw_only=True)
class MessageGroup(Model):
    """A set of templates that an interview uses."""

    id: str
    title: str | None = None
    status: str | None = None
    """Such as ``PUBLISHED``."""
    type: InterviewType | None = None
    default: bool | None = None
    """Whether interviews use it by default."""
    organization_id: str | None = field(default=None, metadata=wire("organizationId"))
    team_id: str | None = field(default=None, metadata=wire("teamId"))
    created_by_id: str | None = field(default=None, metadata=wire("createdById"))
    created_at: datetime | None = field(default=None, metadata=wire("createdAt"))
    """Aware, UTC."""
    updated_at: datetime | None = field(default=None, metadata=wire("updatedAt"))
    """Aware, UTC."""
    archived_at: datetime | None = field(default=None, metadata=wire("archivedAt"))
    """Aware, UTC; None while in use."""
    messages: tuple[Message, ...] = ()
    """Only the single read has them; empty in a list."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""
