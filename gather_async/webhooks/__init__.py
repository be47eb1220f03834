"""Webhooks: receive, trust, never lose.

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
    ClaimResult,
    DeadLetter,
    HandlerJob,
    Inbox,
    PutResult,
    StoredEvent,
)
from gather_async.webhooks.memory_inbox import MemoryInbox
from gather_async.webhooks.receiver import WebhookReceiver
from gather_async.webhooks.reply import WebhookReply
from gather_async.webhooks.signing import SignedSample, sample, sample_body, sign, verify
from gather_async.webhooks.sqlite_inbox import SQLiteInbox
from gather_async.webhooks.worker import HandlerPolicy

__all__ = [
    "CandidateInterviewCompleted",
    "CandidateInterviewStatusChanged",
    "ClaimResult",
    "DeadLetter",
    "HandlerJob",
    "HandlerPolicy",
    "Inbox",
    "InterviewCreated",
    "InterviewUpdated",
    "MemoryInbox",
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
