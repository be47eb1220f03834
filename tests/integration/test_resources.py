"""What the resources have in common, seen at the server."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gather_async import (
    BadRequestError,
    Candidate,
    GatherClient,
    InvalidRequestError,
    NewCandidate,
    NewTeam,
    NewUser,
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
