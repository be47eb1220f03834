"""Conditions to wait for: how each is read and judged, and what announces it."""

import math
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from attrs import frozen

from gather_async.endpoint import candidate_interviews_endpoint, questions_endpoint
from gather_async.errors import (
    AudioGenerationError,
    AudioTimeoutError,
    GatherError,
    NotFoundError,
    WaitTimeoutError,
)
from gather_async.models.candidate import CandidateInterview, InterviewResults
from gather_async.models.enums import CandidateInterviewStatus, SummaryStatus
from gather_async.models.question import AudioState, Question
from gather_async.pager import Page
from gather_async.protocol.polling import BRIEF, PollPolicy, audio_state
from gather_async.quota.priority_queue import Priority
from gather_async.session import Session

__all__ = [
    "Condition",
    "Listener",
    "MOST_REMEMBERED",
    "Sessions",
    "Signals",
    "audio_ready",
    "completed",
    "subscribe_weakly",
    "summarized",
]

T = TypeVar("T")
MOST_REMEMBERED = 10_000  # ids: a megabyte; a burst of events for a whole account fits
Sessions = Mapping[Priority, Session]
"""One session for each priority that polls can have."""
Listener = Callable[[str, frozenset[str]], None]
"""Gets an event's name, such as ``question.audio_generated``, and all ids in its data."""


class Signals(Protocol):
    """A source of events: a `WebhookReceiver`, or your own.

    One may serve many clients. Listeners may be called in any thread and any event
    loop: a client hands the event over to the loop in which its calls wait.
    """

    @property
    def alive(self) -> bool:
        """Whether events arrive at present; while they do, polling is slow."""
        ...

    def subscribe(self, listener: Listener, /) -> Callable[[], None]:
        """Call the listener for each event from now on; return what ends that.

        The listener returns at once and never raises.
        """
        ...


def subscribe_weakly(signals: Signals, listener: Listener) -> Callable[[], object]:
    """Subscribe a bound method without keeping its object alive; return what ends it."""
    method, owner = weakref.WeakMethod(listener), getattr(listener, "__self__", None)

    def forward(event: str, ids: frozenset[str]) -> None:
        if (call := method()) is not None:
            call(event, ids)

    return weakref.finalize(owner, signals.subscribe(forward))


@frozen(kw_only=True)
class Condition(Generic[T]):
    """The condition that a wait waits for.

    Attributes:
        noun: What is awaited, in the plural, for task names and messages.
        event_prefix: What the names of events about it start with.
        read: Reads one object; None if it isn't there yet. The third argument counts each
            request beyond the first.
        judge: Returns how a wait ends with an object, by a policy's words and after so many
            seconds: with the object, or an error; None if it goes on.
        timed_out: Makes the error of a deadline, from the id, what was last read, and
            the seconds waited.
        page: Reads one page of the list; None if there is no list.
        is_telling: Returns whether a list item names its state at all.
        is_whole: Returns whether a list item, judged so, shows all that a single read does.
        has_events: Whether an event announces the end, so that polling may be slow.
    """

    noun: str
    event_prefix: str
    read: Callable[[str, Priority, Callable[[], None]], Awaitable[T | None]]
    judge: Callable[[T, PollPolicy, float], T | GatherError | None]
    timed_out: Callable[[str, T | None, float], GatherError]
    page: Callable[[int, Priority], Awaitable[Page[Any]]] | None = None
    is_telling: Callable[[T], bool] = lambda item: True
    is_whole: Callable[[T, T | GatherError | None], bool] = lambda item, outcome: True
    has_events: bool = True


def audio_ready(sessions: Sessions) -> Condition[Question]:
    """Return the condition that a question's audio is ready."""
    return Condition(
        noun="questions",
        event_prefix="question.",
        read=lambda name, priority, _: questions_endpoint(sessions[priority]).get(name),
        page=lambda number, priority: questions_endpoint(sessions[priority]).list().page(number),
        judge=_judge_audio,
        timed_out=_audio_late,
        is_telling=lambda question: question.transcription_status is not None,
        is_whole=lambda question, outcome: outcome is not question or bool(question.audio_url),
    )


def completed(sessions: Sessions, wall: Callable[[], float]) -> Condition[CandidateInterview]:
    """Return the condition that a candidate has finished, which an expired link can't.

    Source: /api-reference/candidate-interviews (the statuses; list items show few fields)
    """

    def judge(
        link: CandidateInterview, _: PollPolicy, waited: float
    ) -> CandidateInterview | GatherError | None:
        if _is_finished(link):
            return link
        return _expired(link, waited) if _is_over(link.expiry, wall()) else None

    return Condition(
        noun="candidate interviews",
        event_prefix="candidate_interview.",
        read=lambda name, priority, _: candidate_interviews_endpoint(sessions[priority]).get(name),
        page=lambda number, priority: (
            candidate_interviews_endpoint(sessions[priority]).list().page(number)
        ),
        judge=judge,
        timed_out=partial(_late, "The candidate had not finished"),
        is_telling=lambda item: item.status is not None,
        is_whole=lambda item, outcome: False,
    )


def summarized(sessions: Sessions, wall: Callable[[], float]) -> Condition[InterviewResults]:
    """Return the condition that the server has ended its work on a summary.

    Source: /api-reference/candidate-interviews (``summaryStatus``). What the results
    answer before completion is unknown, so 404 means that they are not there yet if
    the candidate interview itself exists. No documented event announces a summary.
    """
    checks: dict[str, float] = {}  # when each may be gone, or its link has expired

    async def read(
        id: str, priority: Priority, count: Callable[[], None]
    ) -> InterviewResults | None:
        endpoint, results = candidate_interviews_endpoint(sessions[priority]), None
        with suppress(NotFoundError):
            results = await endpoint.get_part(id, "results", InterviewResults)
        if results is not None and _is_summarized(results):
            return results
        # It may not exist, or its link has expired: then there will never be more.
        if checks.get(id, -math.inf) <= wall():
            count()
            link = await endpoint.get(id)
            expiry = None if _is_finished(link) else link.expiry
            if _is_over(expiry, wall()):
                raise _expired(link, 0.0)
            if len(checks) >= MOST_REMEMBERED:
                checks.clear()
            checks[id] = min(wall() + 60 * BRIEF, expiry.timestamp() if expiry else math.inf)
        return results

    return Condition(
        noun="summaries",
        event_prefix="candidate_interview.",
        read=read,
        judge=lambda results, *_: results if _is_summarized(results) else None,
        timed_out=partial(_late, "The summary was not over"),
        has_events=False,
    )


def _is_summarized(results: InterviewResults) -> bool:
    """Any word but ``processing`` ends the wait; without a word, a summary does."""
    if results.summary_status is None:
        return results.summary is not None
    return results.summary_status != SummaryStatus.PROCESSING


def _is_finished(link: CandidateInterview) -> bool:
    status = link.status  # of an archived one nothing more will come
    return status is not None and (
        status.is_finished or status is CandidateInterviewStatus.ARCHIVED
    )


def _is_over(expiry: datetime | None, now: float) -> bool:
    return expiry is not None and expiry <= datetime.fromtimestamp(now, UTC)


def _judge_audio(
    question: Question, policy: PollPolicy, waited: float
) -> Question | GatherError | None:
    state = audio_state(question, policy)
    if state is AudioState.FAILED:
        return AudioGenerationError(
            f"The audio of question {question.id} could not be generated: "
            "see .question.transcription_status, then create the question anew.",
            question=question,
        )
    return question if state is AudioState.READY else None


def _audio_late(id: str, question: Question | None, waited: float) -> GatherError:
    return AudioTimeoutError(
        f"The audio of question {id} was not ready after {waited:.1f} s: "
        "wait again, it costs one request at least.",
        question=question,
        waited=waited,
    )


def _expired(link: CandidateInterview, waited: float) -> GatherError:
    message = (
        f"The link of candidate interview {link.id} expired before the candidate finished: "
        "resend the invite, then wait again."
    )
    return WaitTimeoutError(message, last=link, waited=waited)


def _late(what: str, id: str, last: Any, waited: float) -> GatherError:
    message = f"{what} after {waited:.1f} s (candidate interview {id}): wait again, or read it."
    return WaitTimeoutError(message, last=last, waited=waited)
