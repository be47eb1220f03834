"""The questions of FakeGather. Source: /api-reference/questions."""

from collections.abc import Sequence
from typing import Any

from gather_async.testing.fake.messages import Reply, invalid, no_such_path, not_found
from gather_async.testing.fake.state import Row, page_of
from gather_async.testing.fake.validation import BodyRule, QueryRule, maybe_empty, switch, text, uri
from gather_async.testing.fake_audio import begin_audio, show_question
from gather_async.testing.fake_call import Call

__all__ = ["create_question", "get_question", "list_questions"]

# Only userId is documented as required (edition A); the title is inferred from every sample.
_CREATE = BodyRule(
    {
        "userId": text,
        "title": text,
        "description": maybe_empty,
        "audioURL": uri,
        "narratorId": text,
        "questionScript": text,
        "generateAudio": switch,
    },
    required=("title",),
)
_NO_QUERY = QueryRule()
_LIST = QueryRule(paged=True)  # no size parameter is known


def create_question(call: Call) -> Reply:
    """Answer ``POST /qsi/gather/questions``."""
    world, body = call.world, _CREATE.check(call.body)
    _check_creator(call, body)
    narrator_id = body.get("narratorId")
    if narrator_id is not None and world.narrators.get(narrator_id) is None:
        raise not_found("Narrator", narrator_id)
    if body.get("generateAudio") and "questionScript" not in body:
        raise invalid("questionScript", "is required to generate audio")
    question: Row = {
        "id": world.new_id(),
        "title": body["title"],
        "audioURL": body.get("audioURL"),
        "description": body.get("description"),
        "narratorId": narrator_id or world.narrators.order[0]["id"],
        "questionScript": body.get("questionScript"),
        "organizationId": world.organization_id,
        "teamId": world.team_id,
        "createdById": body.get("userId", world.user_id),
        **world.stamps(),
        "archivedAt": None,
    }
    # The quickstart's sample sends audioURL, no generateAudio, and promises generated audio.
    if body.get("generateAudio", True) and "questionScript" in body:
        begin_audio(world, question)
    world.questions.add(question)
    return Reply(status=call.created, data={"question": show_question(world, question)})


def _check_creator(call: Call, body: dict[str, Any]) -> None:
    """Refuse a missing or foreign creator. Editions disagree: required in A only."""
    user_id = body.get("userId")
    if user_id is None:
        if call.world.behaviour.edition == "A":
            raise invalid("userId", "is required")
    elif call.world.behaviour.strict_users and call.world.users.get(user_id) is None:
        raise invalid("userId", "is no user of this organization and team")


def get_question(call: Call) -> Reply:
    """Answer ``GET /qsi/gather/questions/{questionId}``."""
    _NO_QUERY.check(call.query)
    question = call.world.questions.get(call.id)
    if question is None:
        raise not_found("Question", call.id)
    return Reply(data={"question": show_question(call.world, question)})


def list_questions(call: Call) -> Reply:
    """Answer ``GET /qsi/gather/questions``, known from one sample call only."""
    world, style = call.world, call.world.behaviour.questions_list
    if style == "missing":
        raise no_such_path(call.path)
    query = (_LIST if style == "paged" else QueryRule(texts=("page",))).check(call.query)
    rows: Sequence[Row] = [] if style == "empty" else world.questions.order
    counts = None
    if style == "paged":
        rows, page = page_of(rows, query["page"], world.behaviour.questions_page_size)
        counts = page if world.behaviour.page_counts else None
    shown = [show_question(world, row) for row in rows]
    return Reply(data={"questions": shown}, pagination=counts)
