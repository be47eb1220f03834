"""Narrators, message groups, teams and users of FakeGather, there from the start."""

from typing import Any

from gather_async.testing.fake.messages import FakeRequest, Reply, invalid, not_found
from gather_async.testing.fake.state import Row, ServerState, public
from gather_async.testing.fake.validation import (
    BodyRule,
    QueryRule,
    boolean,
    email,
    list_of,
    maybe_empty,
    objects,
    phone,
    text,
)

__all__ = [
    "create_teams",
    "create_users",
    "get_message_group",
    "get_narrator",
    "list_message_groups",
    "list_narrators",
    "list_teams",
    "list_users",
    "seed_organization",
]

_NO_QUERY = QueryRule()
_TEAM = BodyRule(
    {
        "name": text,
        "displayName": text,
        "description": maybe_empty,
        "userIds": list_of(text),
    },
    required=("name",),
)
_USER = BodyRule(
    {
        "firstName": text,
        "lastName": text,
        "email": email,
        "phone": phone,
        "teamIds": list_of(text, least=1),
        "createAuth0Account": boolean,
    },
    required=("firstName", "lastName", "email", "teamIds"),
)
_TEAMS = BodyRule({"teams": objects(_TEAM, least=1)}, required=("teams",))
_USERS = BodyRule({"users": objects(_USER, least=1)}, required=("users",))
_TEAM_QUERY = QueryRule(texts=("userId",))
_USER_QUERY = QueryRule(texts=("teamId",), booleans={"includeTeams": True})


def list_narrators(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/narrators``. Source: /api-reference/narrators."""
    _NO_QUERY.check(call.query)
    return Reply(data=call.world.narrators.order)


def get_narrator(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/narrators/{narratorId}``."""
    _NO_QUERY.check(call.query)
    narrator = call.world.narrators.get(call.id)
    if narrator is None:
        raise not_found("Narrator", call.id)
    return Reply(data=narrator)


def list_message_groups(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/message-groups``. Source: /api-reference/message-groups."""
    _NO_QUERY.check(call.query)
    return Reply(data={"messageGroups": [public(row) for row in call.world.message_groups.order]})


def get_message_group(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/message-groups/{messageGroupId}``, messages included."""
    _NO_QUERY.check(call.query)
    group = call.world.message_groups.get(call.id)
    if group is None:
        raise not_found("MessageGroup", call.id)
    return Reply(data={"messageGroup": public(group) | {"messages": group["_messages"]}})


def create_teams(call: FakeRequest) -> Reply:
    """Answer ``POST /qsi/gather/teams``: all or nothing. Source: /api-reference/teams."""
    world, body = call.world, _TEAMS.check(call.body)
    for item in body["teams"]:
        for user_id in item.get("userIds", ()):
            if world.users.get(user_id) is None:
                raise invalid("userIds", "holds an id of no user of this organization")
    teams = [_add_team(world, item) for item in body["teams"]]
    return Reply(status=call.created, data={"teams": [public(team) for team in teams]})


def list_teams(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/teams``."""
    world, query = call.world, _TEAM_QUERY.check(call.query)
    teams = world.teams.order
    if "userId" in query:
        user = world.users.get(query["userId"])
        mine = user["_teams"] if user else ()
        teams = [team for team in teams if team["id"] in mine]
    return Reply(data={"teams": [public(team) for team in teams]})


def create_users(call: FakeRequest) -> Reply:
    """Answer ``POST /qsi/gather/users``: all or nothing. Source: /api-reference/users."""
    world, body = call.world, _USERS.check(call.body)
    for item in body["users"]:
        for team_id in item["teamIds"]:
            if world.teams.get(team_id) is None:
                raise invalid("teamIds", "holds an id of no team of this organization")
    users = [_add_user(world, item) for item in body["users"]]
    return Reply(status=call.created, data={"users": [_shown_user(world, user) for user in users]})


def list_users(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/users``; the key of a user's teams is not documented."""
    world, query = call.world, _USER_QUERY.check(call.query)
    users = world.users.order
    if "teamId" in query:
        users = [user for user in users if query["teamId"] in user["_teams"]]
    shown = [_shown_user(world, user, teams=query["includeTeams"]) for user in users]
    return Reply(data={"users": shown})


def _shown_user(world: ServerState, user: Row, *, teams: bool = True) -> Row:
    shown = public(user)
    if teams:
        mine = [world.teams.rows[team_id] for team_id in user["_teams"]]
        shown["teams"] = [{"id": team["id"], "name": team["name"]} for team in mine]
    return shown


def _add_team(world: ServerState, item: dict[str, Any]) -> Row:
    team: Row = {
        "id": world.new_id(),
        "name": item["name"],
        "displayName": item.get("displayName", item["name"]),
        "description": item.get("description"),
        "logoUrl": None,
        "accentColor": "2F6FED",
        "buttonColor": "2F6FED",
        "backgroundImage": None,
        "organizationId": world.organization_id,
        **world.stamps(),
        "archivedAt": None,
    }
    world.teams.add(team)
    for user_id in item.get("userIds", ()):
        world.users.rows[user_id]["_teams"].append(team["id"])
    return team


def _add_user(world: ServerState, item: dict[str, Any]) -> Row:
    return world.users.add(
        {
            "id": world.new_id(),
            "firstName": item["firstName"],
            "lastName": item["lastName"],
            "email": item["email"],
            "phone": item.get("phone"),
            "isApiUser": not item.get("createAuth0Account", False),
            "_teams": list(dict.fromkeys(item["teamIds"])),
        }
    )


def seed_organization(world: ServerState) -> None:
    """Make what an organization has before its first API call."""
    world.organization_id = world.new_id()
    team = _add_team(world, {"name": "talent", "displayName": "Talent"})
    world.team_id = team["id"]
    user = {"firstName": "Robin", "lastName": "Recruiter", "email": "robin@example.com"}
    world.user_id = _add_user(world, user | {"teamIds": [team["id"]]})["id"]
    for name, language, gender in (("Ada", "en", "female"), ("Marco", "es", "male")):
        voice = {
            "id": world.new_id(),
            "name": f"{name} calm",
            "gender": gender,
            "description": "Calm and clear",
        }
        world.narrators.add(
            {"id": world.new_id(), "name": name, "language": language, "voices": [voice]}
        )
    for title, kind in (("Standard invite", "standard"), ("Questionnaire", "questionnaire")):
        _add_message_group(world, title, kind)


def _add_message_group(world: ServerState, title: str, kind: str) -> None:
    message = {
        "id": world.new_id(),
        "type": "INVITE",
        "smsBody": "Your interview: {{link}}",
        "smsEnabled": True,
        "emailSubject": "Your interview",
    }
    world.message_groups.add(
        {
            "id": world.new_id(),
            "title": title,
            "status": "PUBLISHED",
            "type": kind,
            "default": kind == "standard",
            "organizationId": world.organization_id,
            "teamId": world.team_id,
            "createdById": world.user_id,
            **world.stamps(),
            "archivedAt": None,
            "_messages": [message],
        }
    )
