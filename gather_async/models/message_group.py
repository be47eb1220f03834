"""Message groups: the texts of invites and reminders. Source: /api-reference/message-groups."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from gather_async.models.enums import InterviewType
from gather_async.models.fields import Model, wire

__all__ = ["Message", "MessageGroup"]


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
