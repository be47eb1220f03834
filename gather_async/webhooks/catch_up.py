"""A look at the server that makes the events of what has changed meanwhile."""

import json
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol

from gather_async.clock import Clock
from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.models.candidate import CandidateInterview
from gather_async.models.enums import CandidateInterviewStatus
from gather_async.webhooks.events import (
    CandidateInterviewCompleted,
    CandidateInterviewStatusChanged,
    WebhookEvent,
    decode_event,
)
from gather_async.webhooks.inbox import PutResult
from gather_async.webhooks.ingest import Ingest

__all__ = ["CatchUpClient", "catch_up"]


class _CandidateInterviews(Protocol):
    def list(self) -> AsyncIterable[CandidateInterview]: ...

    async def get(self, id: str) -> CandidateInterview: ...


class CatchUpClient(Protocol):
    """The part of a client that a sweep needs; `GatherClient` fits."""

    @property
    def candidate_interviews(self) -> Any:
        """The candidate interviews, with ``list()`` and ``get(id)``."""


async def catch_up(
    gather: CatchUpClient,
    *,
    since: datetime,
    ingest: Ingest,
    clock: Clock,
    can_wait: Callable[[], bool],
) -> int:
    """Deliver what the inbox has not seen; return how many events that was."""
    if since.tzinfo is None:
        raise ConfigurationError("since must be an aware datetime: give it a tzinfo.")
    interviews: _CandidateInterviews = gather.candidate_interviews
    is_wanted = await ingest.wanted()
    delivered = 0
    async for item in interviews.list():
        if not await _unseen(item, ingest, is_wanted):
            continue
        current = await _changed_since(interviews, item, since)
        for event, text in () if current is None else await _unseen(current, ingest, is_wanted):
            while (result := await ingest.store(event, text)) is PutResult.FULL:
                if not can_wait():
                    raise ClientClosedError("The inbox is full: start the receiver first.")
                await clock.sleep(1.0)
            delivered += result is PutResult.NEW
    return delivered


async def _unseen(
    item: CandidateInterview, ingest: Ingest, is_wanted: Callable[[str], bool]
) -> Sequence[tuple[WebhookEvent, str]]:
    """Return the events of an item that are wanted and not stored yet."""
    return [
        (event, text)
        for event, text in _events_of(item)
        if is_wanted(event.event) and not await ingest.contains(event, text)
    ]


def _events_of(item: CandidateInterview) -> Iterator[tuple[WebhookEvent, str]]:
    """Give the events that must have happened for it to be as it is, with their JSON text.

    An invite that is merely out is no event: that it is no change is what the
    documentation's silence suggests.
    """
    if item.status is None or item.status == CandidateInterviewStatus.INVITE_SENT:
        return
    if item.status is not None and item.status.is_finished:
        yield _event(CandidateInterviewCompleted.NAME, item)
    yield _event(CandidateInterviewStatusChanged.NAME, item)


async def _changed_since(
    interviews: _CandidateInterviews, item: CandidateInterview, since: datetime
) -> CandidateInterview | None:
    """Return the candidate interview as it is, if it has changed since then or doesn't say.

    The list's example items don't say when they changed; one read of the object does.
    """
    if item.updated_at is None and not _is_after(item.created_at, since):
        item = await interviews.get(item.id)
    is_old = item.updated_at is not None and item.updated_at < since
    return None if is_old else item


def _is_after(instant: datetime | None, since: datetime) -> bool:
    return instant is not None and instant >= since


def _event(name: str, item: CandidateInterview) -> tuple[WebhookEvent, str]:
    at = item.updated_at or item.created_at
    body = {
        "event": name,
        "timestamp": None if at is None else at.isoformat(),
        "data": {
            "candidateInterviewId": item.id,
            "candidateId": item.candidate_id,
            "interviewId": item.interview_id,
            "status": item.status,
        },
    }
    text = json.dumps(body)
    return decode_event(text, synthetic=True), text
