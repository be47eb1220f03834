"""Every request of the real client against the OpenAPI document, in both editions."""

import inspect
from typing import Any

import pytest

from gather_async.client import GatherClient
from gather_async.models import Candidate, NewCandidate, NewTeam, NewUser
from gather_async.testing import FakeGather, VirtualClock

EDITIONS = pytest.mark.parametrize("edition", ["A", "B"])
RESOURCES = (
    "candidate_interviews",
    "candidates",
    "interviews",
    "message_groups",
    "narrators",
    "questions",
    "teams",
    "users",
)


class Recorder:
    """A resource that notes which of its methods were taken."""

    def __init__(self, resource: Any, name: str, taken: set[str]) -> None:
        self._resource, self._name, self._taken = resource, name, taken

    def __getattr__(self, method: str) -> Any:
        self._taken.add(f"{self._name}.{method}")
        return getattr(self._resource, method)


class Recorded:
    """A client whose resources are recorded."""

    def __init__(self, gather: GatherClient) -> None:
        self.taken: set[str] = set()
        for name in RESOURCES:
            setattr(self, name, Recorder(getattr(gather, name), name, self.taken))


def methods_of(gather: GatherClient) -> set[str]:
    """Return every public method of every resource."""
    return {
        f"{name}.{method}"
        for name in RESOURCES
        for method, _ in inspect.getmembers(getattr(gather, name), inspect.ismethod)
        if not method.startswith("_")
    }


async def ask(gather: Any, fake: FakeGather) -> list[Any]:
    """Use every method of the questions."""
    question = await gather.questions.create(
        title="Strengths",
        question_script="What are your strengths?",
        user_id=fake.user_id,
        audio_url="https://example.com/a.mp3",
        description="Open question",
        narrator_id=(await gather.narrators.list()).items[0].id,
        generate_audio=True,
    )
    ready = await gather.questions.wait_until_audio_ready(question)
    later = [each async for each in gather.questions.wait_until_all_audio_ready([question.id])]
    again = await gather.questions.get(question.id)
    return [question, ready, *later, again, *(await gather.questions.list()).items]


async def arrange(gather: Any, edition: str, question_id: str) -> list[Any]:
    """Use every method of the interviews."""
    rich = {"survey_questions": [{"id": "s-1", "knockout": True}], "keywords": ["python"]}
    interview = await gather.interviews.create(
        title="Engineer",
        display_name="Engineer",
        interview_type="standard",
        question_ids=[question_id],
        description="First round",
        language="en",
        **(rich if edition == "B" else {}),
    )
    await gather.interviews.bulk_update(
        [interview.id],
        mode="merge",
        title="Engineer II",
        display_name="Engineer II",
        keywords=["go"],
        removed_keywords=["python"],
        removed_question_ids=["q"],
        removed_survey_question_ids=["s"],
        removed_ai_text_question_ids=["t"],
    )
    await gather.interviews.bulk_update(
        [interview.id], mode="overwrite", template_interview_id=interview.id
    )
    options = {"team_id": None} if edition == "A" else {"team_id": (await team(gather)).id}
    again = await gather.interviews.get(interview.id, **options)
    listed = gather.interviews.list(archived=True, interview_type="standard", status="active")
    return [interview, again, *(await listed).items]


async def team(gather: Any) -> Any:
    """Return the key's team."""
    return (await gather.teams.list()).items[0]


async def introduce(gather: Any) -> list[Any]:
    """Use every method of the candidates."""
    first = await gather.candidates.create(
        first_name="Ann",
        last_name="Lee",
        email="ann@example.com",
        phone="+12025550123",
        external_id="crm-1",
        timezone="America/New_York",
        sms_opt_in=True,
    )
    bob = NewCandidate("Bob", "Ray", "bob@example.com", "+12025550124", external_id="crm-2")
    second = await gather.candidates.get_or_create(bob)
    assert (await gather.candidates.get_or_create(bob)).id == second.id
    assert await gather.candidates.find_by_external_id("crm-3") is None
    listed = (await gather.candidates.list(external_id="crm-1", archived=False)).items
    again = await gather.candidates.get(first.id)
    return [first, second, again, *listed]


async def invite(gather: Any, fake: FakeGather, candidate: Candidate, interview: Any) -> list[Any]:
    """Use every method of the candidate interviews."""
    link = await gather.candidate_interviews.create(
        candidate_id=candidate.id,
        interview_id=interview.id,
        send_invite=True,
        delivery_types=["email", "sms"],
        expiry_days=7,
        external_redirect_uri="https://example.com/thanks",
    )
    there = await gather.candidate_interviews.get_or_create(
        candidate_id=candidate.id, interview_id=interview.id
    )
    resent = await gather.candidate_interviews.resend_invite(link.id, delivery_types=["sms"])
    bare = await gather.candidate_interviews.resend_invite(link.id)
    fake.complete_interview(link.id)
    done = await gather.candidate_interviews.wait_until_completed(link.id)
    summarized = await gather.candidate_interviews.wait_until_summarized(link.id)
    results = await gather.candidate_interviews.results(link.id)
    hired = await gather.candidate_interviews.update_status(link.id, "hired")
    again = await gather.candidate_interviews.get(link.id)
    listed = gather.candidate_interviews.list(
        candidate_id=candidate.id, interview_id=interview.id, status="hired"
    )
    links = [link, there, resent, bare, done, hired, again, *(await listed).items]
    return [*links, summarized, results]


async def organise(gather: Any) -> list[Any]:
    """Use every method of narrators, message groups, teams and users."""
    narrator = (await gather.narrators.list()).items[0]
    group = (await gather.message_groups.list()).items[0]
    home = await team(gather)
    north = await gather.teams.create([NewTeam("North", display_name="North")])
    south = await gather.teams.create(name="South", description="Warm", user_ids=[])
    people = await gather.users.create(
        [
            NewUser(
                first_name="Bo",
                last_name="Li",
                email="bo@example.com",
                phone="+12025550125",
                team_ids=[home.id],
                create_auth0_account=True,
            )
        ]
    )
    user = await gather.users.create(
        first_name="Cy", last_name="Oh", email="cy@example.com", team_ids=[south.id]
    )
    users = (await gather.users.list(team_id=home.id, include_teams=False)).items
    mine = (await gather.teams.list(user_id=user.id)).items
    again = [await gather.narrators.get(narrator.id), await gather.message_groups.get(group.id)]
    assert [each.id for each in mine] == [south.id]
    return [narrator, group, home, *north, south, *people, user, *users, *again]


@EDITIONS
async def test_every_request_of_the_client_is_documented(contract: Any, edition: Any) -> None:
    """All methods of all resources send documented requests only, and reach every operation."""
    clock = VirtualClock()
    async with (
        FakeGather(edition=edition, clock=clock) as fake,
        fake.client() as real,
    ):
        gather: Any = Recorded(real)
        questions = await ask(gather, fake)
        interviews = await arrange(gather, edition, questions[0].id)
        candidates = await introduce(gather)
        links = await invite(gather, fake, candidates[0], interviews[0])
        others = await organise(gather)

        assert gather.taken == methods_of(real)
        reached = {
            contract.check_request(request.method, request.path, request.query, request.json)
            for request in fake.requests
        }
        assert reached == contract.public_operations
        assert {request.status for request in fake.requests} <= {200, 201}
        for answer in [*questions, *interviews, *candidates, *links, *others]:
            # The one field whose name the documentation doesn't show.
            assert answer.extra.keys() <= {"teams"}, type(answer)


async def test_every_request_of_the_client_carries_what_a_server_needs() -> None:
    """The key goes into its own header, the body is declared as JSON, and nothing is sent twice."""
    async with (
        FakeGather() as fake,
        fake.client() as gather,
    ):
        await introduce(gather)
        for request in fake.requests:
            assert "authorization" not in request.headers
            assert "cookie" not in request.headers
            assert request.headers["user-agent"].startswith("gather-async")
            is_json = request.headers.get("content-type", "").startswith("application/json")
            assert is_json is (request.method != "GET")
