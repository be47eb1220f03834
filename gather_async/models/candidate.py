"""Candidates, each one's invites to interviews, and their results.

Source: /api-reference/candidates, /api-reference/candidate-interviews, /guides/sending-invites
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from gather_async.models.enums import CandidateInterviewStatus, EvaluationType, SummaryStatus
from gather_async.models.fields import Model, wire
from gather_async.phone import to_e164
from gather_async.validators import check_email, private_init

__all__ = ["Candidate", "CandidateInterview", "InterviewResults", "NewCandidate"]


@frozen(kw_only=True)
class Candidate(Model):
    """A person who can be invited. Its ``repr`` shows no personal data."""

    id: str
    first_name: str | None = field(default=None, repr=False, metadata=wire("firstName"))
    last_name: str | None = field(default=None, repr=False, metadata=wire("lastName"))
    email: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    """As the server has it; E.164 if this package created the candidate."""
    external_id: str | None = field(default=None, metadata=wire("externalId"))
    """The caller's own reference."""
    timezone: str | None = None
    """An IANA name, such as ``America/New_York``."""
    sms_opt_in: bool | None = field(default=None, metadata=wire("smsOptIn"))
    """Must be True for an SMS invite. Source: /guides/sending-invites."""
    resume_url: str | None = field(default=None, repr=False, metadata=wire("resumeUrl"))
    linked_in_url: str | None = field(default=None, repr=False, metadata=wire("linkedInURL"))
    source: str | None = None
    """Where the record came from; ``api`` in the documentation's example."""
    created_at: datetime | None = field(default=None, metadata=wire("createdAt"))
    """Aware, UTC."""
    updated_at: datetime | None = field(default=None, metadata=wire("updatedAt"))
    """Aware, UTC."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""


def _phone(raw: str) -> str:  # mypy's plugin takes no decorated function as a converter
    return to_e164(raw)


@private_init
@frozen
class NewCandidate:
    """A candidate to create, checked. Its ``repr`` shows no personal data.

    The phone number is normalised to E.164 under the default policy, so
    ``+1 (202) 555-0123`` becomes ``+12025550123``. For another policy or
    national numbers, pass the fields to ``candidates.create`` of a client that
    has ``phone_policy`` or ``default_region``.

    Raises:
        InvalidPhoneNumberError: The phone number is not E.164.
        InvalidEmailError: The email address can't be one.
    """

    first_name: str = field(repr=False)
    last_name: str = field(repr=False)
    email: str = field(repr=False, converter=check_email)
    phone: str = field(repr=False, converter=_phone)
    external_id: str | None = None
    """The caller's own reference; lets a lost response be looked up. Recommended."""
    timezone: str | None = None
    """An IANA name, such as ``America/New_York``."""
    sms_opt_in: bool | None = None
    """True if the person agreed to text messages; needed for SMS invites."""


@frozen(kw_only=True)
class CandidateInterview(Model):
    """One candidate's invite to one interview. Its ``repr`` hides the invite token."""

    id: str
    candidate_id: str | None = field(default=None, metadata=wire("candidateId"))
    interview_id: str | None = field(default=None, metadata=wire("interviewId"))
    status: CandidateInterviewStatus | None = None
    invite_token: str | None = field(default=None, repr=False, metadata=wire("inviteToken"))
    """Part of the candidate's personal link: it is enough to answer as them."""
    expiry: datetime | None = None
    """When the link dies; aware, UTC."""
    invite_sent_at: datetime | None = field(default=None, metadata=wire("inviteSentAt"))
    """Aware, UTC; None if no invite was sent."""
    external_id: str | None = field(default=None, metadata=wire("externalId"))
    created_at: datetime | None = field(default=None, metadata=wire("createdAt"))
    """Aware, UTC."""
    updated_at: datetime | None = field(default=None, metadata=wire("updatedAt"))
    """Aware, UTC."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""


@frozen(kw_only=True)
class InterviewResults(Model):
    """Results of one candidate's interview. Parts fill in over time.

    Only three fields are documented; transcriptions, scores and ratings are
    in ``extra``, under the names the server gives them.
    """

    summary_status: SummaryStatus | None = field(default=None, metadata=wire("summaryStatus"))
    summary: Any = field(default=None, repr=False, hash=False)
    """None until made; stays None for ``pre-summary-feature`` and ``error``. Type undocumented."""
    score_card: Mapping[str, Any] | None = field(
        default=None, repr=False, hash=False, metadata=wire("scoreCard")
    )
    """None if the feature is off or nothing is evaluated yet."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""

    @property
    def evaluation_type(self) -> EvaluationType | None:
        """Who evaluated, if the score card says so; its place there is an inference."""
        word = (self.score_card or {}).get("evaluationType")
        return EvaluationType(word) if isinstance(word, str) else None
