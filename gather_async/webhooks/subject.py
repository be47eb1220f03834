"""What an event is about, so that a look at the server can tell what was told already."""

from hashlib import sha256

from gather_async.webhooks.events import (
    CandidateInterviewCompleted,
    CandidateInterviewStatusChanged,
    WebhookEvent,
)
from gather_async.webhooks.inbox import StoredEvent

__all__ = ["stored"]


def stored(
    event: WebhookEvent, text: str, *, received_at: float, default_event: str | None = None
) -> StoredEvent:
    """Return an event as inboxes keep it."""
    subject, state = _subject_of(event)
    return StoredEvent(
        key=event.dedupe_key,
        text=text,
        received_at=received_at,
        synthetic=event.synthetic,
        signed=event.signed,
        subject=subject,
        state=state,
        default_event=default_event,
    )


def _subject_of(event: WebhookEvent) -> tuple[str | None, str]:
    """Return subject and state: completion happens once, a status changes."""
    if isinstance(event, CandidateInterviewCompleted) and event.candidate_interview_id:
        return _hash(event.event, event.candidate_interview_id), ""
    if isinstance(event, CandidateInterviewStatusChanged) and event.candidate_interview_id:
        return _hash(event.event, event.candidate_interview_id), _hash(str(event.status))
    return None, ""


def _hash(*parts: str) -> str:
    text = "\n".join(parts)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
