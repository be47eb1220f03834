"""The documented rules that FakeGather enforces, and the undocumented ones one can choose."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gather_async.testing import FakeGather

Call = Callable[..., Awaitable[tuple[int, Any]]]
INTERVIEW = {"title": "a", "interviewType": "standard"}


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[FakeGather, Call]]:
    """A server, and a function that sends a request and returns status and body."""
    async with FakeGather(**options) as fake:
        headers = {"x-api-key": fake.api_key}
        async with aiohttp.ClientSession(fake.base_url, headers=headers) as session:

            async def call(method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
                url = f"/qsi/gather/{path}"
                async with session.request(method, url, **kwargs) as response:
                    return response.status, await response.json()

            yield fake, call


def person(**changes: Any) -> dict[str, Any]:
    """A candidate's body."""
    body = {"firstName": "A", "lastName": "B", "email": "a@b.c", "phone": "+1234567890"}
    return body | changes


async def question(call: Call, fake: FakeGather, title: str = "a") -> str:
    """Create a question; returns its id."""
    body = {"userId": fake.user_id, "title": title, "questionScript": "b"}
    _, answer = await call("POST", "questions", json=body)
    identifier: str = answer["data"]["question"]["id"]
    return identifier


@pytest.mark.parametrize(("edition", "status"), [("A", 400), ("B", 201)])
async def test_user_id_is_required_in_edition_a_only(edition: str, status: int) -> None:
    """Edition B takes the creator from the key."""
    async with serving(edition=edition) as (fake, call):
        got, answer = await call("POST", "questions", json={"title": "a", "questionScript": "b"})
        assert got == status
        if status == 400:
            assert answer["error"]["details"] == {"field": "userId", "reason": "is required"}
        else:
            assert answer["data"]["question"]["createdById"] == fake.user_id


async def test_unknown_users_are_refused_on_demand() -> None:
    """Any ``userId`` will do, unless ``strict_users`` asks for edition A's rule."""
    body = {"userId": "user-uuid", "title": "a", "questionScript": "b"}
    async with serving() as (_, call):
        assert (await call("POST", "questions", json=body))[0] == 201
    async with serving(strict_users=True) as (fake, call):
        assert (await call("POST", "questions", json=body))[0] == 400
        assert (await call("POST", "questions", json=body | {"userId": fake.user_id}))[0] == 201


async def test_a_question_needs_a_known_narrator_and_a_script() -> None:
    """An unknown narrator is 404; audio can't be generated from nothing."""
    async with serving(edition="B") as (_, call):
        status, answer = await call("POST", "questions", json={"title": "a", "narratorId": "x"})
        assert (status, answer["error"]["details"]) == (404, {"resource": "Narrator", "id": "x"})
        body = {"title": "a", "generateAudio": True}
        status, answer = await call("POST", "questions", json=body)
        assert (status, answer["error"]["details"]["field"]) == (400, "questionScript")


@pytest.mark.parametrize(("edition", "status"), [("A", 201), ("B", 400)])
async def test_questionnaires_are_made_in_edition_a_only(edition: str, status: int) -> None:
    """Edition B creates standard interviews, with surveys and keywords that A doesn't know."""
    async with serving(edition=edition) as (_, call):
        body = {"title": "a", "interviewType": "questionnaire"}
        assert (await call("POST", "interviews", json=body))[0] == status
        rich = INTERVIEW | {"keywords": ["x"], "surveyQuestions": [{"id": "s", "knockout": True}]}
        assert (await call("POST", "interviews", json=rich))[0] == (400 if status == 201 else 201)


async def test_editions_wrap_interviews_differently() -> None:
    """A: flat, status as a word, bare list. B: nested, a number, keyed list."""
    async with serving(edition="A") as (_, call):
        _, answer = await call("POST", "interviews", json=INTERVIEW)
        assert answer["data"]["status"] == "active"
        _, answer = await call("GET", "interviews", params={"status": "active"})
        assert [each["title"] for each in answer["data"]] == ["a"]
    async with serving(edition="B") as (_, call):
        _, answer = await call("POST", "interviews", json=INTERVIEW)
        assert answer["data"]["interview"]["status"] == 0
        for status, count in (("active", 1), ("0", 1), ("1", 0), ("closed", 0), ("odd", 0)):
            _, answer = await call("GET", "interviews", params={"status": status})
            assert len(answer["data"]["interviews"]) == count


async def test_the_team_can_be_overridden_in_edition_b_only() -> None:
    """``teamId`` finds what the team has; edition A refuses the parameter."""
    for edition, own, other in (("A", 400, 400), ("B", 200, 404)):
        async with serving(edition=edition) as (fake, call):
            await call("POST", "interviews", json=INTERVIEW)
            path = f"interviews/{fake.interviews[0]['id']}"
            assert (await call("GET", path, params={"teamId": fake.team_id}))[0] == own
            assert (await call("GET", path, params={"teamId": "other"}))[0] == other


async def test_interviews_keep_the_order_of_their_questions() -> None:
    """Ordinals count from 1; unknown and repeated questions are refused."""
    async with serving() as (fake, call):
        first, second = await question(call, fake, "one"), await question(call, fake, "two")
        body = INTERVIEW | {"questionIds": [second, first]}
        _, answer = await call("POST", "interviews", json=body)
        assert answer["data"]["questions"] == [
            {"id": second, "title": "two", "ordinal": 1},
            {"id": first, "title": "one", "ordinal": 2},
        ]
        assert (await call("POST", "interviews", json=INTERVIEW | {"questionIds": ["x"]}))[0] == 404
        body = INTERVIEW | {"questionIds": [first, first]}
        assert (await call("POST", "interviews", json=body))[0] == 400


async def test_bulk_update_merges_overwrites_and_clones() -> None:
    """Merge adds and removes; overwrite copies a template; unknown ids are errors on 200."""
    async with serving() as (fake, call):
        questions = [await question(call, fake) for _ in range(2)]
        for title, ids in (("one", questions), ("two", [])):
            await call("POST", "interviews", json=INTERVIEW | {"title": title, "questionIds": ids})
        one, two = (interview["id"] for interview in fake.interviews)
        change = {"mode": "merge", "title": "uno", "removedQuestionIds": [questions[0]]}
        body = {"interviewIds": [one, one, "absent"]} | change
        _, answer = await call("PATCH", "interviews/bulk-update", json=body)
        assert answer.keys() == {"data"}
        assert (answer["data"]["success"], answer["data"]["updatedCount"]) == (False, 1)
        assert len(answer["data"]["errors"]) == 1
        assert fake.interviews[0]["title"] == "uno"
        assert [each["id"] for each in fake.interviews[0]["questions"]] == [questions[1]]
        clone = {"interviewIds": [two], "mode": "overwrite", "templateInterviewId": one}
        _, answer = await call("PATCH", "interviews/bulk-update", json=clone)
        assert answer["data"]["success"]
        assert fake.interviews[1]["questions"] == fake.interviews[0]["questions"]
        assert fake.interviews[1]["title"] == "two"
        for status, wrong in (
            (400, {"interviewIds": []}),
            (400, {"interviewIds": [one], "mode": "replace"}),
            (400, {"interviewIds": [one], "mode": "overwrite", "removedKeywords": ["x"]}),
            (400, {"interviewIds": [one], "mode": "merge", "templateInterviewId": two}),
            (404, {"interviewIds": [one], "mode": "overwrite", "templateInterviewId": "x"}),
        ):
            assert (await call("PATCH", "interviews/bulk-update", json=wrong))[0] == status


async def test_sms_needs_opt_in() -> None:
    """An SMS invite to someone who never agreed is refused, and nothing is sent or made."""
    async with serving() as (fake, call):
        await call("POST", "interviews", json=INTERVIEW)
        _, answer = await call("POST", "candidates", json=person())
        pair = {
            "candidateId": answer["data"]["id"],
            "interviewId": fake.interviews[0]["id"],
            "sendInvite": True,
        }
        for types, status in ((["email", "sms"], 400), ([], 400), (["email"], 201)):
            body = pair | {"deliveryTypes": types}
            assert (await call("POST", "candidate-interviews", json=body))[0] == status
        path = f"candidate-interviews/{fake.candidate_interviews[0]['id']}/resend-invite"
        assert (await call("POST", path, json={"deliveryTypes": ["sms"]}))[0] == 400
        assert (await call("POST", path, json={"deliveryTypes": ["email"]}))[0] == 200
        assert [invite.is_resend for invite in fake.invite_log] == [False, True]
        assert fake.invites == {(pair["candidateId"], pair["interviewId"]): 2}
        assert fake.invites_by_person == {"a@b.c": 2}


async def test_no_invite_goes_out_unless_asked_for() -> None:
    """Without ``sendInvite`` the link exists, no one is written to, and expiry is the default."""
    async with serving() as (fake, call):
        await call("POST", "interviews", json=INTERVIEW)
        [candidate] = fake.add_candidates(1)
        pair = {"candidateId": candidate, "interviewId": fake.interviews[0]["id"]}
        _, answer = await call("POST", "candidate-interviews", json=pair | {"expiryDays": 7})
        assert answer["data"]["inviteSentAt"] is None
        assert answer["data"]["expiry"] > answer["data"]["createdAt"]
        assert not fake.invites
        for name in pair:
            body = pair | {name: "absent"}
            status, answer = await call("POST", "candidate-interviews", json=body)
            assert (status, answer["error"]["details"]["id"]) == (404, "absent")


async def test_a_person_invited_through_two_records_is_found() -> None:
    """``invites_by_person`` counts by ``externalId``, so a doubled candidate shows."""
    async with serving() as (fake, call):
        await call("POST", "interviews", json=INTERVIEW)
        for _ in range(2):
            _, answer = await call("POST", "candidates", json=person(externalId="crm-1"))
            pair = {"candidateId": answer["data"]["id"], "interviewId": fake.interviews[0]["id"]}
            body = pair | {"sendInvite": True, "deliveryTypes": ["email"]}
            await call("POST", "candidate-interviews", json=body)
        assert set(fake.invites.values()) == {1}
        assert fake.invites_by_person == {"crm-1": 2}


@pytest.mark.parametrize("status", [400, 409])
async def test_duplicates_can_be_refused(status: int) -> None:
    """The rule for duplicates is unknown: they are made, or refused in either way."""
    async with serving(duplicate_status=status) as (fake, call):
        await call("POST", "interviews", json=INTERVIEW)
        for expected in (201, status):
            got, answer = await call("POST", "candidates", json=person(externalId="crm-1"))
            assert got == expected
        assert "duplicate" in answer["error"]["details"]["reason"]
        pair = {
            "candidateId": fake.candidates[0]["id"],
            "interviewId": fake.interviews[0]["id"],
        }
        for expected in (201, status):
            assert (await call("POST", "candidate-interviews", json=pair))[0] == expected


async def test_lists_have_the_documented_pages() -> None:
    """Each list has its own size parameter and default, and counts in ``meta.pagination``."""
    async with serving() as (fake, call):
        fake.add_candidates(230)
        _, answer = await call("GET", "candidates")
        assert len(answer["data"]["candidates"]) == 10
        assert answer["meta"]["pagination"] == {
            "page": 1,
            "limit": 10,
            "total": 230,
            "totalPages": 23,
        }
        _, answer = await call("GET", "candidates", params={"page": "3", "pageSize": "100"})
        assert len(answer["data"]["candidates"]) == 30
        _, answer = await call("GET", "candidates", params={"page": "4", "pageSize": "100"})
        assert answer["data"]["candidates"] == []
        assert (await call("GET", "candidates", params={"limit": "100"}))[0] == 400
        assert (await call("GET", "candidates", params={"pageSize": "101"}))[0] == 400
        query = {"externalId": "person-77"}
        _, answer = await call("GET", "candidates", params=query)
        assert [each["externalId"] for each in answer["data"]["candidates"]] == ["person-77"]
    async with serving(page_counts=False) as (_, call):
        for path in ("candidates", "interviews", "candidate-interviews", "questions"):
            assert "pagination" not in (await call("GET", path))[1]["meta"]


@pytest.mark.parametrize(
    ("style", "status", "sizes"),
    [
        ("paged", 200, [2, 1, 0]),
        ("unpaged", 200, [3, 3, 3]),
        ("empty", 200, [0, 0, 0]),
        ("missing", 404, None),
    ],
)
async def test_the_list_of_questions_has_four_faces(
    style: Any, status: int, sizes: list[int] | None
) -> None:
    """It is hardly documented, so a client must bear pages, no pages, nothing and 404."""
    async with serving(questions_list=style, questions_page_size=2) as (fake, call):
        for _ in range(3):
            await question(call, fake)
        answers = [await call("GET", "questions", params={"page": str(n)}) for n in (1, 2, 3)]
        assert {got for got, _ in answers} == {status}
        if sizes is not None:
            assert [len(answer["data"]["questions"]) for _, answer in answers] == sizes
            assert ("pagination" in answers[0][1]["meta"]) == (style == "paged")
            assert (await call("GET", "questions", params={"limit": "5"}))[0] == 400


async def test_archived_objects_are_listed_on_demand() -> None:
    """``archived`` defaults to false; an archived interview has the status that says so."""
    async with serving() as (fake, call):
        first, _ = fake.add_candidates(2)
        fake.archive(first)
        _, answer = await call("GET", "candidates")
        assert [each["externalId"] for each in answer["data"]["candidates"]] == ["person-1"]
        _, answer = await call("GET", "candidates", params={"archived": "true"})
        assert len(answer["data"]["candidates"]) == 2
        await call("POST", "interviews", json=INTERVIEW)
        fake.archive(fake.interviews[0]["id"])
        assert (await call("GET", "interviews"))[1]["data"] == []
        _, answer = await call("GET", "interviews", params={"archived": "true"})
        assert [each["status"] for each in answer["data"]] == ["archived"]


async def test_teams_and_users_belong_to_each_other() -> None:
    """Users need a team of the organization; teams list by user and users by team."""
    async with serving() as (fake, call):
        body: dict[str, Any] = {"teams": [{"name": "North", "userIds": [fake.user_id]}]}
        _, answer = await call("POST", "teams", json=body)
        north = answer["data"]["teams"][0]["id"]
        _, answer = await call("GET", "teams", params={"userId": fake.user_id})
        assert [each["id"] for each in answer["data"]["teams"]] == [fake.team_id, north]
        _, answer = await call("GET", "teams", params={"userId": "absent"})
        assert answer["data"]["teams"] == []
        assert (await call("POST", "teams", json={"teams": [{"name": "x", "userIds": ["y"]}]}))[
            0
        ] == 400
        user = {"firstName": "a", "lastName": "b", "email": "a@b.c"}
        for teams, status in (([], 400), (["x"], 400), ([north], 201)):
            body = {"users": [user | {"teamIds": teams, "createAuth0Account": True}]}
            assert (await call("POST", "users", json=body))[0] == status
        _, answer = await call("GET", "users", params={"teamId": north, "includeTeams": "false"})
        assert [each["isApiUser"] for each in answer["data"]["users"]] == [True, False]
        assert "teams" not in answer["data"]["users"][0]


async def test_a_revoked_key_is_refused_at_once() -> None:
    """After ``revoke_key`` every request gets 401, without a word about the format."""
    async with serving() as (fake, call):
        assert (await call("GET", "users"))[0] == 200
        fake.revoke_key()
        status, answer = await call("GET", "users")
        assert (status, answer["error"].get("details")) == (401, None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "credentials"),
        ("GET", "questions/"),
        ("GET", "questions/1/2"),
        ("DELETE", "candidates/1"),
        ("PUT", "questions"),
        ("POST", "interviews/bulk-update"),
        ("GET", ""),
    ],
)
async def test_undocumented_operations_do_not_exist(method: str, path: str) -> None:
    """Anything that the documentation doesn't know is 404, the internal operations included."""
    async with serving() as (_, call):
        status, answer = await call(method, path)
        assert (status, answer["error"]["code"]) == (404, "NOT_FOUND")


async def test_creation_answers_what_was_configured() -> None:
    """The success code of creations is undocumented, so it can be chosen."""
    async with serving(created_status=200) as (_, call):
        assert (await call("POST", "candidates", json=person()))[0] == 200
