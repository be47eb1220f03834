"""The candidates of FakeGather. Source: /api-reference/candidates."""

from collections.abc import Mapping, Sequence
from typing import Any

from gather_async.testing.fake.messages import FakeRequest, Reply, duplicate, invalid, not_found
from gather_async.testing.fake.state import Row, ServerState, iso, page_of, public
from gather_async.testing.fake.validation import (
    BodyRule,
    QueryRule,
    boolean,
    email,
    list_of,
    one_of,
    phone,
    positive,
    text,
    uri,
)
from gather_async.webhooks.events import (
    CandidateInterviewCompleted,
    CandidateInterviewStatusChanged,
)

__all__ = [
    "add_candidate",
    "complete",
    "create_candidate",
    "create_candidate_interview",
    "get_candidate",
    "get_candidate_interview",
    "get_results",
    "list_candidate_interviews",
    "list_candidates",
    "resend_invite",
    "update_status",
]

STATUSES = (
    "invite_sent",
    "new_response",
    "has_reviewed",
    "partially_completed",
    "hired",
    "archived",
)
_DAY = 86_400.0
_DEFAULT_EXPIRY_DAYS = 14  # the organization's setting; the guide calls 7 to 14 typical
_DELIVERY = one_of("email", "sms")
_CREATE_INVITE = BodyRule(
    {
        "candidateId": text,
        "interviewId": text,
        "sendInvite": boolean,
        "deliveryTypes": list_of(_DELIVERY),
        "expiryDays": positive,
        "externalRedirectUri": uri,
    },
    required=("candidateId", "interviewId"),
)
_STATUS = BodyRule({"status": one_of(*STATUSES)}, required=("status",))
_RESEND = BodyRule({"deliveryTypes": list_of(_DELIVERY, least=1)})
_NO_QUERY = QueryRule()
_LIST_INVITES = QueryRule(
    texts=("candidateId", "interviewId"),
    words={"status": STATUSES},
    size="limit",
    default_size=50,
    paged=True,
)
# The example list shows no more of an item than this.
_LISTED = ("id", "candidateId", "interviewId", "status", "inviteSentAt", "createdAt")


def create_candidate_interview(call: FakeRequest) -> Reply:
    """Answer ``POST /qsi/gather/candidate-interviews``; sends the invite if asked to."""
    world, body = call.world, _CREATE_INVITE.check(call.body)
    candidate_id, interview_id = body["candidateId"], body["interviewId"]
    candidate = world.candidates.get(candidate_id)
    if candidate is None:
        raise not_found("Candidate", candidate_id)
    if world.interviews.get(interview_id) is None:
        raise not_found("Interview", interview_id)
    delivery_types = body.get("deliveryTypes", [])
    if body.get("sendInvite"):
        _check_delivery(candidate, delivery_types)
    status = world.options.duplicate_status
    if status and world.candidate_interviews.find(
        candidateId=candidate_id, interviewId=interview_id
    ):
        raise duplicate(status, "candidateId")
    expiry = world.clock.wall() + body.get("expiryDays", _DEFAULT_EXPIRY_DAYS) * _DAY
    link: Row = {
        "id": world.new_id(),
        "candidateId": candidate_id,
        "interviewId": interview_id,
        "status": "invite_sent",  # the status without an invite is documented nowhere
        "inviteToken": world.new_id().replace("-", ""),
        "expiry": iso(expiry),
        "inviteSentAt": None,
        "externalId": candidate["externalId"],
        **world.stamps(),
    }
    world.candidate_interviews.add(link)
    if body.get("sendInvite"):
        world.count_invite(link, delivery_types, is_resend=False)
    return Reply(status=call.created, data=public(link))


def _check_delivery(candidate: Row, delivery_types: Sequence[str]) -> None:
    """Refuse an invite that can't be delivered. Source: /guides/sending-invites (SMS opt-in)."""
    if not delivery_types:
        raise invalid("deliveryTypes", "must hold at least one delivery type")
    if "sms" in delivery_types and not candidate["smsOptIn"]:
        raise invalid("deliveryTypes", "sms needs a candidate with smsOptIn true")


def get_candidate_interview(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/candidate-interviews/{candidateInterviewId}``."""
    _NO_QUERY.check(call.query)
    return Reply(data=public(_link(call)))


def list_candidate_interviews(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/candidate-interviews``: a bare array."""
    world, query = call.world, _LIST_INVITES.check(call.query)
    rows = world.candidate_interviews.find(
        candidateId=query.get("candidateId"),
        interviewId=query.get("interviewId"),
        status=query.get("status"),
    )
    rows, counts = page_of(world.listed(rows), query["page"], query["size"])
    return Reply(
        data=[{name: row[name] for name in _LISTED} for row in rows],
        pagination=counts if world.options.page_counts else None,
    )


def update_status(call: FakeRequest) -> Reply:
    """Answer ``PATCH .../status``; which changes are legal is not documented, so all are."""
    body, link = _STATUS.check(call.body), _link(call)
    _set_status(call.world, link, body["status"])
    return Reply(data=public(link))


def get_results(call: FakeRequest) -> Reply:
    """Answer ``GET .../results`` with the four fields that are documented."""
    _NO_QUERY.check(call.query)
    world, link = call.world, _link(call)
    ends_at, fails = link.get("_summary", (None, False))
    if ends_at is None and world.options.early_results == "missing":
        raise not_found("CandidateInterviewResults", call.id)
    results: Row = {"summary": None, "summaryStatus": "processing", "scoreCard": None}
    if ends_at is not None and ends_at <= world.clock.monotonic():
        results["summaryStatus"] = "error" if fails else "complete"
        if not fails:
            results["summary"] = "The candidate answered every question."
            results["scoreCard"] = {"evaluationType": "ai_generated"}
    return Reply(data=results)


def resend_invite(call: FakeRequest) -> Reply:
    """Answer ``POST .../resend-invite``; the expiry stays, as nothing says that it moves."""
    body, link = _RESEND.check(call.body), _link(call)
    world = call.world
    delivery_types = body.get("deliveryTypes", ["email"])  # the default is documented nowhere
    _check_delivery(world.candidates.rows[link["candidateId"]], delivery_types)
    world.count_invite(link, delivery_types, is_resend=True)
    link["updatedAt"] = world.now()
    return Reply(data=public(link))


def complete(world: ServerState, link: Row, *, summary_fails: bool) -> None:
    """Let the candidate finish, and the summary be made."""
    ends_at = world.clock.monotonic() + world.options.summary_seconds
    link["_summary"] = (ends_at, summary_fails)
    data = _event_data(link) | {"status": "new_response", "takenAt": world.now()}
    world.emit(CandidateInterviewCompleted.NAME, data)
    _set_status(world, link, "new_response")


def _set_status(world: ServerState, link: Row, status: str) -> None:
    """Change the status, and say so if it is another one."""
    if link["status"] == status:
        return
    link["status"] = status
    link["updatedAt"] = world.now()
    world.emit(CandidateInterviewStatusChanged.NAME, _event_data(link) | {"status": status})


def _event_data(link: Row) -> Row:
    return {
        "candidateInterviewId": link["id"],
        "candidateId": link["candidateId"],
        "interviewId": link["interviewId"],
    }


def _link(call: FakeRequest) -> Row:
    """Return the candidate interview of the path."""
    link = call.world.candidate_interviews.get(call.id)
    if link is None:
        raise not_found("CandidateInterview", call.id)
    return link


# Required fields are inferred from the shortest sample, which sends these four.
_CREATE = BodyRule(
    {
        "firstName": text,
        "lastName": text,
        "email": email,
        "phone": phone,
        "externalId": text,
        "timezone": text,
        "smsOptIn": boolean,
    },
    required=("firstName", "lastName", "email", "phone"),
)
_LIST = QueryRule(
    texts=("externalId",),
    booleans={"archived": False},
    size="pageSize",
    default_size=10,
    paged=True,
)


def create_candidate(call: FakeRequest) -> Reply:
    """Answer ``POST /qsi/gather/candidates``."""
    world, body = call.world, _CREATE.check(call.body)
    status, external_id = world.options.duplicate_status, body.get("externalId")
    if status and external_id and world.candidates.find(externalId=external_id):
        raise duplicate(status, "externalId")
    return Reply(status=call.created, data=public(add_candidate(world, body)))


def add_candidate(world: ServerState, body: Mapping[str, Any]) -> Row:
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


def get_candidate(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/candidates/{candidateId}``."""
    _NO_QUERY.check(call.query)
    candidate = call.world.candidates.get(call.id)
    if candidate is None:
        raise not_found("Candidate", call.id)
    return Reply(data=public(candidate))


def list_candidates(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/candidates``."""
    world, query = call.world, _LIST.check(call.query)
    rows = world.candidates.find(externalId=query.get("externalId"))
    rows = world.candidates.visible(rows, archived=query["archived"])
    rows, counts = page_of(world.listed(rows), query["page"], query["size"])
    return Reply(
        data={"candidates": [public(row) for row in rows]},
        pagination=counts if world.options.page_counts else None,
    )
