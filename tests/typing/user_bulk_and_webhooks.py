"""Bulk invites and webhooks as a user would write them: type-checked, never run."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

from gather_async import GatherClient, NewCandidate
from gather_async.bulk import (
    BulkInvite,
    InviteOutcome,
    InviteProgress,
    InviteReport,
    InviteStatus,
    read_candidates,
)
from gather_async.models import CandidateInterviewStatus
from gather_async.testing import FakeGather, VirtualClock
from gather_async.webhooks import (
    CandidateInterviewCompleted,
    CandidateInterviewStatusChanged,
    InterviewCreated,
    InterviewUpdated,
    MemoryInbox,
    QuestionAudioGenerated,
    SQLiteInbox,
    UnknownEvent,
    WebhookEvent,
    WebhookReceiver,
    WebhookReply,
    sign,
    verify,
)


def show(progress: InviteProgress) -> None:
    """Take progress."""


async def rows() -> AsyncIterator[Mapping[str, Any]]:
    """Give rows lazily."""
    yield {"first_name": "Ada"}


async def invite_everyone(gather: GatherClient, people: list[NewCandidate]) -> None:
    """Any source of rows, awaited or iterated."""
    job = gather.bulk_invite(
        people,
        interview_id="i",
        delivery_types=["email"],
        expiry_days=None,
        external_redirect_uri=None,
        journal="invites.db",
        concurrency=16,
        on_progress=show,
        dry_run=False,
    )
    assert_type(job, BulkInvite)
    report = await job
    assert_type(report, InviteReport)
    assert_type(report.invited, int)
    assert_type(report.already_invited, int)
    assert_type(report.rejected, int)
    assert_type(report.failed, int)
    async for outcome in gather.bulk_invite(rows(), interview_id="i", journal=Path("x.db")):
        assert_type(outcome, InviteOutcome)
        assert_type(outcome.status, InviteStatus)
        assert_type(outcome.row, int)
        assert_type(outcome.candidate_interview_id, str | None)
    gather.bulk_invite(read_candidates("people.csv"), interview_id="i")
    for each in report.outcomes:
        assert_type(each, InviteOutcome)


hooks = WebhookReceiver(["new", "old"], tolerance=300.0, inbox=None, max_body=1_048_576)


@hooks.on("candidate_interview.completed")
async def completed(event: CandidateInterviewCompleted) -> None:
    """A name gives its class of events."""
    assert_type(event.candidate_interview_id, str | None)
    assert_type(event.taken_at, datetime | None)


@hooks.on("candidate_interview.status_changed")
async def changed(event: CandidateInterviewStatusChanged) -> None:
    """Every class has its own fields."""
    assert_type(event.status, CandidateInterviewStatus | None)


@hooks.on("question.audio_generated")
async def audio(event: QuestionAudioGenerated) -> None:
    """A question's id is one of them."""
    assert_type(event.question_id, str | None)


@hooks.on("interview.created")
async def created(event: InterviewCreated) -> None:
    """Made."""


@hooks.on("interview.updated")
async def updated(event: InterviewUpdated) -> None:
    """Changed."""


@hooks.on("an.event.of.tomorrow", allow_unknown=True)
async def anything(event: WebhookEvent) -> None:
    """Any other name gives the base class."""
    assert_type(event.event, str)
    assert_type(event.dedupe_key, str)
    if isinstance(event, UnknownEvent):
        assert_type(event, UnknownEvent)


async def receive(body: bytes, headers: Mapping[str, str]) -> None:
    """By hand, or by framework."""
    event = verify(body, headers.get("x-qualifi-signature"), secret="s", tolerance=300.0)
    assert_type(event, WebhookEvent)
    assert_type(sign(body, secret="s", timestamp=None), str)
    async with hooks:
        reply = await hooks.receive(body, headers)
        assert_type(reply, WebhookReply)
        assert_type(reply.status, int)
    WebhookReceiver("s", inbox=MemoryInbox())
    WebhookReceiver("s", inbox=SQLiteInbox("inbox.db"))
    hooks.asgi()
    hooks.aiohttp_handler()
    GatherClient("k", signals=hooks)


async def test_against_a_fake() -> None:
    """A server on loopback, and a clock that jumps."""
    clock = VirtualClock()
    async with FakeGather(
        edition="A", audio_seconds=0.2, rate_limits=None, seed=0, clock=clock
    ) as fake:
        assert_type(fake.api_key, str)
        assert_type(fake.base_url, str)
        async with GatherClient(fake.api_key, base_url=fake.base_url, clock=clock) as gather:
            assert_type(gather, GatherClient)
        fake.fail_next(status=500, times=2, path="/qsi/gather/candidates")
        fake.drop_next(after_processing=True)
        assert_type(len(fake.requests), int)
        fake.send_webhook_to("http://127.0.0.1:1/hook", "secret")
