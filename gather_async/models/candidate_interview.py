"""Candidate interviews: one candidate's invite to one interview, and its results.

Source: /api-reference/candidate-interviews, /guides/sending-invites
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from gather_async.models.enums import CandidateInterviewStatus, EvaluationType, SummaryStatus
from gather_async.models.fields import Model, wire

__all__ = ["CandidateInterview", "InterviewResults"]


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
