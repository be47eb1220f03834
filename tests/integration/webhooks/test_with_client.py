"""A receiver, real clients and the fake API together: signals, deliveries, catching up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from aiohttp import web

from gather_async.testing import FakeGather, VirtualClock
from gather_async.webhooks import (
    CandidateInterviewCompleted,
    UnknownEvent,
    WebhookEvent,
    WebhookReceiver,
)

SECRET = "s3cret"


@contextlib.asynccontextmanager
async def serving(hooks: WebhookReceiver) -> AsyncIterator[str]:
    """Serve a receiver on aiohttp.web."""
    app = web.Application()
    app.router.add_post("/hook", hooks.aiohttp_handler())
    app.cleanup_ctx.append(hooks.cleanup_ctx)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


async def test_one_receiver_wakes_many_clients() -> None:
    """A webhook wakes the waits of every client that has the receiver as its signals."""
    clock = VirtualClock()
    hooks = WebhookReceiver(SECRET, clock=clock)
    async with (
        serving(hooks) as url,
        FakeGather(clock=clock, audio_seconds=37.0) as fake,
        fake.client(signals=hooks) as one,
        fake.client(signals=hooks) as two,
    ):
        fake.send_webhook_to(url, SECRET)
        question = await one.questions.create(
            title="t", question_script="s", user_id="u", generate_audio=True
        )
        start = clock.monotonic()
        ready = await asyncio.gather(
            one.questions.wait_until_audio_ready(question.id),
            two.questions.wait_until_audio_ready(question.id),
        )
        assert {each.id for each in ready} == {question.id}
        assert clock.monotonic() - start < 38.0
        assert hooks.last_event_at is not None


async def test_catch_up_with_a_real_client() -> None:
    """What was completed while the receiver was away is delivered once, marked as synthetic."""
    clock = VirtualClock()
    hooks = WebhookReceiver(SECRET, clock=clock)
    seen: list[CandidateInterviewCompleted] = []

    @hooks.on("candidate_interview.completed")
    async def completed(event: CandidateInterviewCompleted) -> None:
        seen.append(event)

    async with (
        FakeGather(clock=clock) as fake,
        fake.client() as gather,
        hooks,
    ):
        question = await gather.questions.create(title="t", question_script="s", user_id="u")
        interview = await gather.interviews.create(
            title="t", display_name="t", question_ids=[question.id]
        )
        candidate = await gather.candidates.create(
            first_name="A", last_name="B", email="a@example.com", phone="+12025550123"
        )
        since = datetime.fromtimestamp(clock.wall(), UTC) - timedelta(hours=1)
        link = await gather.candidate_interviews.create(
            candidate_id=candidate.id,
            interview_id=interview.id,
            send_invite=True,
            delivery_types=["email"],
        )
        assert await hooks.catch_up(gather, since=since) == 0
        await gather.candidate_interviews.update_status(link.id, "has_reviewed")
        assert await hooks.catch_up(gather, since=since) == 1
        assert await hooks.catch_up(gather, since=since) == 0
    assert [(e.candidate_interview_id, e.candidate_id, e.synthetic) for e in seen] == [
        (link.id, candidate.id, True)
    ]


async def test_receiver_is_type_checked() -> None:
    """A handler whose event is of another class doesn't type-check; one of a wider class does."""
    hooks = WebhookReceiver(SECRET)

    @hooks.on("interview.created", name="wider")
    async def wider(event: WebhookEvent) -> None: ...

    @hooks.on("interview.created", name="other")  # type: ignore[arg-type]  # what is tested
    async def other(event: CandidateInterviewCompleted) -> None: ...

    @hooks.on("candidate_interview.complete", name="typo", allow_unknown=True)  # type: ignore[arg-type]  # no such name
    async def typo(event: CandidateInterviewCompleted) -> None: ...

    @hooks.on("an.event.of.tomorrow", name="unknown", allow_unknown=True)
    async def unknown(event: UnknownEvent) -> None: ...

    @hooks.on("an.event.of.tomorrow", name="any", allow_unknown=True)
    async def any_event(event: WebhookEvent) -> None: ...

    @hooks.on("*", name="all")  # type: ignore[arg-type]  # others come, too
    async def too_narrow(event: UnknownEvent) -> None: ...

    assert set(hooks.handlers) == {"wider", "other", "typo", "unknown", "any", "all"}
