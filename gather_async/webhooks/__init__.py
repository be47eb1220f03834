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
    Claimed,
    DeadLetter,
    Inbox,
    StoredEvent,
    Taken,
    Task,
)
from gather_async.webhooks.memory_inbox import MemoryInbox
from gather_async.webhooks.receiver import WebhookReceiver
from gather_async.webhooks.reply import WebhookReply
from gather_async.webhooks.signing import SignedSample, sample, sample_body, sign, verify
from gather_async.webhooks.sqlite_inbox import SQLiteInbox
from gather_async.webhooks.worker import Handling

__all__ = [
    "CandidateInterviewCompleted",
    "CandidateInterviewStatusChanged",
    "Claimed",
    "DeadLetter",
    "Handling",
    "Inbox",
    "InterviewCreated",
    "InterviewUpdated",
    "MemoryInbox",
    "QuestionAudioGenerated",
    "SQLiteInbox",
    "SignedSample",
    "StoredEvent",
    "Taken",
    "Task",
    "UnknownEvent",
    "WebhookEvent",
    "WebhookReceiver",
    "WebhookReply",
    "sample",
    "sample_body",
    "sign",
    "verify",
]
