"""Webhooks: verified, stored, handled.

`verify` checks one delivery; `WebhookReceiver` does all of it, in any framework.
"""

from gather_async.webhooks.events import (
    CandidateInterviewCompleted,
    CandidateInterviewStatusChanged,
    InterviewCreated,
    InterviewUpdated,
    QuestionAudioGenerated,
    UnknownEvent,
    WebhookEvent,
)
from gather_async.webhooks.inbox import (
    ClaimedEvent,
    ClaimReport,
    ClaimResult,
    DeadLetter,
    EventState,
    HandlerFailure,
    Inbox,
    InboxEntry,
    Published,
    PutResult,
    StoredEvent,
)
from gather_async.webhooks.ingest import WebhookReply
from gather_async.webhooks.memory_inbox import MemoryInbox
from gather_async.webhooks.receiver import WebhookReceiver
from gather_async.webhooks.runs import HandlerEnded, HandlerPolicy
from gather_async.webhooks.signing import SignedSample, sample, sample_body, sign, verify
from gather_async.webhooks.sqlite_inbox import SQLiteInbox

__all__ = [
    "CandidateInterviewCompleted",
    "CandidateInterviewStatusChanged",
    "ClaimReport",
    "ClaimResult",
    "ClaimedEvent",
    "DeadLetter",
    "EventState",
    "HandlerEnded",
    "HandlerFailure",
    "HandlerPolicy",
    "Inbox",
    "InboxEntry",
    "InterviewCreated",
    "InterviewUpdated",
    "MemoryInbox",
    "Published",
    "PutResult",
    "QuestionAudioGenerated",
    "SQLiteInbox",
    "SignedSample",
    "StoredEvent",
    "UnknownEvent",
    "WebhookEvent",
    "WebhookReceiver",
    "WebhookReply",
    "sample",
    "sample_body",
    "sign",
    "verify",
]
