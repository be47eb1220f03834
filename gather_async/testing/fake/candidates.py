"""The candidates of FakeGather. Source: /api-reference/candidates."""

from collections.abc import Mapping
from typing import Any

from gather_async.testing.fake.messages import Reply, duplicate, not_found
from gather_async.testing.fake.state import Row, World, page_of, public
from gather_async.testing.fake.validation import BodyRule, QueryRule, email, phone, switch, text
from gather_async.testing.fake_call import Call

__all__ = ["add_candidate", "create_candidate", "get_candidate", "list_candidates"]

# Required fields are inferred from the shortest sample, which sends these four.
_CREATE = BodyRule(
    {
        "firstName": text,
        "lastName": text,
        "email": email,
        "phone": phone,
        "externalId": text,
        "timezone": text,
        "smsOptIn": switch,
    },
    required=("firstName", "lastName", "email", "phone"),
)
_NO_QUERY = QueryRule()
_LIST = QueryRule(
    texts=("externalId",),
    booleans={"archived": False},
    size="pageSize",
    default_size=10,
    paged=True,
)


def create_candidate(call: Call) -> Reply:
    """Answer ``POST /qsi/gather/candidates``."""
    world, body = call.world, _CREATE.check(call.body)
    status, external_id = world.behaviour.duplicate_status, body.get("externalId")
    if status and external_id and world.candidates.find(externalId=external_id):
        raise duplicate(status, "externalId")
    return Reply(status=call.created, data=public(add_candidate(world, body)))


def add_candidate(world: World, body: Mapping[str, Any]) -> Row:
    """Keep a new candidate."""
    candidate: Row = {
        "id": world.new_id(),
        "firstName": body["firstName"],
        "lastName": body["lastName"],
        "email": body["email"],
        "phone": body["phone"],
        "resumeUrl": None,
        "externalId": body.get("externalId"),
        "linkedInURL": None,
        "source": "api",
        "timezone": body.get("timezone"),
        "smsOptIn": body.get("smsOptIn", False),
        **world.stamps(),
    }
    return world.candidates.add(candidate)


def get_candidate(call: Call) -> Reply:
    """Answer ``GET /qsi/gather/candidates/{candidateId}``."""
    _NO_QUERY.check(call.query)
    candidate = call.world.candidates.get(call.id)
    if candidate is None:
        raise not_found("Candidate", call.id)
    return Reply(data=public(candidate))


def list_candidates(call: Call) -> Reply:
    """Answer ``GET /qsi/gather/candidates``."""
    world, query = call.world, _LIST.check(call.query)
    rows = world.candidates.find(externalId=query.get("externalId"))
    rows = world.candidates.visible(rows, archived=query["archived"])
    rows, counts = page_of(rows, query["page"], query["size"])
    return Reply(
        data={"candidates": [public(row) for row in rows]},
        pagination=counts if world.behaviour.page_counts else None,
    )
