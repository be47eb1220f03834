"""The questions of FakeGather. Source: /api-reference/questions."""

import math
from collections.abc import Sequence
from typing import Any

from attrs import define

from gather_async.clock import Timer
from gather_async.testing.fake.messages import FakeRequest, Reply, invalid, no_such_path, not_found
from gather_async.testing.fake.state import Row, ServerState, page_of
from gather_async.testing.fake.validation import (
    BodyRule,
    QueryRule,
    boolean,
    maybe_empty,
    text,
    uri,
)
from gather_async.webhooks.events import QuestionAudioGenerated

__all__ = [
    "begin_audio",
    "create_question",
    "end_audio",
    "get_question",
    "list_questions",
    "listen_for_audio",
    "show_question",
    "stop_timers",
]


@define
class _Generation:
    """One question's audio in the making.

    Attributes:
        ends_at: On the clock's ``monotonic``.
        fails: How it will end.
        is_announced: Whether its event went out.
        timer: What will send the event.
    """

    ends_at: float
    fails: bool
    is_announced: bool = False
    timer: Timer | None = None


def begin_audio(world: ServerState, question: Row) -> None:
    """Start generating the audio of a new question."""
    seconds = world.options.audio_seconds
    if callable(seconds):
        seconds = seconds()
    fails = question["title"] in world.options.fail_audio_for
    question["_audio"] = _Generation(world.clock.monotonic() + seconds, fails)
    _arm(world, question)


def end_audio(world: ServerState, question: Row, *, fails: bool, after: float) -> None:
    """Let the audio of a question end otherwise than it would have."""
    generation = question.get("_audio")
    if generation is not None and generation.timer is not None:
        generation.timer.cancel()
    question["_audio"] = _Generation(world.clock.monotonic() + after, fails)
    _arm(world, question)


def listen_for_audio(world: ServerState) -> None:
    """Set timers for what is still being generated: the events have a target now."""
    if world.has_listeners:
        return
    world.has_listeners = True
    now = world.clock.monotonic()
    for question in world.questions.order:
        generation = question.get("_audio")
        if generation is not None and generation.ends_at > now:
            _arm(world, question)


def stop_timers(world: ServerState) -> None:
    """Cancel all timers; the states go on being right."""
    world.has_listeners = False
    for question in world.questions.order:
        generation = question.get("_audio")
        if generation is not None and generation.timer is not None:
            generation.timer.cancel()
            generation.timer = None


def show_question(world: ServerState, question: Row) -> Row:
    """Return a question as the API shows it now. Source: /api-reference/questions."""
    shown = {name: value for name, value in question.items() if name[0] != "_"}
    generation = question.get("_audio")
    words = world.options.audio_words
    if generation is None:
        shown["transcriptionStatus"] = None
    elif generation.ends_at > world.clock.monotonic():
        shown["transcriptionStatus"] = words.processing
    elif generation.fails:
        shown["transcriptionStatus"] = words.error
    else:
        shown["transcriptionStatus"] = words.complete
        shown["audioURL"] = shown["audioURL"] or f"https://audio.invalid/{question['id']}.mp3"
    return shown


def _arm(world: ServerState, question: Row) -> None:
    """Set the timer of one generation, if an event has a target."""
    generation: _Generation = question["_audio"]
    if not world.has_listeners or generation.fails or generation.ends_at == math.inf:
        return

    def announce() -> None:
        generation.timer = None
        if not generation.is_announced:
            generation.is_announced = True
            world.emit(QuestionAudioGenerated.NAME, {"questionId": question["id"]})

    seconds = max(generation.ends_at - world.clock.monotonic(), 0.0)
    generation.timer = world.clock.call_later(seconds, announce)


# Only userId is documented as required (edition A); the title is inferred from every sample.
_CREATE = BodyRule(
    {
        "userId": text,
        "title": text,
        "description": maybe_empty,
        "audioURL": uri,
        "narratorId": text,
        "questionScript": text,
        "generateAudio": boolean,
    },
    required=("title",),
)
_NO_QUERY = QueryRule()
_LIST = QueryRule(paged=True)  # no size parameter is known


def create_question(call: FakeRequest) -> Reply:
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


def _check_creator(call: FakeRequest, body: dict[str, Any]) -> None:
    """Refuse a missing or foreign creator. Editions disagree: required in A only."""
    user_id = body.get("userId")
    if user_id is None:
        if call.world.options.edition == "A":
            raise invalid("userId", "is required")
    elif call.world.options.strict_users and call.world.users.get(user_id) is None:
        raise invalid("userId", "is no user of this organization and team")


def get_question(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/questions/{questionId}``."""
    _NO_QUERY.check(call.query)
    question = call.world.questions.get(call.id)
    if question is None:
        raise not_found("Question", call.id)
    return Reply(data={"question": show_question(call.world, question)})


def list_questions(call: FakeRequest) -> Reply:
    """Answer ``GET /qsi/gather/questions``, known from one sample call only."""
    world, style = call.world, call.world.options.questions_list
    if style == "missing":
        raise no_such_path(call.path)
    query = (_LIST if style == "paged" else QueryRule(texts=("page",))).check(call.query)
    rows: Sequence[Row] = [] if style == "empty" else world.listed(world.questions.order)
    counts = None
    if style == "paged":
        rows, page = page_of(rows, query["page"], world.options.questions_page_size)
        counts = page if world.options.page_counts else None
    shown = [show_question(world, row) for row in rows]
    return Reply(data={"questions": shown}, pagination=counts)
