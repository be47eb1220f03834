"""What the resources have in common, seen at the server."""

import inspect
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from gather_async import (
    DEFAULT_RATE_LIMITS,
    DEFAULT_RETRY,
    DEFAULT_TIMEOUT,
    PRODUCTION,
    STAGING,
    BadRequestError,
    Candidate,
    GatherClient,
    InvalidRequestError,
    NewCandidate,
    NewTeam,
    NewUser,
    NotFoundError,
    RateLimit,
    Response,
    RetryPolicy,
)
from gather_async.testing import FakeGather


async def test_what_is_created_is_sent_under_its_wire_names(
    fake_gather: FakeGather, gather_client: GatherClient
) -> None:
    """None is left out, False is not, and the same person comes back."""
    new = NewCandidate("Ada", "L", "ada@example.com", "+12025550123", sms_opt_in=False)
    created = await gather_client.candidates.create(new)
    assert fake_gather.requests[-1].json == {
        "firstName": "Ada",
        "lastName": "L",
        "email": "ada@example.com",
        "phone": "+12025550123",
        "smsOptIn": False,
    }
    for name in ("first_name", "last_name", "email", "phone", "external_id", "sms_opt_in"):
        assert getattr(created, name) == getattr(new, name)


async def test_teams_and_users_are_sent_under_their_wire_names(
    fake_gather: FakeGather, gather_client: GatherClient
) -> None:
    """Tuples become arrays; a user without a phone sends none."""
    team = (await gather_client.teams.list()).items[0]
    await gather_client.teams.create(
        [NewTeam("A", display_name="B", user_ids=[fake_gather.user_id])]
    )
    posts = [each for each in fake_gather.requests if each.method == "POST"]
    assert posts[-1].json == {
        "teams": [{"name": "A", "displayName": "B", "userIds": [fake_gather.user_id]}]
    }
    user = NewUser("Ada", "L", "ada@example.com", [team.id], create_auth0_account=False)
    await gather_client.users.create([user])
    posts = [each for each in fake_gather.requests if each.method == "POST"]
    assert posts[-1].json == {
        "users": [
            {
                "firstName": "Ada",
                "lastName": "L",
                "email": "ada@example.com",
                "teamIds": [team.id],
                "createAuth0Account": False,
            }
        ]
    }


@pytest.mark.parametrize(
    "value",
    [Candidate(id="c"), ["a"], b"a", datetime(2025, 6, 1, tzinfo=UTC), object(), {"a": 1}],
    ids=lambda value: type(value).__name__,
)
async def test_a_filter_that_is_no_single_value_is_refused(
    fake_gather: FakeGather, gather_client: GatherClient, value: Any
) -> None:
    """A model in the place of its id would be sent as its repr, and find nothing."""
    with pytest.raises(InvalidRequestError, match="model"):
        await gather_client.candidate_interviews.list(candidate_id=value)
    assert not fake_gather.requests


async def test_questions_are_listed_with_any_filter(
    fake_gather: FakeGather, gather_client: GatherClient
) -> None:
    """The list's parameters are undocumented, so they go out as they are named."""
    with pytest.raises(BadRequestError):
        await gather_client.questions.list(teamId="t", archived=False, limit=5, unused=None)
    query = fake_gather.requests[-1].query
    assert {name: query[name] for name in ("teamId", "archived", "limit")} == {
        "teamId": ["t"],
        "archived": ["false"],
        "limit": ["5"],
    }
    assert "unused" not in query


async def test_what_a_call_returned_has_its_request_id(
    fake_gather: FakeGather, gather_client: GatherClient
) -> None:
    """Objects and pages remember it; it is neither compared nor shown, nor in what a list holds."""
    made = await gather_client.interviews.create(title="Engineer")
    read = await gather_client.interviews.get(made.id)
    page = await gather_client.interviews.list()
    ids = [made.request_id, read.request_id, page.request_id]
    assert len(set(ids)) == 3
    assert all(ids)
    assert page.items[0].request_id is None
    assert page.items[0] == read == made
    assert str(read.request_id) not in repr(read) + repr(page)
    assert "request_id" not in read.to_dict()
    assert fake_gather.requests[-1].method == "GET"


async def test_a_raw_response_is_returned_whole(
    fake_gather: FakeGather, gather_client: GatherClient
) -> None:
    """Status, headers, body and request id; an error is still one, and a body need not be JSON."""
    response = await gather_client.request("GET", "/qsi/gather/teams", raw=True)
    assert isinstance(response, Response)
    assert response.status == 200
    assert response.headers["content-type"].startswith("application/json")
    assert json.loads(response.body)["meta"]["requestId"] == response.request_id
    assert fake_gather.api_key not in repr(response)
    with pytest.raises(NotFoundError):
        await gather_client.request("GET", "/qsi/gather/interviews/none", raw=True)
    fake_gather.html_next(status=200)
    page = await gather_client.request("GET", "/qsi/gather/teams", raw=True)
    assert page.body.startswith(b"<!DOCTYPE html>")
    assert page.request_id is None


async def test_the_creator_comes_from_the_environment(
    fake_gather: FakeGather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`GATHER_USER_ID` is the default; a client's own wins, and so does an explicit None."""
    monkeypatch.setenv("GATHER_USER_ID", fake_gather.user_id)
    async with fake_gather.client() as gather:
        await gather.questions.create(title="Why?")
        assert fake_gather.requests[-1].json["userId"] == fake_gather.user_id
    monkeypatch.setenv("GATHER_USER_ID", "someone")
    async with fake_gather.client(user_id=fake_gather.user_id) as gather:
        await gather.questions.create(title="Why?")
        assert fake_gather.requests[-1].json["userId"] == fake_gather.user_id


async def test_a_missing_creator_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server asks for a `userId`, the error's note names the three places for it."""
    monkeypatch.delenv("GATHER_USER_ID", raising=False)
    async with FakeGather(strict_users=True) as fake, fake.client() as gather:
        with pytest.raises(BadRequestError) as caught:
            await gather.questions.create(title="Why?")
        assert "GATHER_USER_ID" in caught.value.__notes__[0]
        with pytest.raises(BadRequestError) as caught:
            await gather.questions.create(title="Why?", user_id="a stranger")
        assert not hasattr(caught.value, "__notes__")


def test_the_defaults_have_names() -> None:
    """What a client uses if nothing else is said can be read and built upon."""
    defaults = {
        name: each.default
        for name, each in inspect.signature(GatherClient.__init__).parameters.items()
    }
    assert defaults["timeout"] == DEFAULT_TIMEOUT == 30.0
    assert defaults["retry"] == DEFAULT_RETRY == RetryPolicy()
    assert defaults["rate_limits"] == DEFAULT_RATE_LIMITS
    assert (RateLimit(100, 60), RateLimit(1000, per=3600)) == DEFAULT_RATE_LIMITS
    assert GatherClient("key").base_url == PRODUCTION
    assert GatherClient("key", base_url=STAGING).base_url == STAGING
