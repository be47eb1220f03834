"""What can be awaited, and how each kind is read and judged."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

from attrs import frozen

from gather_async.endpoint import Endpoint
from gather_async.errors import (
    AudioGenerationError,
    AudioTimeoutError,
    GatherError,
    NotFoundError,
    WaitTimeoutError,
)
from gather_async.models.candidate_interview import CandidateInterview, InterviewResults
from gather_async.models.enums import CandidateInterviewStatus, SummaryStatus
from gather_async.models.question import AudioState, Question
from gather_async.pager import Page
from gather_async.protocol.polling import PollPolicy, audio_state
from gather_async.quota.limiter import Priority

__all__ = ["Condition", "Endpoints", "ListPage", "audio_ready", "completed", "summarized"]

T = TypeVar("T")
L = TypeVar("L", Question, CandidateInterview)

Endpoints = Mapping[Priority, Endpoint[T]]
"""One endpoint for each priority that polls can have."""


@frozen(kw_only=True)
class ListPage(Generic[T]):
    """One page of a list."""

    items: Mapping[str, T]
    """By id."""
    total: int | None = None
    """Items in the whole list; None if the server doesn't say."""
    has_next: bool = False
    """Whether there may be another page."""


async def _no_list(number: int, priority: Priority) -> Any:
    raise AssertionError("This kind has no list.")


@frozen(kw_only=True)
class Condition(Generic[T]):
    """One kind of wait.

    Attributes:
        noun: What is awaited, in the plural, for task names and messages.
        event_prefix: What the names of events about it start with.
        read: Reads one; None if it isn't there yet. The third argument counts each
            request beyond the first.
        page: Reads one page of the list.
        has_list: Whether there is one.
        judge: Tells what was seen, by a policy's words.
        failed: Makes the error of a wait that ended badly.
        timed_out: Makes the error of a deadline, from the id, what was last read, and
            the seconds waited.
        is_telling: Tells whether a list item names its state at all.
        is_listed_whole: Whether an item of the list may be returned as it is.
        has_events: Whether an event announces the end, so that polling may be slow.
    """

    noun: str
    event_prefix: str
    read: Callable[[str, Priority, Callable[[], None]], Awaitable[T | None]]
    judge: Callable[[T, PollPolicy], AudioState]
    failed: Callable[[T], GatherError]
    timed_out: Callable[[str, T | None, float], GatherError]
    page: Callable[[int, Priority], Awaitable[ListPage[T]]] = _no_list
    has_list: bool = True
    is_telling: Callable[[T], bool] = lambda item: True
    is_listed_whole: bool = True
    has_events: bool = True


def audio_ready(endpoints: Endpoints[Question]) -> Condition[Question]:
    """Return the wait for a question's audio."""

    async def read(id: str, priority: Priority, _: Callable[[], None]) -> Question:
        return await endpoints[priority].get(id)

    async def page(number: int, priority: Priority) -> ListPage[Question]:
        return _listed(await endpoints[priority].list().page(number))

    return Condition(
        noun="questions",
        event_prefix="question.",
        read=read,
        page=page,
        judge=audio_state,
        failed=_generation_failed,
        timed_out=_audio_late,
        is_telling=lambda question: question.transcription_status is not None,
    )


def completed(endpoints: Endpoints[CandidateInterview]) -> Condition[CandidateInterview]:
    """Return the wait for a candidate to finish.

    Source: /api-reference/candidate-interviews (the statuses; list items show few fields)
    """

    async def read(id: str, priority: Priority, _: Callable[[], None]) -> CandidateInterview:
        return await endpoints[priority].get(id)

    async def page(number: int, priority: Priority) -> ListPage[CandidateInterview]:
        return _listed(await endpoints[priority].list().page(number))

    def judge(item: CandidateInterview, _: PollPolicy) -> AudioState:
        # An archived one has an end too: nothing more will come.
        is_over = item.status is not None and (
            item.status.is_finished or item.status is CandidateInterviewStatus.ARCHIVED
        )
        return AudioState.READY if is_over else AudioState.PROCESSING

    return Condition(
        noun="candidate interviews",
        event_prefix="candidate_interview.",
        read=read,
        page=page,
        judge=judge,
        failed=_never,
        timed_out=_late("The candidate had not finished"),
        is_telling=lambda item: item.status is not None,
        is_listed_whole=False,
    )


def summarized(endpoints: Endpoints[CandidateInterview]) -> Condition[InterviewResults]:
    """Return the wait for the server to end its work on a summary.

    Source: /api-reference/candidate-interviews (``summaryStatus``). What the results
    answer before completion is unknown, so 404 means that they are not there yet if
    the candidate interview itself exists. No documented event announces a summary.
    """
    existing: set[str] = set()

    async def read(
        id: str, priority: Priority, count: Callable[[], None]
    ) -> InterviewResults | None:
        endpoint = endpoints[priority]
        try:
            results = await endpoint.get_part(id, "results", InterviewResults)
        except NotFoundError:
            if id not in existing:
                count()
                await endpoint.get(id)
                existing.add(id)
            return None
        existing.discard(id)
        return results

    return Condition(
        noun="summaries",
        event_prefix="candidate_interview.",
        read=read,
        has_list=False,
        judge=_summary_state,
        failed=_never,
        timed_out=_late("The summary was not over"),
        has_events=False,
    )


def _listed(page: Page[L]) -> ListPage[L]:
    items = {item.id: item for item in page.items}
    return ListPage(items=items, total=page.total, has_next=page.has_next)


def _summary_state(results: InterviewResults, _: PollPolicy) -> AudioState:
    """Any word but ``processing`` ends the wait; without a word, a summary does."""
    status = results.summary_status
    if status is None:
        return AudioState.PROCESSING if results.summary is None else AudioState.READY
    return AudioState.PROCESSING if status == SummaryStatus.PROCESSING else AudioState.READY


def _generation_failed(question: Question) -> GatherError:
    return AudioGenerationError(
        f"The audio of question {question.id} could not be generated: "
        "see .question.transcription_status, then create the question anew.",
        question=question,
    )


def _audio_late(id: str, question: Question | None, waited: float) -> GatherError:
    return AudioTimeoutError(
        f"The audio of question {id} was not ready after {waited:.1f} s: "
        "wait again, it costs one request at least.",
        question=question,
        waited=waited,
    )


def _late(what: str) -> Callable[[str, Any, float], GatherError]:
    def late(id: str, last: Any, waited: float) -> GatherError:
        message = f"{what} after {waited:.1f} s (candidate interview {id}): wait again, or look."
        return WaitTimeoutError(message, last=last, waited=waited)

    return late


def _never(item: object) -> GatherError:
    raise AssertionError("This kind of wait doesn't end badly.")
