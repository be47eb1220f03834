"""Interviews. Source: /api-reference/interviews."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from gather_async.models.enums import InterviewStatus, InterviewType
from gather_async.models.fields import Model, wire

__all__ = ["BulkUpdateResult", "Interview", "InterviewQuestion"]


@frozen(kw_only=True)
class InterviewQuestion(Model):
    """A question's place in an interview."""

    id: str
    title: str | None = None
    ordinal: int | None = None
    """Position; the first is 1."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""


@frozen(kw_only=True)
class Interview(Model):
    """An interview that candidates can be invited to."""

    id: str
    title: str | None = None
    display_name: str | None = field(default=None, metadata=wire("displayName"))
    """What candidates see."""
    interview_type: InterviewType | None = field(default=None, metadata=wire("interviewType"))
    status: InterviewStatus | None = None
    """Read from edition A's word or edition B's number 0 to 3 alike."""
    status_code: int | None = None
    """The number, if the server sent one; None if it sent a word."""
    description: str | None = None
    language: str | None = None
    """Such as ``en``."""
    questions: tuple[InterviewQuestion, ...] = ()
    created_at: datetime | None = field(default=None, metadata=wire("createdAt"))
    """Aware, UTC."""
    updated_at: datetime | None = field(default=None, metadata=wire("updatedAt"))
    """Aware, UTC."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""


@frozen(kw_only=True)
class BulkUpdateResult(Model):
    """Result of a bulk update. Source: /api-reference/interviews-bulk-update."""

    success: bool | None = None
    """None if the server's word for it can't be read."""
    updated_count: int | None = field(default=None, metadata=wire("updatedCount"))
    """Interviews changed; None if the server doesn't say."""
    errors: tuple[Any, ...] = field(default=(), hash=False)
    """One entry for each interview that was not; the entries' form is undocumented."""
    template_interview_id: str | None = field(default=None, metadata=wire("templateInterviewId"))
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""

    @property
    def is_complete(self) -> bool:
        """Whether everything was changed: the server may answer 200 to a partial failure."""
        return self.success is True and not self.errors and "errors" not in self.extra
