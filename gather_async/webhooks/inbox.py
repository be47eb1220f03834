"""What an inbox is: where events wait, from the answer 200 until each handler succeeded."""

from collections.abc import Collection, Sequence
from enum import Enum
from hashlib import sha256
from typing import Protocol

from attrs import field, frozen

from gather_async.webhooks.events import (
    CandidateInterviewCompleted,
    CandidateInterviewStatusChanged,
    WebhookEvent,
    decode_event,
)

__all__ = ["ClaimResult", "DeadLetter", "HandlerJob", "Inbox", "PutResult", "StoredEvent", "stored"]


class PutResult(Enum):
    """What came of putting an event into an inbox."""

    NEW = "new"
    DUPLICATE = "duplicate"
    FULL = "full"


@frozen(kw_only=True)
class StoredEvent:
    """An event as an inbox keeps it. Its ``repr`` shows no data."""

    key: str
    """The event's ``dedupe_key``: printable ASCII, at most 210 characters."""
    text: str = field(repr=False)
    """The JSON text that was verified."""
    received_at: float
    """Unix seconds."""
    synthetic: bool = False
    signed: bool = True
    subject: str | None = None
    """What the event is about, as a hash: a synthetic event and a real one of the same
    subject and ``state`` are one event, though their keys differ. None: nothing else
    can tell of it."""
    state: str = ""
    """The state of the subject after the event, as a hash."""
    default_event: str | None = None
    """The event's name, if the text doesn't say it."""

    def decode(self) -> WebhookEvent:
        """Return the event.

        Raises:
            WebhookVerificationError: The text is no event.
        """
        return decode_event(
            self.text,
            synthetic=self.synthetic,
            signed=self.signed,
            default_event=self.default_event,
        )


@frozen(kw_only=True)
class HandlerJob:
    """One event for one handler, claimed."""

    event: StoredEvent
    handler: str
    """The handler's stable name."""
    failures: int
    """Earlier runs that raised or timed out."""
    crashes: int
    """Earlier runs that nobody reported about: the process died, or lost its lease."""
    token: str = field(repr=False)
    """Proves the claim: a report with an older one is ignored."""


@frozen(kw_only=True)
class ClaimResult:
    """What a claim brought."""

    tasks: Sequence[HandlerJob]
    next_due: float | None
    """Unix seconds: when the next of these handlers' other tasks is due; None if there is none."""


@frozen(kw_only=True)
class DeadLetter:
    """One event that one handler failed on for good. Its ``repr`` shows no data."""

    event: WebhookEvent
    handler: str
    """The handler's stable name."""
    key: str
    """The event's ``dedupe_key``; with ``handler`` it names the letter."""
    failures: int
    died_at: float
    """Unix seconds."""
    error: str = field(repr=False)
    """The last failure with its traceback; may hold personal data."""


class Inbox(Protocol):
    """Where events wait. `MemoryInbox` and `SQLiteInbox` are two; others fit, too.

    Times are Unix seconds, so that processes can share them. A claimed task is
    invisible until its lease ends; who still works on it renews the lease. A
    task that was reported done never comes back. Every method may be cancelled
    at any await, which leaves open whether its change was made, and may raise
    any exception if the storage fails.
    """

    @property
    def is_shared(self) -> bool:
        """Whether it outlives the process, and other processes may use it, too."""
        ...

    async def put(self, event: StoredEvent, handlers: Collection[str]) -> PutResult:
        """Keep an event for handlers, durably, unless it is there already.

        It is there if its key is, or if the latest event of its ``subject`` has the
        same ``state`` and one of the two is synthetic.
        """
        ...

    async def knows(self, event: StoredEvent) -> bool:
        """Tell whether `put` would call it a duplicate."""
        ...

    async def claim(
        self, handlers: Collection[str], *, limit: int, now: float, until: float
    ) -> ClaimResult:
        """Take due tasks of these handlers, oldest first, for as long as the lease lasts.

        No pause and no lease is longer than an hour, except the endless lease of an
        inbox that isn't shared: what seems due much later was written before the
        clock went back, and must not wait that long.
        """
        ...

    async def renew(self, tasks: Collection[HandlerJob], *, until: float) -> None:
        """Make leases last longer; tasks that somebody else claimed since are left alone."""

    async def succeed(self, task: HandlerJob, *, now: float) -> None:
        """Never give this task out again, whoever holds it now."""

    async def retry(self, task: HandlerJob, *, due_at: float, error: str) -> None:
        """Count a failure, and give the task out again from then on."""

    async def bury(self, task: HandlerJob, *, now: float, error: str) -> None:
        """Count a failure, and make the task a dead letter."""

    async def release(self, task: HandlerJob) -> None:
        """Give the task back as if it never had been claimed, due at once."""

    async def dead_letters(self, *, limit: int) -> Sequence[DeadLetter]:
        """Return the dead letters, oldest first."""
        ...

    async def replay(self, letters: Collection[DeadLetter] | None) -> int:
        """Make dead letters due again, without failures; None: all. Return how many."""
        ...

    async def discard(self, letters: Collection[DeadLetter] | None) -> int:
        """Give dead letters up as if done; None: all. Return how many."""
        ...

    async def waiting(self) -> "dict[str, int]":
        """Return how many tasks of each handler are neither done nor dead."""
        ...

    async def prune(self, *, now: float) -> int:
        """Forget events that every handler is done with and that are old; return how many."""
        ...

    async def aclose(self) -> None:
        """Close what is open; the next use opens it again. Harmless to repeat."""


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
