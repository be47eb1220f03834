"""Audio generation: takes its time on the server's clock, then ends well or badly.

The state of a question is worked out when somebody reads it. Timers exist only
while a webhook target waits for ``question.audio_generated``.
"""

import math

from attrs import define

from gather_async.clock import Timer
from gather_async.testing.fake.state import Row, World

__all__ = ["begin_audio", "end_audio", "listen_for_audio", "show_question", "stop_timers"]


@define
class _Generation:
    """One question's audio in the making.

    Attributes:
        ends_at: On the clock's ``monotonic``.
        fails: How it will end.
        told: Whether its event went out.
        timer: What will send the event.
    """

    ends_at: float
    fails: bool
    told: bool = False
    timer: Timer | None = None


def begin_audio(world: World, question: Row) -> None:
    """Start generating the audio of a new question."""
    seconds = world.behaviour.audio_seconds
    if callable(seconds):
        seconds = seconds()
    fails = question["title"] in world.behaviour.fail_audio_for
    question["_audio"] = _Generation(world.clock.monotonic() + seconds, fails)
    _arm(world, question)


def end_audio(world: World, question: Row, *, fails: bool, after: float) -> None:
    """Let the audio of a question end otherwise than it would have."""
    generation = question.get("_audio")
    if generation is not None and generation.timer is not None:
        generation.timer.cancel()
    question["_audio"] = _Generation(world.clock.monotonic() + after, fails)
    _arm(world, question)


def listen_for_audio(world: World) -> None:
    """Set timers for what is still being generated: somebody wants the events now."""
    if world.heard:
        return
    world.heard = True
    now = world.clock.monotonic()
    for question in world.questions.order:
        generation = question.get("_audio")
        if generation is not None and generation.ends_at > now:
            _arm(world, question)


def stop_timers(world: World) -> None:
    """Cancel all timers; the states go on being right."""
    world.heard = False
    for question in world.questions.order:
        generation = question.get("_audio")
        if generation is not None and generation.timer is not None:
            generation.timer.cancel()
            generation.timer = None


def show_question(world: World, question: Row) -> Row:
    """Return a question as the API shows it now. Source: /api-reference/questions."""
    shown = {name: value for name, value in question.items() if name[0] != "_"}
    generation = question.get("_audio")
    words = world.behaviour.audio_words
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


def _arm(world: World, question: Row) -> None:
    """Set the timer of one generation, if anybody listens."""
    generation: _Generation = question["_audio"]
    if not world.heard or generation.fails or generation.ends_at == math.inf:
        return

    def tell() -> None:
        generation.timer = None
        if not generation.told:
            generation.told = True
            world.emit("question.audio_generated", {"questionId": question["id"]})

    seconds = max(generation.ends_at - world.clock.monotonic(), 0.0)
    generation.timer = world.clock.call_later(seconds, tell)
