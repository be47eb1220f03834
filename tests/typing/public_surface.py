"""A user's program that is type-checked and never run.

`assert_type` fails the check, not the program: what a user's editor shows is
part of the public surface.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, assert_type

from gather_async import (
    AudioGenerationError,
    AudioState,
    Candidate,
    CandidateInterview,
    ClientEvent,
    GatherClient,
    GatherPool,
    Interview,
    InterviewResults,
    NewCandidate,
    PhonePolicy,
    Question,
    RateLimit,
    RateLimitStatus,
    Response,
    ResponseReceived,
    RetryPolicy,
    to_e164,
)
from gather_async.bulk import InviteOutcome, InviteReport, read_candidates
from gather_async.otel import instrument, uninstrument
from gather_async.testing import FakeGather, VirtualClock
from gather_async.webhooks import (
    CandidateInterviewCompleted,
    DeadLetter,
    HandlerEnded,
    WebhookEvent,
    WebhookReceiver,
    WebhookReply,
    sign,
    verify,
)


async def resources(gather: GatherClient) -> None:
    """Methods return models; lists give pages and items."""
    question = await gather.questions.create(title="t", question_script="s")
    assert_type(question, Question)
    assert_type(question.id, str)
    assert_type(question.audio_state, AudioState)
    assert_type(question.created_at, datetime | None)
    assert_type(await gather.questions.wait_until_audio_ready(question, timeout=1.0), Question)
    ended = gather.questions.wait_until_all_audio_ready([question, "id"])
    assert_type(ended, AsyncIterator[Question | AudioGenerationError])
    assert_type(await gather.interviews.get("id"), Interview)
    candidate = NewCandidate("Ada", "Doe", "ada@example.com", "+12025550123")
    assert_type(await gather.candidates.create(candidate), Candidate)
    assert_type(
        await gather.candidates.create(
            first_name="Ada", last_name="Doe", email="ada@example.com", phone="+12025550123"
        ),
        Candidate,
    )
    assert_type(await gather.candidates.find_by_external_id("x"), Candidate | None)
    page = await gather.candidate_interviews.list(interview_id="id")
    assert_type(page.items, tuple[CandidateInterview, ...])
    async for invite in gather.candidate_interviews.list():
        assert_type(invite, CandidateInterview)
    assert_type(await gather.candidate_interviews.results("id"), InterviewResults)


async def client() -> None:
    """The client and its views are typed alike."""
    options = RetryPolicy(attempts=2)
    async with GatherClient(
        "key", retry=options, rate_limits=[RateLimit(10, per=1)], phone_policy=PhonePolicy.VALID
    ) as gather:
        assert_type(gather, GatherClient)
        assert_type(gather.rate_limit_status, RateLimitStatus)
        assert_type(gather.estimate(requests=10), timedelta)
        await resources(gather.with_options(timeout=5, priority="bulk"))
        job = gather.bulk_invite(read_candidates("c.csv"), interview_id="id", journal="j.db")
        assert_type(await job, InviteReport)
        async for outcome in job:
            assert_type(outcome, InviteOutcome)


async def webhooks(body: bytes, headers: dict[str, str]) -> None:
    """A handler is checked against the event it is registered for."""
    assert_type(verify(body, headers["x-qualifi-signature"], secret="s"), WebhookEvent)
    assert_type(sign(body, secret="s"), str)
    hooks = WebhookReceiver(["new", "old"])

    @hooks.on("candidate_interview.completed")
    async def completed(event: CandidateInterviewCompleted) -> None:
        assert_type(event.candidate_interview_id, str | None)

    async with hooks:
        assert_type(await hooks.receive(body, headers), WebhookReply)


async def testing() -> None:
    """The doubles fit together."""
    clock = VirtualClock()
    async with FakeGather(edition="B", clock=clock) as fake:
        await resources(GatherClient(fake.api_key, base_url=fake.base_url, clock=clock))
        assert_type(fake.client(timeout=5.0), GatherClient)


async def models(gather: GatherClient) -> None:
    """A model becomes plain data and back as its own class, and knows its request."""
    question = Question.from_dict({"id": "q"})
    assert_type(question, Question)
    assert_type(question.to_dict(by_alias=True, secrets=False), dict[str, Any])
    assert_type(question.request_id, str | None)
    assert_type((await gather.questions.list()).request_id, str | None)
    response: Response = await gather.request("GET", "/qsi/gather/teams", raw=True)
    assert_type(response.request_id, str | None)
    assert_type(response.body, bytes)
    assert_type(RateLimit(100, 60).per, float)


def phone(raw: object) -> None:
    """The guard takes anything and gives text."""
    assert_type(to_e164(raw, region="US", policy=PhonePolicy.POSSIBLE), str)


def on_event(event: ClientEvent) -> None:
    """An event's class says what else it has."""
    assert_type(event.status, int | None)
    if isinstance(event, ResponseReceived):
        assert_type(event.seconds, float)


def observed(hooks: WebhookReceiver, letters: Sequence[DeadLetter]) -> None:
    """Listeners are typed by what they receive, and stay the functions that they are."""
    pool, gather = GatherPool(on_event=on_event), GatherClient("key", on_event=on_event)
    gather.call_events.subscribe(on_event)()
    pool.call_events.subscribe(lambda event: assert_type(event, ClientEvent))
    hooks.run_events.subscribe(lambda run: assert_type(run, HandlerEnded))

    @hooks.on_dead_letter
    def report(letter: DeadLetter) -> int:
        return letter.failures

    numbers = [report(letter=letter) for letter in letters]
    assert_type(numbers, list[int])
    for each in (pool, gather, hooks):
        instrument(each)
        uninstrument(each)
