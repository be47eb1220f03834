"""Every public call, cancelled at each of its suspensions in turn, leaves nothing behind."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from gather_async import GatherClient, RateLimit
from gather_async.testing import FakeGather, VirtualClock

Call = Callable[[GatherClient, "Ids"], Awaitable[object]]
PLENTY = [RateLimit(1_000_000, per=60)]
MOST_SUSPENSIONS = 60


class Ids:
    """What the calls need to exist."""

    def __init__(
        self, user: str, question: str, interview: str, candidate: str, invite: str
    ) -> None:
        self.user = user
        self.question = question
        self.interview = interview
        self.candidate = candidate
        self.invite = invite


class CancelledAt:
    """Runs an awaitable, and cancels its own task when it suspends for the k-th time."""

    def __init__(self, awaitable: Awaitable[object], k: int) -> None:
        self._awaitable = awaitable
        self._k = k
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, object]:
        steps = self._awaitable.__await__()
        try:
            waited = next(steps)
            while True:
                self.suspensions += 1
                if self.suspensions == self._k:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                try:
                    got = yield waited
                except BaseException as error:
                    waited = steps.throw(error)
                else:
                    waited = steps.send(got)
        except StopIteration as stop:
            return stop.value


async def settled() -> None:
    """Let a connector and a coordinator end in the next steps of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def drain(pager: Any) -> list[Any]:
    """Read a list to its end."""
    return [item async for item in pager]


CALLS: dict[str, Call] = {
    "questions.create": lambda g, i: g.questions.create(
        title="t", question_script="s", user_id=i.user
    ),
    "questions.get": lambda g, i: g.questions.get(i.question),
    "questions.list": lambda g, i: drain(g.questions.list()),
    "questions.wait_until_audio_ready": lambda g, i: g.questions.wait_until_audio_ready(i.question),
    "questions.wait_until_all_audio_ready": lambda g, i: drain(
        g.questions.wait_until_all_audio_ready([i.question])
    ),
    "interviews.create": lambda g, i: g.interviews.create(
        title="t", display_name="d", question_ids=[i.question]
    ),
    "interviews.get": lambda g, i: g.interviews.get(i.interview),
    "interviews.list": lambda g, i: drain(g.interviews.list()),
    "interviews.bulk_update": lambda g, i: g.interviews.bulk_update(
        [i.interview], mode="overwrite", title="new"
    ),
    "candidates.create": lambda g, i: g.candidates.create(
        first_name="Ada",
        last_name="L",
        email="ada@example.com",
        phone="+12025550123",
        external_id="cancelled",
    ),
    "candidates.get": lambda g, i: g.candidates.get(i.candidate),
    "candidates.list": lambda g, i: drain(g.candidates.list()),
    "candidates.find_by_external_id": lambda g, i: g.candidates.find_by_external_id("known"),
    "candidates.get_or_create": lambda g, i: g.candidates.get_or_create(
        first_name="Ada",
        last_name="L",
        email="ada@example.com",
        phone="+12025550123",
        external_id="known",
    ),
    "candidate_interviews.create": lambda g, i: g.candidate_interviews.create(
        candidate_id=i.candidate,
        interview_id=i.interview,
        send_invite=True,
        delivery_types=["email"],
    ),
    "candidate_interviews.get": lambda g, i: g.candidate_interviews.get(i.invite),
    "candidate_interviews.list": lambda g, i: drain(g.candidate_interviews.list()),
    "candidate_interviews.update_status": lambda g, i: g.candidate_interviews.update_status(
        i.invite, "has_reviewed"
    ),
    "candidate_interviews.results": lambda g, i: g.candidate_interviews.results(i.invite),
    "candidate_interviews.resend_invite": lambda g, i: g.candidate_interviews.resend_invite(
        i.invite, delivery_types=["email"]
    ),
    "candidate_interviews.wait_until_completed": lambda g, i: (
        g.candidate_interviews.wait_until_completed(i.invite)
    ),
    "candidate_interviews.wait_until_summarized": lambda g, i: (
        g.candidate_interviews.wait_until_summarized(i.invite)
    ),
    "narrators.list": lambda g, i: drain(g.narrators.list()),
    "message_groups.list": lambda g, i: drain(g.message_groups.list()),
    "teams.list": lambda g, i: drain(g.teams.list()),
    "teams.create": lambda g, i: g.teams.create(name="t"),
    "users.list": lambda g, i: drain(g.users.list()),
    "request": lambda g, i: g.request("GET", "/qsi/gather/users"),
}


async def populate(gather: GatherClient, fake: FakeGather) -> Ids:
    """Make one of each object that the calls need."""
    question = await gather.questions.create(title="t", question_script="s", user_id=fake.user_id)
    interview = await gather.interviews.create(
        title="t", display_name="d", question_ids=[question.id]
    )
    candidate = await gather.candidates.create(
        first_name="Ada",
        last_name="L",
        email="ada@example.com",
        phone="+12025550123",
        external_id="known",
    )
    invite = await gather.candidate_interviews.create(
        candidate_id=candidate.id,
        interview_id=interview.id,
        send_invite=True,
        delivery_types=["email"],
    )
    fake.complete_interview(invite.id)
    return Ids(fake.user_id, question.id, interview.id, candidate.id, invite.id)


def leaks(gather: GatherClient, before: set[asyncio.Task[Any]]) -> list[str]:
    """Name what a cancelled call left: slots, queued calls, connections, tasks."""
    status = gather.rate_limit_status
    found = []
    if status.in_flight or status.queued.interactive or status.queued.bulk:
        found.append(f"quota: {status}")
    session = gather._session.transport._sessions.here().session
    if session is not None and session.connector is not None:
        acquired = getattr(session.connector, "_acquired", None)
        if acquired:
            found.append(f"connections: {acquired}")
    tasks = {task for task in asyncio.all_tasks() - before if not task.done()}
    found += [f"task: {task}" for task in tasks if "gather_async" in _where(task)]
    return found


def _where(task: asyncio.Task[Any]) -> str:
    """Return the source files of a task's frames: the fake server has tasks of its own."""
    files = {frame.f_code.co_filename for frame in task.get_stack()}
    return " ".join(file for file in files if "testing" not in file)


@pytest.mark.parametrize("name", CALLS)
async def test_call_cancelled_at_every_suspension_leaves_nothing(name: str) -> None:
    """No slot, connection or task outlives a call that was cancelled, wherever it stood."""
    async with (
        FakeGather(audio_seconds=0.0, summary_seconds=0.0) as fake,
        fake.client(rate_limits=PLENTY) as gather,
    ):
        ids = await populate(gather, fake)
        for k in range(1, MOST_SUSPENSIONS):
            before = asyncio.all_tasks()
            run = CancelledAt(CALLS[name](gather, ids), k)

            async def cancelled(run: CancelledAt = run) -> object:
                return await run

            task = asyncio.create_task(cancelled())
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            await settled()
            assert leaks(gather, before) == []
            if run.suspensions < k:
                assert not isinstance(outcome, BaseException), outcome
                return
            assert isinstance(outcome, asyncio.CancelledError), (k, outcome)
    pytest.fail(f"{name} suspends {MOST_SUSPENSIONS} times and more")


async def test_call_in_trouble_cancelled_at_every_suspension_leaves_nothing() -> None:
    """Queued for the quota, between retries or looking up a lost answer: nothing is left."""
    clock = VirtualClock()
    async with (
        FakeGather(clock=clock) as fake,
        fake.client(
            rate_limits=[RateLimit(2, per=5)],
            rng=random.Random(2),
        ) as gather,
    ):
        ids = await populate(gather, fake)
        create = CALLS["candidate_interviews.create"]
        deepest = 0
        for k in range(1, MOST_SUSPENSIONS):
            await clock.sleep(120)  # or what the last run made might be this one's
            fake.drop_next(after_processing=False, method="POST")
            fake.fail_next(status=503, times=2, method="GET")
            before = asyncio.all_tasks()
            run = CancelledAt(create(gather, ids), k)

            async def cancelled(run: CancelledAt = run) -> object:
                return await run

            (outcome,) = await asyncio.gather(
                asyncio.create_task(cancelled()), return_exceptions=True
            )
            await settled()
            assert leaks(gather, before) == []
            deepest = max(deepest, run.suspensions)
            fake.clear_faults()
            if run.suspensions < k:
                assert not isinstance(outcome, BaseException), outcome
                break
            assert isinstance(outcome, asyncio.CancelledError), (k, outcome)
        assert deepest > 20
