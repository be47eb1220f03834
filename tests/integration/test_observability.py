"""The events of real calls: their order, what they hold, and what they never hold."""

import asyncio
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from gather_async import (
    CallFailed,
    CallSucceeded,
    ClientEvent,
    GatherClient,
    GatherConnectionError,
    GatherPool,
    NewCandidate,
    NotFoundError,
    QuotaWaited,
    QuotaWaitError,
    RateLimit,
    RequestStarted,
    ResponseDecodeError,
    ResponseReceived,
    RetryPolicy,
    RetryScheduled,
    ServerError,
)
from gather_async.testing import FakeGather, VirtualClock
from gather_async.webhooks import (
    DeadLetter,
    HandlerEnded,
    HandlerPolicy,
    WebhookEvent,
    WebhookReceiver,
    sample_body,
    sign,
)

Call = Callable[[GatherClient], Awaitable[object]]
SECRET = "s3cret"
EMAIL, PHONE = "ann@example.com", "+12025550123"


@pytest.fixture
async def clock() -> VirtualClock:
    """Let pauses pass at once."""
    return VirtualClock()


@pytest.fixture
async def fake(clock: VirtualClock) -> AsyncIterator[FakeGather]:
    """Serve the API on that clock."""
    async with FakeGather(clock=clock) as fake:
        yield fake


@pytest.fixture
def seen() -> list[ClientEvent]:
    """What happened, in order."""
    return []


@pytest.fixture
async def gather(
    fake: FakeGather, clock: VirtualClock, seen: list[ClientEvent]
) -> AsyncIterator[GatherClient]:
    """Keep in the list all that the calls of a client do."""
    async with fake.client(on_event=seen.append) as gather:
        yield gather


def kinds(seen: list[ClientEvent]) -> list[type[ClientEvent]]:
    """Return the classes of events, in order."""
    return [type(each) for each in seen]


async def test_a_call_that_succeeds(gather: GatherClient, seen: list[ClientEvent]) -> None:
    """A request, its response, and the end, all of one call, with what each names."""
    teams = await gather.teams.list()
    assert kinds(seen) == [RequestStarted, ResponseReceived, CallSucceeded]
    assert {
        (each.call, each.operation, each.method, each.route, each.attempt) for each in seen
    } == {(seen[0].call, "teams.list", "GET", "/qsi/gather/teams", 1)}
    assert [each.status for each in seen] == [None, 200, 200]
    assert [each.request_id for each in seen] == [None, teams.request_id, teams.request_id]
    assert teams.request_id
    assert (seen[-1].quota_wait, seen[-1].backoff) == (0.0, 0.0)


async def test_seconds_are_added_up(
    gather: GatherClient, fake: FakeGather, seen: list[ClientEvent]
) -> None:
    """The network, the pauses and the waits for quota are apart, each over the whole call."""
    fake.fail_next(503, headers={"Retry-After": "7"})
    fake.slow_next(2.0)
    await gather.teams.list()
    assert kinds(seen) == [
        RequestStarted,
        ResponseReceived,
        RetryScheduled,
        RequestStarted,
        ResponseReceived,
        CallSucceeded,
    ]
    retry, last = seen[2], seen[-1]
    assert isinstance(retry, RetryScheduled)
    assert (retry.error, retry.status, retry.is_hold) == ("ServerError", 503, False)
    assert last.backoff == pytest.approx(retry.wait)
    assert retry.wait >= 7.0
    received = [each for each in seen if isinstance(each, ResponseReceived)]
    assert last.network == pytest.approx(sum(each.seconds for each in received))
    assert last.network >= 2.0
    assert (last.attempt, last.status, last.quota_wait) == (2, 200, 0.0)


async def test_waiting_for_quota(fake: FakeGather, seen: list[ClientEvent]) -> None:
    """A full window, and a refusal by the server, show as waits for quota."""
    limits = [RateLimit(1, per=60)]
    async with fake.client(on_event=seen.append, rate_limits=limits) as gather:
        await gather.teams.list()
        fake.fail_next(429, headers={"Retry-After": "90"})
        await gather.teams.list()
    assert kinds(seen)[3:] == [
        QuotaWaited,
        RequestStarted,
        ResponseReceived,
        RetryScheduled,
        QuotaWaited,
        RequestStarted,
        ResponseReceived,
        CallSucceeded,
    ]
    first, hold, second = seen[3], seen[6], seen[7]
    assert isinstance(first, QuotaWaited)
    assert isinstance(hold, RetryScheduled)
    assert isinstance(second, QuotaWaited)
    assert (first.attempt, first.seconds) == (0, pytest.approx(60.0, abs=1.0))
    assert (hold.error, hold.is_hold) == ("RateLimitedError", True)
    assert second.seconds >= 90.0
    assert seen[-1].quota_wait == pytest.approx(first.seconds + second.seconds)
    assert seen[-1].backoff == 0.0


async def test_a_call_that_the_quota_refuses(
    fake: FakeGather, clock: VirtualClock, seen: list[ClientEvent]
) -> None:
    """Nothing was sent, and the failure says so: attempt 0."""
    limits = [RateLimit(1, per=60)]
    async with fake.client(on_event=seen.append, rate_limits=limits, max_wait=1) as gather:
        await gather.teams.list()
        with pytest.raises(QuotaWaitError):
            await gather.teams.list()
        waiting = asyncio.ensure_future(gather.with_options(max_wait=None).teams.list())
        await clock.sleep(20.0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    last, cancelled = seen[3:]
    assert isinstance(cancelled, CallFailed)
    assert (cancelled.error, cancelled.attempt) == ("CancelledError", 0)
    assert cancelled.quota_wait == pytest.approx(20.0, abs=1.0)
    assert isinstance(last, CallFailed)
    assert (last.error, last.attempt, last.maybe_processed) == ("QuotaWaitError", 0, False)


async def test_a_call_that_fails(
    gather: GatherClient, fake: FakeGather, seen: list[ClientEvent]
) -> None:
    """The error's class and status, and the request id for the vendor's support."""
    with pytest.raises(NotFoundError) as raised:
        await gather.questions.get("no-such-question")
    last = seen[-1]
    assert isinstance(last, CallFailed)
    assert (last.error, last.status) == ("NotFoundError", 404)
    assert last.request_id == raised.value.request_id
    assert last.route == "/qsi/gather/questions/{id}"


async def test_a_response_without_sense_is_a_failure(
    gather: GatherClient, fake: FakeGather, seen: list[ClientEvent]
) -> None:
    """A response came, and is reported; the call failed all the same."""
    fake.html_next(200)
    with pytest.raises(ResponseDecodeError):
        await gather.with_options(retry=RetryPolicy(attempts=1)).teams.list()
    assert kinds(seen) == [RequestStarted, ResponseReceived, CallFailed]
    assert [each.status for each in seen] == [None, 200, 200]


async def test_an_attempt_without_a_response(
    gather: GatherClient, fake: FakeGather, seen: list[ClientEvent]
) -> None:
    """Nothing was received, so only the end is reported."""
    fake.drop_next()
    with pytest.raises(GatherConnectionError):
        await gather.teams.create(name="x")
    assert kinds(seen) == [RequestStarted, CallFailed]
    last = seen[-1]
    assert isinstance(last, CallFailed)
    assert (last.error, last.status, last.maybe_processed) == ("GatherConnectionError", None, True)


async def test_a_cancelled_call_ends(
    gather: GatherClient, fake: FakeGather, seen: list[ClientEvent]
) -> None:
    """What counts calls in flight gets an end for each that began."""
    fake.slow_next(math.inf)
    begun = asyncio.Event()
    gather.call_events.subscribe(lambda _: begun.set())
    call = asyncio.ensure_future(gather.teams.list())
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    last = seen[-1]
    assert isinstance(last, CallFailed)
    assert last.error == "CancelledError"


async def test_a_lost_write_that_was_found_succeeds(
    gather: GatherClient, fake: FakeGather, seen: list[ClientEvent]
) -> None:
    """Its look-ups are calls of their own; the write ends well, without a response."""
    fake.drop_next(method="POST")
    await gather.candidates.create(
        first_name="Ann", last_name="Lee", email=EMAIL, phone=PHONE, external_id="ats-1"
    )
    write = seen[0].call
    own = [each for each in seen if each.call == write]
    assert kinds(own) == [RequestStarted, CallSucceeded]
    assert (own[-1].status, own[-1].operation) == (None, "candidates.create")
    lookups = [each for each in seen if each.call != write]
    assert kinds(lookups) == [RequestStarted, ResponseReceived, CallSucceeded]
    assert lookups[0].operation == "candidates.list"
    assert own[-1].backoff >= 0.5
    assert seen[-1] is own[-1]


async def test_a_listener_that_raises_is_logged(
    fake: FakeGather, seen: list[ClientEvent], caplog: pytest.LogCaptureFixture
) -> None:
    """The call returns all the same, other listeners get the event, and no frame is shown."""
    failures = [ValueError("a bug"), asyncio.CancelledError(), KeyError("x")]

    def listen(event: ClientEvent) -> None:
        raise failures[len(seen)]

    async with fake.client(on_event=listen) as gather:
        gather.call_events.subscribe(seen.append)
        with pytest.raises(NotFoundError):
            await gather.questions.get("q-1")
    assert len(seen) == 3
    assert [each.levelname for each in caplog.records] == ["ERROR"] * 3
    assert {each.name for each in caplog.records} == {"gather_async.session"}
    assert "on_event raised at CallFailed" in caplog.text
    assert "_send" not in caplog.text
    assert fake.api_key not in caplog.text


async def test_views_polls_and_bulk_invites_are_seen(
    gather: GatherClient, fake: FakeGather, seen: list[ClientEvent]
) -> None:
    """One listener gets what views, waits and jobs send, and nothing of whom it is about."""
    question = await gather.with_options(timeout=5).questions.create(
        title="Hello", question_script="Why?", user_id=fake.user_id
    )
    await gather.questions.wait_until_audio_ready(question)
    interview = await gather.interviews.create(
        title="Role", display_name="Role", question_ids=[question.id]
    )
    people = [
        NewCandidate(first_name="Ann", last_name="Lee", email=EMAIL, phone=PHONE, external_id="a-1")
    ]
    report = await gather.bulk_invite(
        people, interview_id=interview.id, delivery_types=["email"], on_progress=None
    )
    assert report.invited == 1
    (outcome,) = report.outcomes
    assert outcome.candidate_interview_id
    await gather.candidate_interviews.get(outcome.candidate_interview_id)
    sent = [each.operation for each in seen if isinstance(each, RequestStarted)]
    assert len(sent) == len(fake.requests)
    assert set(sent) >= {
        "questions.create",
        "questions.get",
        "candidates.create",
        "candidate_interviews.create",
        "candidate_interviews.get",
    }
    shown = "".join(str(attrs.asdict(each)) for each in seen)
    hidden = [question.id, interview.id, outcome.candidate_interview_id, EMAIL, PHONE]
    hidden += ["Ann", "Lee", "a-1", fake.user_id, fake.api_key, "Hello"]
    assert [each for each in hidden if each in shown] == []
    ended = [each.call for each in seen if isinstance(each, CallSucceeded | CallFailed)]
    assert len(ended) == len(set(ended)) == len({each.call for each in seen})


async def test_every_client_of_a_pool_is_seen(
    fake: FakeGather, clock: VirtualClock, seen: list[ClientEvent]
) -> None:
    """A pool's listener gets the calls of every key, those added later included."""
    late: list[ClientEvent] = []
    async with GatherPool(base_url=fake.base_url, clock=clock, on_event=seen.append) as pool:
        first, second = pool.for_key(fake.api_key), pool.for_key("qapi_of_another_tenant")
        await first.teams.list()
        end = pool.call_events.subscribe(late.append)
        with pytest.raises(Exception, match="401"):
            await second.teams.list()
        end()
        await first.teams.list()
    assert kinds(late) == [RequestStarted, ResponseReceived, CallFailed]
    assert len(seen) == 9


OPERATIONS: dict[str, Call] = {
    "questions.list": lambda g: g.questions.list(),
    "questions.get": lambda g: g.questions.get("x-1"),
    "questions.create": lambda g: g.questions.create(title="t", user_id="x-1"),
    "interviews.list": lambda g: g.interviews.list(),
    "interviews.get": lambda g: g.interviews.get("x-1"),
    "interviews.create": lambda g: g.interviews.create(title="t"),
    "interviews.bulk_update": lambda g: g.interviews.bulk_update(["x-1"], mode="merge", title="t"),
    "candidates.list": lambda g: g.candidates.list(),
    "candidates.get": lambda g: g.candidates.get("x-1"),
    "candidates.create": lambda g: g.candidates.create(
        first_name="A", last_name="L", email=EMAIL, phone=PHONE
    ),
    "candidate_interviews.list": lambda g: g.candidate_interviews.list(),
    "candidate_interviews.get": lambda g: g.candidate_interviews.get("x-1"),
    "candidate_interviews.create": lambda g: g.candidate_interviews.create(
        candidate_id="x-1", interview_id="x-1", send_invite=False
    ),
    "candidate_interviews.update_status": lambda g: g.candidate_interviews.update_status(
        "x-1", "has_reviewed"
    ),
    "candidate_interviews.results": lambda g: g.candidate_interviews.results("x-1"),
    "candidate_interviews.resend_invite": lambda g: g.candidate_interviews.resend_invite(
        "x-1", delivery_types=["email"]
    ),
    "narrators.list": lambda g: g.narrators.list(),
    "narrators.get": lambda g: g.narrators.get("x-1"),
    "message_groups.list": lambda g: g.message_groups.list(),
    "message_groups.get": lambda g: g.message_groups.get("x-1"),
    "teams.list": lambda g: g.teams.list(),
    "teams.create": lambda g: g.teams.create(name="t"),
    "users.list": lambda g: g.users.list(),
    "users.create": lambda g: g.users.create(
        first_name="A", last_name="D", email=EMAIL, team_ids=["x-1"]
    ),
    "request": lambda g: g.request("GET", "/qsi/gather/anything/x-1"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_operation_has_its_name(
    fake: FakeGather, seen: list[ClientEvent], operation: str
) -> None:
    """The operation is the method's name, and no route holds an id."""
    options: dict[str, Any] = {"on_event": seen.append, "retry": RetryPolicy(attempts=1)}
    fake.fail_next(500, times=math.inf)
    async with fake.client(**options) as gather:
        with pytest.raises(ServerError):
            await OPERATIONS[operation](gather)
    assert {each.operation for each in seen} == {operation}
    assert not any("x-1" in each.route for each in seen)
    (request,) = fake.requests
    assert all(len(each.route.split("/")) == len(request.path.split("/")) for each in seen) or (
        operation == "request"
    )


async def test_the_log_has_structured_fields(
    gather: GatherClient, fake: FakeGather, caplog: pytest.LogCaptureFixture
) -> None:
    """Each record of a call has its operation, route and what it is about as fields."""
    caplog.set_level(logging.DEBUG, logger="gather_async")
    fake.fail_next(503)
    fake.fail_next(429, headers={"Retry-After": "30"})
    await gather.teams.list()
    fields: list[dict[str, Any]] = [
        {name: value for name, value in vars(each).items() if name.startswith("gather_")}
        for each in caplog.records
    ]
    common = {
        "gather_operation": "teams.list",
        "gather_method": "GET",
        "gather_route": "/qsi/gather/teams",
    }
    assert all(common.items() <= each.items() for each in fields)
    assert [(each.name, each.levelname) for each in caplog.records] == [
        ("gather_async.session", "DEBUG"),
        ("gather_async.session", "INFO"),
        ("gather_async.session", "DEBUG"),
        ("gather_async.session", "INFO"),
        ("gather_async.quota", "WARNING"),
        ("gather_async.quota", "DEBUG"),
        ("gather_async.session", "DEBUG"),
    ]
    assert [each.get("gather_status") for each in fields] == [
        503,
        None,
        429,
        None,
        429,
        None,
        200,
    ]
    assert [each.get("gather_error") for each in fields] == [
        None,
        "ServerError",
        None,
        "RateLimitedError",
        None,
        None,
        None,
    ]
    assert fields[3]["gather_wait"] >= 30.0


async def deliver(hooks: WebhookReceiver, clock: VirtualClock, event: str) -> None:
    """Deliver an event that is signed now."""
    body = sample_body(event, data={"email": EMAIL}, at=datetime.fromtimestamp(clock.wall(), UTC))
    header = sign(body, secret=SECRET, timestamp=clock.wall())
    assert (await hooks.receive(body, {"X-Qualifi-Signature": header})).status == 200


async def test_runs_of_handlers_are_seen(clock: VirtualClock) -> None:
    """Each run says how long its event had waited; a listener that raises changes nothing."""
    hooks = WebhookReceiver(SECRET, clock=clock, handling=HandlerPolicy(attempts=2))
    runs: list[HandlerEnded] = []
    hooks.run_events.subscribe(runs.append)
    hooks.run_events.subscribe(lambda _: 1 / 0)
    is_broken = True

    @hooks.on("interview.created")
    async def save(event: WebhookEvent) -> None:
        nonlocal is_broken
        await clock.sleep(3.0)
        if is_broken:
            is_broken = False
            raise LookupError(EMAIL)

    await deliver(hooks, clock, "interview.created")
    await clock.sleep(30.0)
    async with hooks:
        await clock.sleep(60.0)
    first, second = runs
    assert (first.event, first.failures, first.error) == ("interview.created", 1, "LookupError")
    assert (second.failures, second.error) == (1, None)
    assert first.handler.endswith("save")
    assert first.lag == pytest.approx(30.0, abs=0.1)
    assert first.seconds == pytest.approx(3.0, abs=0.1)
    assert 33.0 < second.lag < 40.0
    assert EMAIL not in str(runs)


async def test_a_dead_letter_is_logged_with_its_traceback(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The error's class and each place of its chain are logged, and nothing that it says."""
    hooks = WebhookReceiver(SECRET, clock=clock, handling=HandlerPolicy(attempts=1))
    letters: list[DeadLetter] = []

    @hooks.on_dead_letter
    async def keep(letter: DeadLetter) -> None:
        letters.append(letter)

    def look_up() -> None:
        raise LookupError("ann@example.com")

    @hooks.on("interview.created")
    async def save(event: WebhookEvent) -> None:
        try:
            look_up()
        except LookupError as error:
            raise ValueError("ann@example.com") from error

    async with hooks:
        await deliver(hooks, clock, "interview.created")
        await clock.sleep(1.0)
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.name == "gather_async.webhooks"
    first, *places = record.getMessage().splitlines()
    assert first.endswith("after 1 failures: replay or discard it. The last was ValueError")
    assert [each.rpartition(" in ")[2] for each in places] == ["save", "look_up", "_call", "save"]
    assert all(each.startswith('  File "') and ", line " in each for each in places)
    assert "@" not in caplog.text
    fields = vars(record)
    assert fields["gather_event"] == "interview.created"
    assert (fields["gather_failures"], fields["gather_error"]) == (1, "ValueError")
    assert [each.error.startswith("ValueError: ann@example.com") for each in letters] == [True]


async def test_the_first_failure_of_a_handler_names_the_handler_and_the_place(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning says which handler failed at which line, and nothing that the error says."""
    hooks = WebhookReceiver(SECRET, clock=clock, handling=HandlerPolicy(attempts=2))

    @hooks.on("interview.created", name="to-crm")
    async def save(event: WebhookEvent) -> None:
        json.loads(EMAIL)

    async with hooks:
        await deliver(hooks, clock, "interview.created")
        await clock.sleep(1.0)
    warned = next(each.getMessage() for each in caplog.records if each.levelno == logging.WARNING)
    assert "handler to-crm failed on" in warned
    assert re.search(
        r'JSONDecodeError; File ".*test_observability\.py", line \d+, in save; File ', warned
    )
    assert EMAIL not in warned


async def test_an_error_whose_text_fails_is_a_failure_like_any(clock: VirtualClock) -> None:
    """It is counted, tried again, and becomes a dead letter; the other handlers run."""
    hooks = WebhookReceiver(SECRET, clock=clock, handling=HandlerPolicy(attempts=2))

    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise LookupError

    @hooks.on("interview.created")
    async def save(event: WebhookEvent) -> None:
        raise UnspeakableError

    async with hooks:
        await deliver(hooks, clock, "interview.created")
        await clock.sleep(30.0)
        (letter,) = await hooks.dead_letters()
    assert (letter.failures, letter.error.partition(":")[0]) == (2, "UnspeakableError")


async def test_each_layer_logs_what_it_does(
    fake: FakeGather, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Waits for quota, polls that fail, waits that end, a job's counts, and stored events."""
    caplog.set_level(logging.DEBUG, logger="gather_async")
    limits = [RateLimit(3, per=60)]
    async with fake.client(rate_limits=limits, retry=RetryPolicy(attempts=1)) as gather:
        question = await gather.questions.create(
            title="Hello", question_script="Why?", user_id=fake.user_id
        )
        fake.fail_next(503, method="GET")
        await gather.questions.wait_until_audio_ready(question)
        interview = await gather.interviews.create(title="Role", question_ids=[question.id])
        person = NewCandidate(first_name="Ann", last_name="Lee", email=EMAIL, phone=PHONE)
        await gather.bulk_invite([person], interview_id=interview.id, delivery_types=["email"])
    async with WebhookReceiver(SECRET, clock=clock) as hooks:
        await deliver(hooks, clock, "interview.created")
        await hooks.receive(b"{}", {})
    said = {(each.name, each.levelname, each.getMessage()) for each in caplog.records}
    assert {
        ("gather_async.waiting", "INFO", "A poll of questions failed: ServerError"),
        ("gather_async.waiting", "DEBUG", "A wait ended with Question"),
        ("gather_async.bulk", "INFO", "A bulk invite ended: 1 invited; rows: 1"),
        ("gather_async.webhooks", "DEBUG", "A webhook event was stored: interview.created"),
        ("gather_async.webhooks", "INFO", "A webhook delivery was refused: missing_header"),
    } <= said
    waits = [each for each in caplog.records if "for the quota" in each.getMessage()]
    assert {each.name for each in waits} == {"gather_async.quota"}
    assert max(vars(each)["gather_wait"] for each in waits) > 10.0
    for hidden in (EMAIL, PHONE, "Ann", "Lee", fake.api_key, SECRET):
        assert hidden not in caplog.text
