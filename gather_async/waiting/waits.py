"""The waits of a client: a coordinator for each condition, and what they share."""

import random
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from attrs import evolve

from gather_async.clock import PerLoop
from gather_async.endpoint import candidate_interviews_endpoint, questions_endpoint
from gather_async.errors import ClientClosedError
from gather_async.models.candidate_interview import CandidateInterview, InterviewResults
from gather_async.models.question import Question
from gather_async.protocol.retry import RetryPolicy
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota.limiter import Priority
from gather_async.session import Session
from gather_async.waiting.conditions import (
    Condition,
    Endpoints,
    audio_ready,
    completed,
    summarized,
)
from gather_async.waiting.coordinator import Coordinator
from gather_async.waiting.pacing import PollBudget

__all__ = ["Listener", "Signals", "Waits"]

T = TypeVar("T")
_PRIORITIES: tuple[Priority, ...] = ("interactive", "bulk")

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


class _Coordinators(NamedTuple):
    """The coordinators of one event loop."""

    audio: Coordinator[Question]
    completion: Coordinator[CandidateInterview]
    summary: Coordinator[InterviewResults]


class Waits:
    """All waits of a client and its views, which share their polls.

    Each event loop has coordinators of its own; what one learned of a list is handed to the
    next loop when its own has ended.
    """

    def __init__(
        self,
        *,
        session: Session,
        rate_limits: Sequence[RateLimit],
        rng: random.Random,
        signals: Signals | None = None,
    ) -> None:
        """Wire everything up, and listen to the signals from now on. Nothing runs yet.

        Args:
            session: Where polls are sent. They retry nothing, as the next poll is soon
                enough, and wait for the quota as long as it takes.
            rate_limits: The limits where the limiter doesn't say.
            rng: Where the jitter comes from.
            signals: The source of events.
        """

        def limits() -> Sequence[RateLimit]:
            windows = session.limiter.status().windows
            return [RateLimit(each.limit, per=each.period) for each in windows] or rate_limits

        budget, clock = PollBudget(limits), session.clock

        def coordinator(condition: Condition[T]) -> Coordinator[T]:
            return Coordinator(
                condition,
                budget=budget,
                clock=clock,
                rng=rng,
                is_alive=lambda: signals is not None and signals.alive,
            )

        sessions: dict[Priority, Session] = {each: _polling(session, each) for each in _PRIORITIES}
        questions: Endpoints[Question] = {
            each: questions_endpoint(polls) for each, polls in sessions.items()
        }
        links: Endpoints[CandidateInterview] = {
            each: candidate_interviews_endpoint(polls) for each, polls in sessions.items()
        }

        def make() -> _Coordinators:
            return _Coordinators(
                coordinator(audio_ready(questions)),
                coordinator(completed(links, clock.wall)),
                coordinator(summarized(links, clock.wall)),
            )

        self._loops = PerLoop(make)
        self._is_closed = False
        self._unsubscribe = None if signals is None else _subscribe_weakly(signals, self._notify)

    @property
    def audio(self) -> Coordinator[Question]:
        """The running loop's waits for the audio of questions."""
        return self._here().audio

    @property
    def completion(self) -> Coordinator[CandidateInterview]:
        """The running loop's waits for candidates to finish."""
        return self._here().completion

    @property
    def summary(self) -> Coordinator[InterviewResults]:
        """The running loop's waits for the summaries of results."""
        return self._here().summary

    def _here(self) -> _Coordinators:
        if self._is_closed:
            raise ClientClosedError("This client is closed: make a new GatherClient.")
        return self._loops.here()

    async def close(self) -> None:
        """End all waits with `ClientClosedError`; harmless to repeat."""
        self._is_closed = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        for coordinators in self._loops.all():
            for each in coordinators:
                await each.close()

    def _notify(self, event: str, ids: frozenset[str]) -> None:
        if not self._loops.all():
            self._loops.here()  # a wait may begin after the event
        for coordinators in self._loops.all():
            for each in coordinators:
                each.notify(event, ids)


def _polling(session: Session, priority: Priority) -> Session:
    """Return the session under the options of polls."""
    once = RetryPolicy(attempts=1)
    options = evolve(session.options, priority=priority, retry=once, max_wait=None)
    return session.with_options(options)


def _subscribe_weakly(signals: Signals, listener: Listener) -> Callable[[], object]:
    """Subscribe a bound method without keeping its object alive; return what ends it."""
    method = weakref.WeakMethod(listener)

    def forward(event: str, ids: frozenset[str]) -> None:
        call = method()
        if call is not None:
            call(event, ids)

    owner = getattr(listener, "__self__", None)
    return weakref.finalize(owner, signals.subscribe(forward))
