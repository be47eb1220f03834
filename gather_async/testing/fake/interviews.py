"""The interviews of FakeGather, in both editions. Source: /api-reference/interviews."""

from typing import Any

from gather_async.testing.fake.messages import FakeRequest, Reply, invalid, not_found
from gather_async.testing.fake.state import Row, ServerState, page_of
from gather_async.testing.fake.validation import (
    BodyRule,
    QueryRule,
    boolean,
    list_of,
    maybe_empty,
    objects,
    one_of,
    text,
)
from gather_async.webhooks.events import InterviewCreated, InterviewUpdated

__all__ = [
    "bulk_update_interviews",
    "create_interview",
    "get_interview",
    "list_interviews",
    "show_interview",
]

_REMOVALS = {
    "removedKeywords": "_keywords",
    "removedQuestionIds": "_questions",
    "removedSurveyQuestionIds": "_surveys",
    "removedAITextQuestionIds": "_ai_texts",
}
_RULE = BodyRule(
    {
        "interviewIds": list_of(text, least=1),
        "mode": one_of("overwrite", "merge"),
        "title": text,
        "displayName": text,
        "keywords": list_of(text),
        "templateInterviewId": text,
        **dict.fromkeys(_REMOVALS, list_of(text)),
    },
    required=("interviewIds",),
)


def bulk_update_interviews(call: FakeRequest) -> Reply:
    """Answer ``PATCH /qsi/gather/interviews/bulk-update``; without ``meta``, as the example is."""
    world, body = call.world, _RULE.check(call.body)
    template = _template(call, body)
    _check_mode(body)
    errors, updated = [], 0
    for interview_id in dict.fromkeys(body["interviewIds"]):
        interview = world.interviews.get(interview_id)
        if interview is None:
            errors.append({"interviewId": interview_id, "message": "Interview not found"})
            continue
        _change(interview, body, template)
        interview["updatedAt"] = world.now()
        updated += 1
        world.emit(InterviewUpdated.NAME, {"interviewId": interview_id})
    outcome = {
        "success": not errors,
        "updatedCount": updated,
        "errors": errors,
        "templateInterviewId": body.get("templateInterviewId"),
    }
    return Reply(data=outcome, has_meta=False)


def _check_mode(body: dict[str, Any]) -> None:
    """Refuse what only the other mode can do."""
    if body.get("mode") == "overwrite":
        for name in _REMOVALS:
            if name in body:
                raise invalid(name, "is for merge mode")
    elif body.get("mode") == "merge" and "templateInterviewId" in body:
        raise invalid("templateInterviewId", "is for overwrite mode")


def _template(call: FakeRequest, body: dict[str, Any]) -> Row | None:
    """Return the interview to copy from."""
    template_id = body.get("templateInterviewId")
    if template_id is None:
        return None
    template = call.world.interviews.get(template_id)
    if template is None:
        raise not_found("Interview", template_id)
    return template


def _change(interview: Row, body: dict[str, Any], template: Row | None) -> None:
    """Carry out one interview's change."""
    if template is not None:
        for name in ("_questions", "_surveys", "_keywords"):
            interview[name] = list(template[name])
    for name in ("title", "displayName"):
        interview[name] = body.get(name, interview[name])
    if "keywords" in body:
        kept = [] if body.get("mode") == "overwrite" else interview["_keywords"]
        interview["_keywords"] = list(dict.fromkeys([*kept, *body["keywords"]]))
    for removal, name in _REMOVALS.items():
        removed = body.get(removal, ())
        interview[name] = [item for item in interview.get(name, ()) if item not in removed]


STATUSES = ("active", "paused", "closed", "archived")  # edition B numbers them 0 to 3

# Required fields are inferred: every sample sends these two.
_REQUIRED = ("title", "interviewType")
_EDITION_A = {
    "title": text,
    "displayName": text,
    "interviewType": one_of("standard", "questionnaire"),
    "description": maybe_empty,
    "language": text,
    "questionIds": list_of(text),
}
_EDITION_B = _EDITION_A | {
    "interviewType": one_of("standard"),
    "surveyQuestions": objects(BodyRule({"id": text, "knockout": boolean}, required=("id",))),
    "keywords": list_of(text),
}
_CREATE = {"A": BodyRule(_EDITION_A, _REQUIRED), "B": BodyRule(_EDITION_B, _REQUIRED)}
_GET = {"A": QueryRule(), "B": QueryRule(texts=("teamId",))}
_LIST = QueryRule(
    texts=("status",),
    words={"interviewType": ("standard", "questionnaire")},
    booleans={"archived": False},
    size="limit",
    default_size=50,
    paged=True,
)


def create_interview(call: FakeRequest) -> Reply:
    """Answer ``POST /qsi/gather/interviews``."""
    world, body = call.world, _CREATE[call.edition].check(call.body)
    question_ids: list[str] = body.get("questionIds", [])
    for question_id in question_ids:
        if world.questions.get(question_id) is None:
            raise not_found("Question", question_id)
    if len(set(question_ids)) < len(question_ids):
        raise invalid("questionIds", "must not repeat an id")
    interview: Row = {
        "id": world.new_id(),
        "title": body["title"],
        "displayName": body.get("displayName", body["title"]),
        "interviewType": body["interviewType"],
        "_status": 0,
        "description": body.get("description"),
        "language": body.get("language", "en"),
        "_questions": list(question_ids),
        "_surveys": [survey["id"] for survey in body.get("surveyQuestions", [])],
        "_keywords": list(body.get("keywords", [])),
        "_team": world.team_id,
        **world.stamps(),
    }
    world.interviews.add(interview)
    world.emit(InterviewCreated.NAME, {"interviewId": interview["id"]})
    return Reply(status=call.created, data=_single(world, interview))


def get_interview(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/interviews/{interviewId}``."""
    world, query = call.world, _GET[call.edition].check(call.query)
    interview = world.interviews.get(call.id)
    if interview is None or query.get("teamId", interview["_team"]) != interview["_team"]:
        raise not_found("Interview", call.id)
    return Reply(data=_single(world, interview))


def list_interviews(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/interviews``: a bare array in A, a keyed one in B (inferred)."""
    world, query = call.world, _LIST.check(call.query)
    rows = world.interviews.find(
        interviewType=query.get("interviewType"), _status=_status_number(query.get("status"))
    )
    rows = world.interviews.visible(rows, archived=query["archived"])
    rows, counts = page_of(world.listed(rows), query["page"], query["size"])
    shown: Any = [show_interview(world, row) for row in rows]
    return Reply(
        data=shown if call.edition == "A" else {"interviews": shown},
        pagination=counts if world.options.page_counts else None,
    )


def _status_number(status: str | None) -> int | None:
    """Return the filter as a number; -1, which nothing has, for an unknown word."""
    if status is None or status in STATUSES:
        return None if status is None else STATUSES.index(status)
    return int(status) if status in {"0", "1", "2", "3"} else -1


def _single(world: ServerState, interview: Row) -> Any:
    """Return ``data`` of one interview: flat in edition A, nested in edition B."""
    shown = show_interview(world, interview)
    return shown if world.options.edition == "A" else {"interview": shown}


def show_interview(world: ServerState, interview: Row) -> Row:
    """Return an interview as the API shows it."""
    shown = {name: value for name, value in interview.items() if name[0] != "_"}
    status = interview["_status"]
    shown["status"] = STATUSES[status] if world.options.edition == "A" else status
    shown["questions"] = [
        {"id": key, "title": world.questions.rows[key]["title"], "ordinal": ordinal}
        for ordinal, key in enumerate(interview["_questions"], start=1)
    ]
    return shown
