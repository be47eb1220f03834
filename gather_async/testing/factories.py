"""Ready-made objects for tests that need no server.

Each takes changes as keyword arguments; each call gives other ids. Names, emails
and phone numbers are ones that no person has.
"""

import itertools
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from gather_async.models import (
    Candidate,
    CandidateInterview,
    CandidateInterviewStatus,
    Interview,
    InterviewResults,
    InterviewStatus,
    InterviewType,
    NewCandidate,
    Question,
    SummaryStatus,
)
from gather_async.protocol.signatures import SIGNATURE_HEADER
from gather_async.webhooks import sample

__all__ = [
    "make_candidate",
    "make_candidate_interview",
    "make_delivery",
    "make_interview",
    "make_new_candidate",
    "make_new_candidates",
    "make_question",
    "make_results",
]

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_numbers = itertools.count(1)


def make_new_candidate(number: int = 0, **changes: Any) -> NewCandidate:
    """Return a candidate to create; one number always gives the same person.

    >>> make_new_candidate(7).external_id
    'person-7'

    Args:
        number: Which person, from 0.
        **changes: Fields of `NewCandidate` to replace.
    """
    fields: dict[str, Any] = {
        "first_name": "Person",
        "last_name": str(number),
        "email": f"person-{number}@example.com",
        "phone": f"+120255501{number % 100:02d}",  # kept free for fiction
        "external_id": f"person-{number}",
        "sms_opt_in": True,
    }
    return NewCandidate(**fields | changes)


def make_new_candidates(count: int, **changes: Any) -> Iterator[NewCandidate]:
    """Return persons 0, 1, 2, ... one by one, so that a million cost no memory."""
    return (make_new_candidate(number, **changes) for number in range(count))


def make_question(**changes: Any) -> Question:
    """Return a question whose audio is ready.

    >>> make_question(transcription_status="processing", audio_url=None).audio_state.name
    'PROCESSING'
    """
    fields: dict[str, Any] = {
        "id": _new_id("question"),
        "title": "Strengths",
        "question_script": "What are your strengths?",
        "audio_url": "https://audio.invalid/strengths.mp3",
        "transcription_status": "complete",
        "created_at": _NOW,
        "updated_at": _NOW,
    }
    return Question(**fields | changes)


def make_interview(**changes: Any) -> Interview:
    """Return an interview without questions."""
    fields: dict[str, Any] = {
        "id": _new_id("interview"),
        "title": "Engineer",
        "display_name": "Engineer",
        "interview_type": InterviewType.STANDARD,
        "status": InterviewStatus.ACTIVE,
        "language": "en",
        "created_at": _NOW,
        "updated_at": _NOW,
    }
    return Interview(**fields | changes)


def make_candidate(number: int = 0, **changes: Any) -> Candidate:
    """Return the candidate that the server makes of `make_new_candidate` of this number."""
    new = make_new_candidate(number)
    fields: dict[str, Any] = {
        "id": _new_id("candidate"),
        "first_name": new.first_name,
        "last_name": new.last_name,
        "email": new.email,
        "phone": new.phone,
        "external_id": new.external_id,
        "sms_opt_in": new.sms_opt_in,
        "source": "api",
        "created_at": _NOW,
        "updated_at": _NOW,
    }
    return Candidate(**fields | changes)


def make_candidate_interview(**changes: Any) -> CandidateInterview:
    """Return a candidate interview whose invite is out."""
    fields: dict[str, Any] = {
        "id": _new_id("candidate-interview"),
        "candidate_id": _new_id("candidate"),
        "interview_id": _new_id("interview"),
        "status": CandidateInterviewStatus.INVITE_SENT,
        "invite_sent_at": _NOW,
        "created_at": _NOW,
        "updated_at": _NOW,
    }
    return CandidateInterview(**fields | changes)


def make_results(**changes: Any) -> InterviewResults:
    """Return results whose summary is there."""
    fields: dict[str, Any] = {
        "summary": "The candidate answered every question.",
        "summary_status": SummaryStatus.COMPLETE,
    }
    return InterviewResults(**fields | changes)


def make_delivery(
    event: str,
    secret: str,
    data: Mapping[str, Any] | None = None,
    *,
    at: datetime | None = None,
) -> tuple[bytes, dict[str, str]]:
    """Return a signed webhook delivery, body and headers, for an endpoint of one's own.

    Args:
        event: Such as ``candidate_interview.completed``.
        secret: The secret that the endpoint knows.
        data: The event's data; None makes some up, as `gather_async.webhooks.sample` does.
        at: When the event happened and was signed, aware; None: now.
    """
    delivery = sample(event, secret=secret, data=data, at=at)
    headers = {"Content-Type": "application/json"}
    return delivery.body, headers | {"X-Qualifi-Signature": delivery.headers[SIGNATURE_HEADER]}


def _new_id(kind: str) -> str:
    return f"{kind}-{next(_numbers)}"
