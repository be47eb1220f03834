"""Every public name as a user would write it: type-checked by mypy and pyright, never run."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_type

import aiohttp

import gather_async
from gather_async import (
    UNSET,
    AudioGenerationError,
    AudioState,
    AudioTimeoutError,
    BulkUpdateResult,
    Candidate,
    CandidateInterview,
    CandidateInterviewStatus,
    DeliveryType,
    EvaluationType,
    GatherAPIError,
    GatherClient,
    GatherConnectionError,
    GatherError,
    GatherTimeoutError,
    Interview,
    InterviewQuestion,
    InterviewResults,
    InterviewStatus,
    InterviewType,
    InvalidPhoneNumberError,
    Message,
    MessageGroup,
    Narrator,
    NewCandidate,
    NewTeam,
    NewUser,
    PhonePolicy,
    PollPolicy,
    Question,
    QuotaWaitError,
    RateLimit,
    RateLimitedError,
    RateLimitStatus,
    ResponseDecodeError,
    RetryPolicy,
    SummaryStatus,
    Team,
    User,
    Voice,
    WaitTimeoutError,
    WebhookFailure,
    WebhookVerificationError,
    to_e164,
)
from gather_async.errors import NotFoundError
from gather_async.models import Question as SameQuestion
from gather_async.resources import Page, Pager


async def make_clients(session: aiohttp.ClientSession) -> None:
    """Clients and views of them."""
    assert_type(gather_async.__version__, str)
    async with GatherClient() as gather:
        assert_type(gather, GatherClient)
    gather = GatherClient(
        "qapi_x",
        base_url="https://api.dev.qualifi.hr",
        session=session,
        timeout=aiohttp.ClientTimeout(total=5),
        retry=RetryPolicy(attempts=4, base=0.5, cap=30.0, total=120.0),
        rate_limits=(RateLimit(100, per=60), RateLimit(1000, per=3600)),
        limiter=None,
        phone_policy=PhonePolicy.VALID,
        default_region="US",
        user_id="u",
        signals=None,
        max_wait=None,
        reserve=5,
        trust_env=False,
        allow_insecure=False,
        trace_configs=[aiohttp.TraceConfig()],
        rng=random.Random(0),
    )
    view = gather.with_options(timeout=5, priority="bulk", retry=RetryPolicy(), max_wait=2.0)
    assert_type(view, GatherClient)
    assert_type(gather.with_options(timeout=None, max_wait=UNSET), GatherClient)
    assert_type(gather.rate_limit_status, RateLimitStatus)
    assert_type(gather.estimate(requests=6000), timedelta)
    answer = await gather.request("GET", "/qsi/gather/anything", params={"a": 1}, json={"b": None})
    assert_type(answer, Any)
    await gather.aclose()


async def use_questions(gather: GatherClient) -> None:
    """Questions and their audio."""
    question = await gather.questions.create(
        title="Why?",
        question_script="Why do you want this job?",
        user_id="u",
        audio_url=None,
        description="d",
        narrator_id="n",
        generate_audio=True,
        extra={"new": 1},
        timeout=5,
        idempotent=True,
    )
    assert_type(question, Question)
    same: SameQuestion = question
    assert_type(same.audio_state, AudioState)
    assert_type(await gather.questions.get(question.id, timeout=None), Question)
    pager = gather.questions.list(status="x")
    assert_type(pager, Pager[Question])
    page = await pager
    assert_type(page, Page[Question])
    assert_type(page.items, tuple[Question, ...])
    assert_type(page.total, int | None)
    assert_type(page.page, int)
    assert_type(page.has_next, bool)
    assert_type(await page.next(), Page[Question] | None)
    async for item in pager:
        assert_type(item, Question)
    async for each in pager.pages():
        assert_type(each, Page[Question])
    ready = await gather.questions.wait_until_audio_ready(question, timeout=60.0, poll=PollPolicy())
    assert_type(ready, Question)
    assert_type(await gather.questions.wait_until_audio_ready("id"), Question)
    ended = gather.questions.wait_until_all_audio_ready([question, "id"], timeout=60.0)
    assert_type(ended, AsyncIterator[Question | AudioGenerationError])
    async for result in ended:
        if isinstance(result, AudioGenerationError):
            assert_type(result, AudioGenerationError)
        else:
            assert_type(result, Question)


async def use_interviews(gather: GatherClient) -> None:
    """Interviews, and changing many at once."""
    interview = await gather.interviews.create(
        title="t",
        display_name="d",
        interview_type=InterviewType.STANDARD,
        question_ids=["q"],
        description="x",
        language="en",
        survey_questions=[{"id": "s", "knockout": True}],
        keywords=("a",),
    )
    assert_type(interview, Interview)
    assert_type(interview.status, InterviewStatus | None)
    assert_type(interview.questions, tuple[InterviewQuestion, ...])
    assert_type(interview.extra, Mapping[str, Any])
    assert_type(await gather.interviews.get("i", team_id="t"), Interview)
    listed = gather.interviews.list(archived=True, interview_type="standard", status="active")
    assert_type(listed, Pager[Interview])
    mode: Literal["overwrite", "merge"] = "merge"
    result = await gather.interviews.bulk_update(
        ["i"],
        mode=mode,
        title="t",
        display_name="d",
        keywords=["k"],
        removed_keywords=["k"],
        removed_question_ids=["q"],
        removed_survey_question_ids=["s"],
        removed_ai_text_question_ids=["a"],
        template_interview_id="i2",
    )
    assert_type(result, BulkUpdateResult)
    assert_type(result.is_complete, bool)


async def use_candidates(gather: GatherClient) -> None:
    """Candidates, from fields or from a checked object."""
    created = await gather.candidates.create(
        first_name="Ada",
        last_name="Lovelace",
        email="ada@example.com",
        phone="+12025550123",
        external_id="x",
        timezone="America/New_York",
        sms_opt_in=True,
    )
    assert_type(created, Candidate)
    new = NewCandidate("Ada", "Lovelace", "ada@example.com", "+12025550123", external_id="x")
    assert_type(await gather.candidates.create(new, extra={"a": 1}, idempotent=True), Candidate)
    assert_type(await gather.candidates.get(created.id), Candidate)
    assert_type(gather.candidates.list(external_id="x", archived=False), Pager[Candidate])
    assert_type(await gather.candidates.find_by_external_id("x"), Candidate | None)
    assert_type(await gather.candidates.get_or_create(new), Candidate)
    assert_type(created.created_at, datetime | None)
    # Each of these is an error to a type checker: an ignore that is not needed is one too.
    await gather.candidates.create()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await gather.candidates.create(first_name="Ada")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await gather.candidates.create(new, email="a@b.c")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    created.id = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def use_candidate_interviews(gather: GatherClient) -> None:
    """Invites and what comes of them."""
    invite = await gather.candidate_interviews.create(
        candidate_id="c",
        interview_id="i",
        send_invite=True,
        delivery_types=["email", DeliveryType.SMS],
        expiry_days=7,
        external_redirect_uri="https://x.example",
    )
    assert_type(invite, CandidateInterview)
    assert_type(invite.status, CandidateInterviewStatus | None)
    assert_type(await gather.candidate_interviews.get("ci"), CandidateInterview)
    listed = gather.candidate_interviews.list(candidate_id="c", interview_id="i", status="hired")
    assert_type(listed, Pager[CandidateInterview])
    hired = CandidateInterviewStatus.HIRED
    assert_type(await gather.candidate_interviews.update_status("ci", hired), CandidateInterview)
    results = await gather.candidate_interviews.results("ci")
    assert_type(results, InterviewResults)
    assert_type(results.summary_status, SummaryStatus | None)
    assert_type(results.evaluation_type, EvaluationType | None)
    again = await gather.candidate_interviews.resend_invite("ci", delivery_types=["sms"])
    assert_type(again, CandidateInterview)
    completed = await gather.candidate_interviews.wait_until_completed("ci", timeout=5.0)
    assert_type(completed, CandidateInterview)
    summed = await gather.candidate_interviews.wait_until_summarized("ci", timeout=5.0)
    assert_type(summed, InterviewResults)


async def use_the_rest(gather: GatherClient) -> None:
    """Narrators, message groups, teams and users."""
    narrator = await gather.narrators.get("n")
    assert_type(narrator, Narrator)
    assert_type(narrator.voices, tuple[Voice, ...])
    assert_type(gather.narrators.list(), Pager[Narrator])
    group = await gather.message_groups.get("g")
    assert_type(group, MessageGroup)
    assert_type(group.messages, tuple[Message, ...])
    assert_type(gather.message_groups.list(), Pager[MessageGroup])
    assert_type(await gather.teams.create(name="A", user_ids=["u"]), Team)
    teams = await gather.teams.create([NewTeam("A", user_ids=["u"]), NewTeam("B")])
    assert_type(teams, tuple[Team, ...])
    assert_type(gather.teams.list(user_id="u"), Pager[Team])
    user = await gather.users.create(
        first_name="A", last_name="B", email="a@b.c", team_ids=["t"], create_auth0_account=True
    )
    assert_type(user, User)
    new: Sequence[NewUser] = [NewUser("A", "B", "a@b.c", ["t"], phone="+12025550123")]
    assert_type(await gather.users.create(new), tuple[User, ...])
    assert_type(gather.users.list(team_id="t", include_teams=False), Pager[User])
    await gather.teams.create()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await gather.users.create(email="a@b.c")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def handle_errors(gather: GatherClient) -> None:  # noqa: C901 - one branch an error
    """Errors carry what is needed to act on them."""
    try:
        await gather.candidates.get("c")
    except RateLimitedError as error:
        assert_type(error.reset_at, datetime | None)
    except NotFoundError as error:
        assert_type(error.details, Mapping[str, Any])
    except GatherAPIError as error:
        assert_type(error.status, int)
        assert_type(error.code, str | None)
        assert_type(error.message, str)
        assert_type(error.request_id, str | None)
        assert_type(error.body, str)
        assert_type(error.headers, Mapping[str, str])
    except WaitTimeoutError as error:
        assert_type(error.waited, float)
    except (GatherConnectionError, GatherTimeoutError) as error:
        assert_type(error.maybe_processed, bool)
    except QuotaWaitError as error:
        assert_type(error.available_at, datetime)
        assert_type(error.wait, float)
    except ResponseDecodeError as error:
        assert_type(error.path, str)
    except AudioTimeoutError as error:
        assert_type(error.waited, float)
    except InvalidPhoneNumberError as error:
        assert_type(error.reason, str)
    except WebhookVerificationError as error:
        assert_type(error.reason, WebhookFailure)
    except GatherError as error:
        assert_type(error.args, tuple[Any, ...])


def use_values() -> None:
    """Functions and values that need no client."""
    assert_type(to_e164("+1 202 555 0123", region="US", policy=PhonePolicy.POSSIBLE), str)
    assert_type(InterviewStatus("new"), InterviewStatus)
    assert_type(InterviewStatus("new").is_known, bool)
    text: str = InterviewStatus.ACTIVE
    assert_type(text.upper(), str)
    question = Question(id="q", extra={}, created_at=datetime.now(UTC))
    assert_type(question.title, str | None)


async def wrong_calls(gather: GatherClient, new: NewCandidate, interview: Interview) -> None:
    """A misspelt, missing or senseless argument is found before the program runs."""
    gather.bulk_invite([new], interview_id="i", in_flight_timeout=60.0, max_consecutive_failures=5)
    gather.bulk_invite([new], interview_id="i", concurency=4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    gather.bulk_invite([new], interview_id="i", grace="long")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await gather.candidates.get_or_create(new), Candidate)
    await gather.candidates.get_or_create(new, external_id="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await gather.candidates.get_or_create(  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
        first_name="A", last_name="B", email="a@example.com", phone="+12025550123"
    )
    assert_type(gather.questions.list(archived=False, limit=5), Pager[Question])
    gather.questions.list(id=interview)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    gather.questions.list(ids=["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
