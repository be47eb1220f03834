"""What is refused before anything is sent, and what is looked for before it is created."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from gather_async import (
    BadRequestError,
    Candidate,
    CandidateInterview,
    ConfigurationError,
    GatherClient,
    InvalidEmailError,
    InvalidPhoneNumberError,
    InvalidRequestError,
    InviteNotDeliverableError,
    NewCandidate,
    NewTeam,
    NewUser,
    PhonePolicy,
)
from gather_async.testing import FakeGather

ADA: dict[str, Any] = {"first_name": "Ada", "last_name": "Doe", "email": "ada@example.com"}


@pytest.fixture
async def fake() -> AsyncIterator[FakeGather]:
    """Serve the API."""
    async with FakeGather() as fake:
        yield fake


@pytest.fixture
async def gather(fake: FakeGather) -> AsyncIterator[GatherClient]:
    """Connect a client."""
    async with fake.client() as gather:
        yield gather


@pytest.mark.parametrize(
    "invite",
    [
        {"send_invite": True},
        {"send_invite": True, "delivery_types": []},
        {"send_invite": False, "delivery_types": ["email"]},
        {"send_invite": True, "delivery_types": "email"},
    ],
)
async def test_invite_that_reaches_no_one_is_refused(
    gather: GatherClient, fake: FakeGather, invite: dict[str, Any]
) -> None:
    """An invite needs a delivery type, and a delivery type an invite."""
    with pytest.raises(InviteNotDeliverableError):
        await gather.candidate_interviews.create(candidate_id="c", interview_id="i", **invite)
    with pytest.raises(InviteNotDeliverableError):
        await gather.candidate_interviews.resend_invite("c", delivery_types=[])
    assert not fake.requests


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"phone": "(202) 555-0123"}, InvalidPhoneNumberError),
        ({"phone": "+1 202 555 0123 x45"}, InvalidPhoneNumberError),
        ({"phone": None}, InvalidPhoneNumberError),
        ({"phone": "+12025550123", "email": "ada"}, InvalidEmailError),
    ],
)
async def test_candidate_that_cannot_be_reached_is_refused(
    gather: GatherClient, fake: FakeGather, fields: dict[str, Any], error: type[Exception]
) -> None:
    """A phone number or an email address that can't be one never reaches the server."""
    with pytest.raises(error):
        await gather.candidates.create(**{**ADA, **fields})
    assert not fake.requests


async def test_phone_numbers_follow_the_clients_policy_and_region(
    gather: GatherClient, fake: FakeGather
) -> None:
    """A region normalises national numbers, a stricter policy refuses impossible ones."""
    american = gather.with_options(default_region="US")
    await american.candidates.create(**ADA, phone="(202) 555-0123")
    await gather.candidates.create(NewCandidate("Ada", "Doe", "a@example.com", "+1 202 555 0123"))
    assert [each["phone"] for each in fake.candidates] == ["+12025550123"] * 2
    strict = gather.with_options(phone_policy=PhonePolicy.POSSIBLE)
    with pytest.raises(InvalidPhoneNumberError):
        await strict.candidates.create(NewCandidate("A", "D", "a@example.com", "+12345"))


async def test_arguments_that_exclude_each_other_are_refused(gather: GatherClient) -> None:
    """An object and its fields, or neither, is a mistake of the program, refused as ours."""
    untyped: Any = gather
    new = NewCandidate("Ada", "Doe", "ada@example.com", "+12025550123")
    with pytest.raises(InvalidRequestError):
        await untyped.candidates.create(new, first_name="Ada")
    with pytest.raises(InvalidRequestError):
        await untyped.candidates.create(**ADA)
    with pytest.raises(InvalidRequestError, match="external_id"):
        await untyped.candidates.get_or_create(new)
    teams = [NewTeam("a")]
    with pytest.raises(InvalidRequestError):
        await untyped.teams.create(teams, name="b")
    users = [NewUser("A", "D", "a@example.com", ["t"])]
    with pytest.raises(InvalidRequestError):
        await untyped.users.create(users, email="b@example.com")


WRONG_IDS = [UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC), Decimal(1), Candidate(id="c"), ["c"], 7]


@pytest.mark.parametrize("wrong", WRONG_IDS, ids=lambda wrong: type(wrong).__name__)
async def test_what_is_no_id_is_refused_wherever_an_id_belongs(
    gather: GatherClient, fake: FakeGather, wrong: Any
) -> None:
    """In paths, bodies and filters: our error, with what to pass instead; nothing is sent."""
    calls = [
        lambda: gather.candidates.get(wrong),
        lambda: gather.candidate_interviews.create(candidate_id=wrong, interview_id="i"),
        lambda: gather.candidate_interviews.get_or_create(candidate_id="c", interview_id=wrong),
        lambda: gather.interviews.create(title="t", question_ids=[wrong]),
        lambda: gather.interviews.bulk_update([wrong], mode="merge", title="t"),
        lambda: gather.questions.create(title="t", narrator_id=wrong),
        lambda: gather.users.create(
            first_name="A", last_name="B", email="a@example.com", team_ids=[wrong]
        ),
        lambda: gather.candidates.get_or_create(**ADA, phone="+12025550123", external_id=wrong),
        lambda: gather.request("POST", "/x", json={"list": [{"id": wrong}]}),
    ]
    if isinstance(wrong, int | list):
        calls.pop()  # they are JSON
    for call in calls:
        with pytest.raises(InvalidRequestError) as caught:
            await call()  # type: ignore[no-untyped-call]  # they differ in what they return
        if isinstance(wrong, Candidate):
            assert "`.id`" in str(caught.value)
    assert not fake.requests


@pytest.mark.parametrize("wrong", WRONG_IDS[1:5], ids=lambda wrong: type(wrong).__name__)
async def test_what_is_no_value_is_refused_as_a_filter(
    gather: GatherClient, fake: FakeGather, wrong: Any
) -> None:
    """A filter that can't be one value never lists what wasn't asked for."""
    with pytest.raises(InvalidRequestError):
        await gather.candidate_interviews.list(candidate_id=wrong)
    with pytest.raises(InvalidRequestError):
        await gather.candidates.find_by_external_id(wrong)
    assert not fake.requests


async def test_arguments_of_the_wrong_type_are_refused(gather: GatherClient) -> None:
    """Neither TypeError nor AttributeError comes out of a call."""
    untyped: Any = gather
    calls = [
        lambda: untyped.candidates.get_or_create(**ADA, phone="+12025550123", external_id=None),
        lambda: untyped.candidates.create({"first_name": "A"}),
        lambda: untyped.candidates.create(**ADA, phone=12025550123),
        lambda: untyped.candidates.create(**ADA, phone="+12025550123", nickname="Ada"),
        lambda: untyped.users.create([{"first_name": "A"}]),
        lambda: untyped.users.create(5),
        lambda: untyped.teams.create(5),
        lambda: untyped.teams.create(nickname="A"),
        lambda: untyped.interviews.create(title="t", question_ids=5),
        lambda: untyped.candidate_interviews.create(
            candidate_id="c", interview_id="i", delivery_types=5
        ),
        lambda: untyped.candidate_interviews.create(
            candidate_id="c", interview_id="i", expiry_days=Decimal(7)
        ),
    ]
    for call in calls:
        with pytest.raises(InvalidRequestError):
            await call()  # type: ignore[no-untyped-call]  # they differ in what they return


@pytest.mark.parametrize("wrong", [7, 10**400, "text", ["text"], object(), UUID(int=1)])
async def test_what_is_no_mapping_list_policy_or_reference_is_refused(
    gather: GatherClient, fake: FakeGather, wrong: Any
) -> None:
    """Mappings, lists, policies and times raise our error before anything is sent."""
    untyped: Any = gather
    wait: Any = gather.questions.wait_until_audio_ready
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: gather.interviews.create(title="t", extra=wrong),
        lambda: gather.request("GET", "/qsi/gather/teams", params=wrong),
        lambda: wait("q", poll=wrong),
    ]
    if not isinstance(wrong, list):
        calls += [
            lambda: gather.interviews.create(title="t", survey_questions=wrong),
            lambda: gather.bulk_invite([], interview_id="i", delivery_types=wrong),
        ]
    if wrong != 7:
        calls.append(lambda: wait("q", timeout=wrong))
    if wrong != "text":
        calls.append(lambda: untyped.candidates.find_by_external_id(wrong))
    for call in calls:
        with pytest.raises((InvalidRequestError, ConfigurationError)):
            await call()
    assert not fake.requests


async def test_a_reference_that_is_none_finds_no_one(gather: GatherClient) -> None:
    """None would find the first person without a reference, and blank text no one who has one."""
    await gather.candidates.create(**ADA, phone="+12025550123")
    for wrong in (None, "", " "):
        with pytest.raises(InvalidRequestError):
            await gather.candidates.find_by_external_id(wrong)  # type: ignore[arg-type]


async def test_a_job_refuses_text_that_can_not_be_sent(gather: GatherClient) -> None:
    """A lone surrogate or a redirect that is no text ends nothing half-way."""
    untyped: Any = gather
    for options in ({"interview_id": "\ud800"}, {"interview_id": "i", "external_redirect_uri": 7}):
        with pytest.raises(ConfigurationError):
            untyped.bulk_invite([], **options)


async def test_empty_batches_and_lone_texts_are_refused(
    gather: GatherClient, fake: FakeGather
) -> None:
    """Nothing to do, and one text where a list belongs, never reach the server."""
    with pytest.raises(InvalidRequestError):
        await gather.teams.create([])
    with pytest.raises(InvalidRequestError):
        await gather.interviews.bulk_update([], title="t")
    with pytest.raises(InvalidRequestError):
        await gather.interviews.create(title="t", question_ids="abc")
    assert not fake.requests


async def test_user_is_created_with_a_normalised_phone(
    gather: GatherClient, fake: FakeGather
) -> None:
    """One user from its fields, its phone read by the client's region."""
    user = await gather.with_options(default_region="US").users.create(
        first_name="Ada",
        last_name="Doe",
        email="ada@example.com",
        team_ids=[fake.team_id],
        phone="(202) 555-0123",
    )
    assert (user.email, user.phone) == ("ada@example.com", "+12025550123")


async def get_or_create(gather: GatherClient) -> Candidate:
    """Ask for the candidate with the reference ``ref``."""
    return await gather.candidates.get_or_create(**ADA, phone="+12025550123", external_id="ref")


async def test_candidate_who_exists_is_found(gather: GatherClient, fake: FakeGather) -> None:
    """The second call costs one request, and gives the same person."""
    first = await get_or_create(gather)
    before = len(fake.requests)
    assert (await get_or_create(gather)).id == first.id
    assert len(fake.requests) == before + 1


@pytest.mark.parametrize("status", [400, 409])
async def test_two_at_once_get_the_same_candidate_where_the_server_refuses_doubles(
    status: int,
) -> None:
    """Both look, both create, one is refused: it gets what the other one made."""
    async with (
        FakeGather(duplicate_status=status) as fake,
        fake.client() as first,
        fake.client() as second,
    ):
        one, other = await asyncio.gather(get_or_create(first), get_or_create(second))
        posts = [request for request in fake.requests if request.method == "POST"]
        assert one.id == other.id
        assert sorted(request.status or 0 for request in posts) == [201, status]


async def test_refusal_that_no_candidate_explains_is_raised(
    gather: GatherClient, fake: FakeGather
) -> None:
    """A 400 about something else stays a 400."""
    fake.fail_next(400, method="POST")
    with pytest.raises(BadRequestError):
        await get_or_create(gather)


async def test_get_or_create_makes_one_invite_of_any_number_of_calls(
    gather: GatherClient, fake: FakeGather
) -> None:
    """Calls one after another, at once, and of another client all get the same invite."""
    interview = (await gather.interviews.create(title="t")).id
    candidate = (await gather.candidates.create(**ADA, phone="+12025550123")).id

    def get_or_create(client: GatherClient) -> Awaitable[CandidateInterview]:
        return client.candidate_interviews.get_or_create(
            candidate_id=candidate,
            interview_id=interview,
            send_invite=True,
            delivery_types=["email"],
        )

    together = await asyncio.gather(*(get_or_create(gather) for _ in range(5)))
    async with fake.client() as other:
        made = [*together, await get_or_create(gather), await get_or_create(other)]
    assert len({each.id for each in made}) == 1
    assert fake.invites == {(candidate, interview): 1}
