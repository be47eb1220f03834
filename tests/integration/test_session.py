"""Retries and lost answers, over real sockets."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from itertools import pairwise
from traceback import TracebackException
from typing import Any, cast

import pytest

from gather_async import (
    UNSET,
    BadRequestError,
    Candidate,
    CandidateInterview,
    GatherClient,
    GatherConnectionError,
    GatherError,
    GatherPool,
    InvalidRequestError,
    NewCandidate,
    NotFoundError,
    QuotaWaitError,
    RateLimit,
    RateLimitedError,
    ResponseDecodeError,
    RetryPolicy,
    ServerError,
)
from gather_async.postgres import PostgresInbox
from gather_async.protocol.responses import Response
from gather_async.redis import RedisInbox, RedisLease, RedisLimiter, RedisSignals
from gather_async.testing import FakeGather, VirtualClock
from gather_async.unset import Unset
from gather_async.webhooks import WebhookReceiver, verify

Write = Callable[[GatherClient, "Made"], Awaitable[object]]
CANDIDATES = "/qsi/gather/candidates"
INVITES = "/qsi/gather/candidate-interviews"


class Made:
    """What the writes under test build on."""

    question = interview = candidate = invite = ""


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
async def gather(fake: FakeGather, clock: VirtualClock) -> AsyncIterator[GatherClient]:
    """Connect a client on that clock, its jitter repeatable."""
    async with fake.client(rng=random.Random(1)) as gather:
        yield gather


@pytest.fixture
async def made(gather: GatherClient, fake: FakeGather) -> Made:
    """Make what the writes under test build on."""
    made = Made()
    question = await gather.questions.create(title="t", question_script="s", user_id=fake.user_id)
    made.question = question.id
    made.interview = (await gather.interviews.create(title="t", question_ids=[question.id])).id
    made.candidate = (await new_candidate(gather, "first")).id
    return made


async def new_candidate(gather: GatherClient, external_id: str | None) -> Candidate:
    """Create a candidate."""
    return await gather.candidates.create(
        first_name="Ada",
        last_name="Lovelace",
        email="ada@example.com",
        phone="+12025550123",
        external_id=external_id,
    )


async def invite(gather: GatherClient, made: Made) -> CandidateInterview:
    """Invite the candidate to the interview by email."""
    return await gather.candidate_interviews.create(
        candidate_id=made.candidate,
        interview_id=made.interview,
        send_invite=True,
        delivery_types=["email"],
    )


def count(fake: FakeGather, method: str, path: str) -> int:
    """Count the requests of a kind that arrived."""
    return sum(1 for request in fake.requests if (request.method, request.path) == (method, path))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
async def test_read_is_tried_again_until_it_succeeds(
    gather: GatherClient, fake: FakeGather, status: int
) -> None:
    """A read survives as many transient failures as the policy has attempts left."""
    fake.fail_next(status=status, times=3)
    await gather.teams.list()
    assert len(fake.requests) == 4


async def test_read_gives_up_after_its_attempts(gather: GatherClient, fake: FakeGather) -> None:
    """A server that keeps failing is asked `attempts` times, and its error raised."""
    fake.fail_next(status=500, times=99)
    with pytest.raises(ServerError) as caught:
        await gather.teams.list()
    assert len(fake.requests) == 4
    assert caught.value.maybe_processed is False


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
async def test_refusal_is_not_tried_again(
    gather: GatherClient, fake: FakeGather, status: int
) -> None:
    """A 4xx says the same thing however often it is asked."""
    fake.fail_next(status=status, times=1)
    with pytest.raises(GatherError):
        await gather.teams.list()
    assert len(fake.requests) == 1


async def test_write_is_tried_again_after_429(gather: GatherClient, fake: FakeGather) -> None:
    """A 429 proves that nothing was done, so a write goes again, after the hold."""
    fake.fail_next(status=429, times=2)
    await gather.interviews.create(title="t")
    assert len(fake.requests) == 3


async def test_endless_429_is_raised_with_its_reset(gather: GatherClient, fake: FakeGather) -> None:
    """A server that refuses for ever is asked `attempts` times, not for ever."""
    fake.fail_next(status=429, times=99)
    with pytest.raises(RateLimitedError):
        await gather.teams.list()
    assert len(fake.requests) == 4


@pytest.mark.parametrize("status", [500, 503])
async def test_retry_after_of_a_failed_server_is_waited_for(
    gather: GatherClient, fake: FakeGather, clock: VirtualClock, status: int
) -> None:
    """The next attempt comes no earlier than the server named."""
    fake.fail_next(status, headers={"Retry-After": "6.5"})
    began = clock.monotonic()
    await gather.teams.list()
    assert 6.5 <= clock.monotonic() - began < 7.5


async def test_longer_retry_after_than_the_total_is_raised_at_once(
    gather: GatherClient, fake: FakeGather, clock: VirtualClock
) -> None:
    """A maintenance that outlasts the call is the caller's to wait for."""
    fake.fail_next(503, headers={"Retry-After": "600"})
    began = clock.monotonic()
    with pytest.raises(ServerError) as caught:
        await gather.teams.list()
    assert caught.value.retry_after == 600.0
    assert clock.monotonic() == began


async def test_look_ups_wait_as_reported(
    gather: GatherClient, fake: FakeGather, clock: VirtualClock, made: Made
) -> None:
    """A server that asks to be left alone isn't asked what became of a write either."""
    fake.clear_requests()
    fake.fail_next(503, headers={"Retry-After": "20"}, path=INVITES, after_processing=True)
    began = clock.wall()
    await invite(gather, made)
    looks = [each.at - began for each in fake.requests if each.method == "GET"]
    assert looks == [pytest.approx(20.0)]


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"X-RateLimit-Reset": "3"}, 3.0),
        ({"retry-after-ms": "2500"}, 2.5),
        ({}, 0.0),
    ],
)
async def test_429_without_a_date_is_no_whole_window(
    gather: GatherClient,
    fake: FakeGather,
    clock: VirtualClock,
    headers: dict[str, str],
    wait: float,
) -> None:
    """A quota that is used up comes back when the server says, or soon enough to ask."""
    spent = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "0"}
    fake.fail_next(429, headers={**spent, **headers})
    began = clock.monotonic()
    await gather.teams.list()
    assert wait <= clock.monotonic() - began < 10.0


async def test_endless_refusals_stall_no_call_for_longer_than_a_window(
    fake: FakeGather, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """All waits that 429s ask for are one window and a minute together, and warned of once."""
    fake.fail_next(429, times=math.inf, headers={"Retry-After": "55"})
    began = clock.monotonic()
    async with fake.client(rate_limits=[RateLimit(100, per=60)]) as gather:
        calls = [gather.teams.list() for _ in range(3)]
        with caplog.at_level("WARNING", logger="gather_async"):
            ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, RateLimitedError) for error in ended)
    assert 55.0 < clock.monotonic() - began <= 121.0
    warned = [each.getMessage() for each in caplog.records if "429" in each.getMessage()]
    assert 1 <= len(warned) <= 2
    assert "until 2026-" in warned[0]


async def test_ambiguous_write_without_a_look_up_is_not_sent_twice(
    gather: GatherClient, fake: FakeGather, made: Made
) -> None:
    """A lost answer that can't be looked up raises, and says that it may have been done."""
    made.invite = (await invite(gather, made)).id
    writes: dict[str, Write] = {
        "question": lambda g, m: g.questions.create(title="x", user_id=fake.user_id),
        "interview": lambda g, m: g.interviews.create(title="x"),
        "bulk": lambda g, m: g.interviews.bulk_update([m.interview], mode="merge", title="y"),
        "anonymous": lambda g, m: new_candidate(g, None),
        "team": lambda g, m: g.teams.create(name="x"),
        "user": lambda g, m: g.users.create(
            first_name="A", last_name="D", email="d@example.com", team_ids=[fake.team_id]
        ),
        "status": lambda g, m: g.candidate_interviews.update_status(m.invite, "has_reviewed"),
        "resend": lambda g, m: g.candidate_interviews.resend_invite(
            m.invite, delivery_types=["email"]
        ),
    }
    for name, write in writes.items():
        before = len(fake.requests)
        fake.drop_next(after_processing=True)
        with pytest.raises(GatherConnectionError) as caught:
            await write(gather, made)
        assert caught.value.maybe_processed is True, name
        assert len(fake.requests) == before + 1, name


async def test_idempotent_write_is_sent_again_on_the_callers_word(
    gather: GatherClient, fake: FakeGather
) -> None:
    """idempotent=True lets an ambiguous failure be retried."""
    fake.drop_next(after_processing=True)
    await gather.interviews.create(title="x", idempotent=True)
    assert count(fake, "POST", "/qsi/gather/interviews") == 2


async def test_get_or_create_takes_the_callers_word_too(
    gather: GatherClient, fake: FakeGather
) -> None:
    """With ``idempotent=True`` a lost answer is not looked up: it is sent again."""
    new = NewCandidate("A", "B", "a@b.example", "+12025550123", external_id="x")
    fake.drop_next(after_processing=False, method="POST")
    await gather.candidates.get_or_create(new, idempotent=True)
    assert count(fake, "POST", CANDIDATES) == 2
    assert count(fake, "GET", CANDIDATES) == 1


@pytest.mark.parametrize("after_processing", [True, False])
async def test_lost_candidate_is_looked_up_and_made_once(
    gather: GatherClient, fake: FakeGather, *, after_processing: bool
) -> None:
    """A lost candidate with an external id exists exactly once, whichever way it was lost."""
    fake.drop_next(after_processing=after_processing, path=CANDIDATES)
    created = await new_candidate(gather, "ref-1")
    listed = [each async for each in gather.candidates.list(external_id="ref-1")]
    assert [each.id for each in listed] == [created.id]
    assert count(fake, "POST", CANDIDATES) == (1 if after_processing else 2)


@pytest.mark.parametrize("after_processing", [True, False])
async def test_lost_invite_is_looked_up_and_sent_once(
    gather: GatherClient, fake: FakeGather, made: Made, *, after_processing: bool
) -> None:
    """A lost invite reaches the candidate exactly once, whichever way it was lost."""
    fake.drop_next(after_processing=after_processing, path=INVITES)
    created = await invite(gather, made)
    listed = [each async for each in gather.candidate_interviews.list(candidate_id=made.candidate)]
    assert [each.id for each in listed] == [created.id]
    assert count(fake, "POST", INVITES) == (1 if after_processing else 2)


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("fault", ["500", "html", "html 200", "truncated"])
async def test_invite_whose_answer_is_garbage_is_looked_up(
    gather: GatherClient, fake: FakeGather, made: Made, fault: str, *, carried_out: bool
) -> None:
    """A 5xx or an unreadable answer to an invite is reconciled like a lost one."""
    if fault == "500":
        fake.fail_next(status=500, path=INVITES, after_processing=carried_out)
    elif fault == "truncated":
        fake.truncate_next(path=INVITES)
    else:
        status = 200 if fault == "html 200" else 503
        fake.html_next(status, path=INVITES, after_processing=carried_out)
    created = await invite(gather, made)
    listed = [each async for each in gather.candidate_interviews.list(candidate_id=made.candidate)]
    assert [each.id for each in listed] == [created.id]


async def test_second_invite_on_purpose_is_a_second_invite(
    gather: GatherClient, fake: FakeGather, clock: VirtualClock, made: Made
) -> None:
    """An invite lost before processing isn't mistaken for last week's to the same interview."""
    first = await invite(gather, made)
    await clock.sleep(7 * 86_400)
    fake.drop_next(after_processing=False, path=INVITES)
    second = await invite(gather, made)
    assert second.id != first.id


async def test_failed_look_up_never_leads_to_a_second_send(
    gather: GatherClient, fake: FakeGather, made: Made
) -> None:
    """If looking fails, the first failure is raised, and nothing is sent again."""
    fake.drop_next(after_processing=False, path=INVITES)
    fake.fail_next(status=500, times=99, path=INVITES, method="GET")
    with pytest.raises(GatherConnectionError) as caught:
        await invite(gather, made)
    assert caught.value.maybe_processed is True
    assert isinstance(caught.value.__cause__, ServerError)
    assert count(fake, "POST", INVITES) == 1


async def test_absence_proves_nothing_before_the_in_flight_timeout(
    gather: GatherClient, fake: FakeGather, clock: VirtualClock, made: Made
) -> None:
    """A lost invite goes again only once it can't arrive any more; till then it is looked up."""
    fake.clear_requests()
    fake.fail_next(status=504, path=INVITES)
    began = clock.wall()
    await invite(gather, made)
    looks = [request.at - began for request in fake.requests if request.method == "GET"]
    posts = [request.at - began for request in fake.requests if request.method == "POST"]
    assert posts[1] >= 45.0 > looks[-2]
    assert len(looks) == 7
    pauses = [late - early for early, late in pairwise(looks[:-1])]
    assert pauses == sorted(pauses)


@pytest.mark.parametrize("base", [0.001, 30.0])
async def test_in_flight_timeout_is_a_time_of_its_own(
    gather: GatherClient, fake: FakeGather, clock: VirtualClock, made: Made, base: float
) -> None:
    """The time in which a write may still arrive doesn't follow from the retries' pauses."""
    fake.drop_next(after_processing=False, path=INVITES)
    began = clock.monotonic()
    retry = RetryPolicy(base=base, in_flight_timeout=20.0)
    await invite(gather.with_options(retry=retry), made)
    assert 20.0 <= clock.monotonic() - began <= 20.0 + base


@pytest.mark.parametrize("retry", [RetryPolicy(attempts=1), RetryPolicy(in_flight_timeout=None)])
async def test_write_of_unknown_fate_is_raised_at_once_if_asked_for(
    gather: GatherClient, fake: FakeGather, clock: VirtualClock, made: Made, retry: RetryPolicy
) -> None:
    """Without look-ups, the call ends as soon as its fate is unknown, and says so."""
    fake.clear_requests()
    fake.fail_next(status=504, path=INVITES, after_processing=True)
    began = clock.monotonic()
    with pytest.raises(ServerError) as caught:
        await invite(gather.with_options(retry=retry), made)
    assert caught.value.maybe_processed
    assert clock.monotonic() == began
    assert len(fake.requests) == 1


async def test_policy_without_look_ups_still_repeats_what_was_not_done(
    gather: GatherClient, fake: FakeGather, made: Made
) -> None:
    """A 429 proves that nothing was done, so it needs no look-up."""
    fake.fail_next(status=429, path=INVITES)
    await invite(gather.with_options(retry=RetryPolicy(in_flight_timeout=None)), made)
    assert count(fake, "POST", INVITES) == 2


@pytest.mark.parametrize(("total", "timeout"), [(10.0, UNSET), (120.0, 10.0)])
async def test_look_ups_end_with_the_time_of_the_call(
    fake: FakeGather, clock: VirtualClock, total: float, timeout: float | Unset
) -> None:
    """Neither `total` nor the call's own timeout is exceeded to prove a write absent."""
    fake.fail_next(status=504, path=CANDIDATES)
    async with fake.client(retry=RetryPolicy(total=total)) as gather:
        began = clock.monotonic()
        new = NewCandidate("A", "B", "a@b.example", "+12025550123", external_id="x")
        with pytest.raises(ServerError) as caught:
            await gather.candidates.create(new, timeout=timeout)
        assert caught.value.maybe_processed
        assert clock.monotonic() - began == pytest.approx(10.0)
    assert count(fake, "POST", CANDIDATES) == 1


async def test_look_ups_outlast_an_outage(
    gather: GatherClient, fake: FakeGather, made: Made
) -> None:
    """A look-up that fails is repeated: the gateway that lost the write may still be down."""
    fake.fail_next(status=504, path=INVITES, after_processing=True, method="POST")
    fake.fail_next(status=503, times=4, path=INVITES, method="GET")
    await invite(gather, made)
    assert count(fake, "POST", INVITES) == 1
    assert count(fake, "GET", INVITES) == 5


async def test_second_invite_at_once_is_a_second_invite(
    gather: GatherClient, fake: FakeGather, made: Made
) -> None:
    """What this client's own call just returned isn't taken for the next one's result."""
    first = await invite(gather, made)
    fake.drop_next(after_processing=False, path=INVITES)
    second = await invite(gather, made)
    assert second.id != first.id


async def test_person_with_the_same_reference_is_not_the_one_created(
    gather: GatherClient, fake: FakeGather
) -> None:
    """A lost candidate isn't mistaken for another person under its external id."""
    other = await gather.candidates.create(
        first_name="Eve",
        last_name="E",
        email="eve@example.com",
        phone="+12025550199",
        external_id="ref",
    )
    fake.drop_next(after_processing=False, path=CANDIDATES)
    created = await new_candidate(gather, "ref")
    assert created.id != other.id
    assert created.email == "ada@example.com"


async def test_quota_wait_is_refused_before_it_begins(
    fake: FakeGather, clock: VirtualClock
) -> None:
    """With max_wait, a call that would wait too long raises at once, with the date."""
    async with fake.client(
        rate_limits=[RateLimit(2, per=60)],
        max_wait=1.0,
    ) as gather:
        await gather.teams.list()
        await gather.teams.list()
        with pytest.raises(QuotaWaitError) as caught:
            await gather.teams.list()
        assert 1.0 < caught.value.wait <= 60.0
        assert len(fake.requests) == 2


async def test_refused_second_try_names_what_went_wrong_first(
    gather: GatherClient, fake: FakeGather, clock: VirtualClock
) -> None:
    """A 429 whose hold exceeds max_wait raises at once, and the 429 is its cause."""
    reset = {"X-RateLimit-Reset": str(int(clock.wall()) + 600)}
    fake.fail_next(status=429, headers=reset)
    with pytest.raises(QuotaWaitError) as caught:
        await gather.with_options(max_wait=5.0).teams.list()
    assert isinstance(caught.value.__cause__, RateLimitedError)
    assert caught.value.wait > 500.0


async def test_server_stricter_than_configured_still_serves_all(clock: VirtualClock) -> None:
    """60 concurrent calls succeed against a fifth of the configured limits."""
    strict = [RateLimit(20, per=60), RateLimit(200, per=3600)]
    async with (
        FakeGather(clock=clock, rate_limits=strict) as fake,
        fake.client() as gather,
    ):
        pages = await asyncio.gather(*(gather.teams.list() for _ in range(60)))
    assert len(pages) == 60


async def test_unreadable_read_names_where_it_stops_making_sense(
    gather: GatherClient, fake: FakeGather
) -> None:
    """HTML with status 200 is a decode error at the root, not a crash."""
    fake.html_next(200)
    with pytest.raises(ResponseDecodeError) as caught:
        await gather.teams.list()
    assert caught.value.path == "$"


@pytest.mark.parametrize("bad", ["", " ", "../users", "a/b", "a?b=c", "a#b", "..", "a%2fb", "a\n"])
async def test_id_that_could_change_the_path_is_refused(
    gather: GatherClient, fake: FakeGather, bad: str
) -> None:
    """Nothing is sent for an id that isn't one."""
    for get in (gather.questions.get, gather.candidates.get, gather.candidate_interviews.results):
        with pytest.raises(InvalidRequestError):
            await get(bad)
    assert not fake.requests


async def test_escape_hatch_sends_anything_under_the_same_rules(
    gather: GatherClient, fake: FakeGather
) -> None:
    """request() gives the envelope as JSON, and maps errors as any call does."""
    envelope = await gather.request("get", "/qsi/gather/narrators")
    assert isinstance(envelope["data"], list)
    with pytest.raises(NotFoundError):
        await gather.request("GET", "/qsi/gather/nothing-here")
    with pytest.raises(InvalidRequestError):
        await gather.request("GET", "//evil.example/qsi")


async def test_refused_field_is_named(gather: GatherClient, fake: FakeGather) -> None:
    """A 400 says in its message which field and why."""
    with pytest.raises(BadRequestError) as caught:
        await gather.questions.create(title="x", extra={"unheardOf": 1}, user_id=fake.user_id)
    assert "unheardOf" in str(caught.value)


async def test_policy_without_retries_sends_once(gather: GatherClient, fake: FakeGather) -> None:
    """attempts=1 switches retrying off for a view."""
    fake.fail_next(status=500, times=1)
    with pytest.raises(ServerError):
        await gather.with_options(retry=RetryPolicy(attempts=1)).teams.list()
    assert len(fake.requests) == 1


@pytest.mark.parametrize("max_wait", [None, 0.5])
async def test_failure_to_read_back_never_looks_like_a_failed_write(
    fake: FakeGather, clock: VirtualClock, made: Made, max_wait: float | None
) -> None:
    """An invite that was sent again says so, even if the quota or the server ends the call."""
    only = [RateLimit(2 if max_wait else 100, per=60)]
    async with fake.client(
        rate_limits=only,
        retry=RetryPolicy(attempts=1),
        max_wait=max_wait,
    ) as gather:
        invite_id = (await invite(gather, made)).id
        fake.fail_next(status=500, times=1, method="GET")
        with pytest.raises(ResponseDecodeError, match="before you do it again") as caught:
            await gather.candidate_interviews.resend_invite(invite_id, delivery_types=["email"])
    assert caught.value.maybe_processed
    assert isinstance(caught.value.__cause__, QuotaWaitError if max_wait else ServerError)


@pytest.mark.parametrize("fault", ["cut", "500", "garbage", "timeout", "refused", "raw"])
async def test_frames_of_an_error_show_no_key_and_no_person(fake: FakeGather, fault: str) -> None:
    """What reporters print with the locals of frames holds nothing that must stay private."""
    person = {"email": "private@example.com", "phone": "+12025550142"}
    async with fake.client(retry=RetryPolicy(attempts=1)) as gather:
        create: Any = partial(gather.candidates.create, first_name="A", last_name="B", **person)
        if fault == "cut":
            fake.drop_next()
        elif fault == "500":
            fake.fail_next(500)
        elif fault == "garbage":
            fake.html_next(200)
        elif fault == "refused":
            create = partial(create, extra={"unknown": 1})
        elif fault == "raw":
            create = partial(gather.request, "POST", "/qsi/gather/teams", json={**person})
        else:
            fake.slow_next(math.inf)
            create = partial(create, timeout=0.05)
        try:
            await create()
            pytest.fail("it did not fail")
        except GatherError as error:
            del person, create  # this frame's own
            report = TracebackException.from_exception(error, capture_locals=True)
    shown = "".join(report.format())
    assert fake.api_key not in shown
    assert "private@" not in shown
    assert "2025550142" not in shown


@pytest.mark.parametrize(
    ("reset", "date", "wait"),
    [
        ("3", None, 3.0),  # relative
        ("{:.0f}", 0.0, 60.0),
        ("{:.0f}", 1000.0, -940.0),  # by a server whose clock is ahead
    ],
)
async def test_a_reset_is_put_on_our_own_clock(
    fake: FakeGather, reset: str, date: float | None, wait: float
) -> None:
    """A relative reset counts from now, and a date by the server's clock."""
    async with fake.client(clock=fake.clock) as gather:
        now = fake.clock.wall()
        headers = {
            "X-RateLimit-Limit": "100",
            "X-RateLimit-Remaining": "50",
            "X-RateLimit-Reset": reset.format(now + 60.0),
        }
        if date is not None:
            headers["date"] = format_datetime(datetime.fromtimestamp(now + date, UTC), usegmt=True)
        quota = gather._session._quota(cast("Any", None), Response(200, headers, b""))
    assert quota is not None
    assert quota.reset_at == pytest.approx(now + wait, abs=1.0)


async def test_cancelled_call_shows_no_key_either(fake: FakeGather) -> None:
    """A caller's own deadline cuts the call without its inner frames."""
    async with fake.client() as gather:
        fake.slow_next(math.inf)
        try:
            async with asyncio.timeout(0.05):
                await gather.teams.list()
            pytest.fail("it did not time out")
        except TimeoutError as error:
            report = TracebackException.from_exception(error, capture_locals=True)
    assert fake.api_key not in "".join(report.format())


WHO = "private@example.com"
SECRET = "qapi_not_to_be_shown"


async def _find(gather: GatherClient) -> None:
    await gather.candidates.find_by_external_id(WHO)


async def _list(gather: GatherClient) -> None:
    await gather.candidates.list(external_id=WHO)


async def _read_back(_: GatherClient) -> None:
    Candidate.from_dict({"email": WHO})


async def _send_no_json(gather: GatherClient) -> None:
    await gather.request("POST", "/x", json={"email": WHO, "odd": {1}})


async def _invite_a_source_that_breaks(gather: GatherClient) -> None:
    def rows() -> Iterator[object]:
        yield {"email": WHO}
        yield {"email": WHO}
        raise ValueError

    await gather.bulk_invite(rows(), interview_id="i")


@pytest.mark.parametrize(
    "call",
    [_find, _list, _read_back, _send_no_json, _invite_a_source_that_breaks],
    ids=lambda call: call.__name__,
)
async def test_no_frame_shows_whom_a_filter_body_answer_or_source_is_about(
    fake: FakeGather, call: Callable[[GatherClient], Awaitable[None]]
) -> None:
    """Filters, bodies, answers and rows are no readable locals of the package's frames."""
    async with fake.client(retry=RetryPolicy(attempts=1)) as gather:
        fake.fail_next(500, method="GET", times=math.inf)
        try:
            await call(gather)
            pytest.fail("it did not fail")
        except Exception as error:
            report = TracebackException.from_exception(error, capture_locals=True)
    ours = [
        f"{frame.name}: {frame.locals}"
        for frame in report.stack
        if "gather_async/" in frame.filename and "/tests/" not in frame.filename
    ]
    assert [each for each in ours if WHO in each] == []


class _Subclass(GatherClient):
    def __init__(self) -> None:
        super().__init__(timeout=-1.0)


async def _verify() -> None:
    verify(b"{}", "t=1,v1=00", secret=SECRET)


async def _take_a_key() -> None:
    async with GatherPool() as pool:
        pool.for_key(f"{SECRET}\n")


@pytest.mark.parametrize(
    "refused",
    [
        lambda: GatherClient(SECRET, timeout=-1.0),
        lambda: WebhookReceiver(SECRET, tolerance=-1.0),
        lambda: WebhookReceiver(secrets={}, secret=SECRET),
        lambda: RedisLimiter(f"redis://:{SECRET}@127.0.0.1", key=SECRET, reserve=-1),
        lambda: RedisInbox(f"nope://:{SECRET}@127.0.0.1"),
        lambda: RedisSignals(f"nope://:{SECRET}@127.0.0.1"),
        lambda: RedisLease(f"nope://:{SECRET}@127.0.0.1", ""),
        lambda: PostgresInbox(f"nope://:{SECRET}@127.0.0.1"),
        lambda: asyncio.run(_verify()),
        lambda: asyncio.run(_take_a_key()),
        _Subclass,
    ],
)
def test_what_is_refused_with_a_key_or_secret_shows_it_in_no_frame(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[[], object]
) -> None:
    """A setting that is wrong at the start, or a forged delivery, is reported without it."""
    monkeypatch.setenv("GATHER_API_KEY", SECRET)
    try:
        refused()
        pytest.fail("it was accepted")
    except (GatherError, TypeError) as error:
        report = TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in report.stack if "/tests/" not in frame.filename]
    assert [frame.name for frame in frames if SECRET in str(frame.locals)] == []
