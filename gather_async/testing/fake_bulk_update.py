"""Changing several interviews at once. Source: /api-reference/interviews-bulk-update."""

from typing import Any

from gather_async.testing.fake.messages import Reply, invalid, not_found
from gather_async.testing.fake.state import Row
from gather_async.testing.fake.validation import BodyRule, list_of, one_of, text
from gather_async.testing.fake_call import Call

__all__ = ["bulk_update_interviews"]

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


def bulk_update_interviews(call: Call) -> Reply:
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
        world.emit("interview.updated", {"interviewId": interview_id})
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


def _template(call: Call, body: dict[str, Any]) -> Row | None:
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
