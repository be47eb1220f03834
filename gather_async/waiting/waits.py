"""What the waiting calls of a client's resources are answered by."""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from attrs import evolve

from gather_async.endpoint import candidate_interviews_endpoint, questions_endpoint
from gather_async.errors import AudioGenerationError, InvalidRequestError
from gather_async.models.candidate_interview import CandidateInterview, InterviewResults
from gather_async.models.question import Question
from gather_async.protocol.polling import PollPolicy
from gather_async.protocol.retry import RetryPolicy
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota.limiter import Priority
from gather_async.session import Session
from gather_async.validators import Number
from gather_async.waiting.budget import PollBudget
from gather_async.waiting.conditions import audio_ready, completed, summarized
from gather_async.waiting.coordinator import Coordinator
from gather_async.waiting.registry import Waiter
from gather_async.waiting.signals import Signals, subscribe_weakly

__all__ = ["Waits", "as_completed"]

T = TypeVar("T")
_PRIORITIES: tuple[Priority, ...] = ("interactive", "bulk")


async def as_completed(waiters: Sequence[Waiter[T]]) -> "AsyncGenerator[asyncio.Future[T], None]":
    """Give the future of each wait, done, without a task for each.

    Cancelling it ends nothing but itself.
    """
    ended: asyncio.Queue[asyncio.Future[T]] = asyncio.Queue()
    for waiter in waiters:
        waiter.future.add_done_callback(ended.put_nowait)
    try:
        for _ in waiters:
            yield await ended.get()
    finally:
        for waiter in waiters:
            waiter.future.remove_done_callback(ended.put_nowait)


class Waits:
    """All waits of a client and its views, which share their polls.

    One task polls for each kind of wait while somebody waits; it ends with the
    last. It may be used in several event loops one after the other.
    """

    def __init__(
        self,
        *,
        session: Session,
        rate_limits: Sequence[RateLimit],
        rng: random.Random,
        signals: Signals | None = None,
        poll: PollPolicy | None = None,
    ) -> None:
        """Wire everything up, and listen to the signals from now on. Nothing runs yet.

        Args:
            session: Where polls are sent. They retry nothing, as the next poll is
                soon enough, and wait for the quota as long as it takes.
            rate_limits: The limits where the limiter doesn't say.
            rng: Where the jitter comes from.
            signals: What tells of webhooks.
            poll: The policy of calls that bring none.
        """
        self._poll = poll or PollPolicy()

        def limits() -> Sequence[RateLimit]:
            windows = session.limiter.status().windows
            return [RateLimit(each.limit, per=each.period) for each in windows] or rate_limits

        allowance = PollBudget(limits)
        sessions = {each: _polling(session, each) for each in _PRIORITIES}
        links = {each: candidate_interviews_endpoint(polls) for each, polls in sessions.items()}

        def is_alive() -> bool:
            return signals is not None and signals.alive

        def coordinator(kind: Any) -> Coordinator[Any]:
            return Coordinator(
                kind, allowance=allowance, clock=session.clock, rng=rng, is_alive=is_alive
            )

        self._audio: Coordinator[Question] = coordinator(
            audio_ready({each: questions_endpoint(polls) for each, polls in sessions.items()})
        )
        self._completion: Coordinator[CandidateInterview] = coordinator(completed(links))
        self._summary: Coordinator[InterviewResults] = coordinator(summarized(links))
        self._all = (self._audio, self._completion, self._summary)
        self._unsubscribe = None if signals is None else subscribe_weakly(signals, self._hear)

    async def audio_ready(
        self, question: Question | str, *, timeout: float | None, poll: PollPolicy | None = None
    ) -> Question:
        """Return the question once its audio is ready.

        Raises:
            AudioGenerationError: Generation failed.
            AudioTimeoutError: It was not over in time.
            GatherError: See `Questions.wait_until_audio_ready`.
        """
        key, seen = _split(question)
        return await self._audio.wait(
            key, timeout=_checked(timeout), policy=poll or self._poll, seen=seen
        )

    async def all_audio_ready(
        self,
        questions: Iterable[Question | str],
        *,
        timeout: float | None,
        poll: PollPolicy | None = None,
    ) -> AsyncIterator[Question | AudioGenerationError]:
        """Give each question as its audio generation ends, each once.

        Raises:
            GatherError: What else ended a wait, once all the others have ended.
        """
        seconds, policy = _checked(timeout), poll or self._poll
        awaited = dict(_split(question) for question in _listed(questions))
        waiters = [
            self._audio.join(key, timeout=seconds, policy=policy, seen=seen)
            for key, seen in awaited.items()
        ]
        failure: BaseException | None = None
        try:
            async with aclosing(as_completed(waiters)) as all_ended:
                async for ended in all_ended:
                    error = ended.exception()
                    if error is None:
                        yield ended.result()
                    elif isinstance(error, AudioGenerationError):
                        yield error
                    elif failure is None:
                        failure = error
        finally:
            for waiter in waiters:
                self._audio.leave(waiter)
            await self._audio.settle()
        if failure is not None:
            raise failure

    async def completed(
        self, id: str, *, timeout: float | None, poll: PollPolicy | None = None
    ) -> CandidateInterview:
        """Return the candidate interview once the candidate has finished.

        Raises:
            WaitTimeoutError: The candidate had not finished in time.
            GatherError: See `CandidateInterviews.wait_until_completed`.
        """
        return await self._completion.wait(
            id, timeout=_checked(timeout), policy=poll or self._poll, seen=None
        )

    async def summarized(
        self, id: str, *, timeout: float | None, poll: PollPolicy | None = None
    ) -> InterviewResults:
        """Return the results once the summary is over.

        Raises:
            WaitTimeoutError: The summary was not over in time.
            GatherError: See `CandidateInterviews.wait_until_summarized`.
        """
        return await self._summary.wait(
            id, timeout=_checked(timeout), policy=poll or self._poll, seen=None
        )

    async def close(self) -> None:
        """End all waits with `ClientClosedError`; harmless to repeat."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        for coordinator in self._all:
            await coordinator.close()

    def _hear(self, event: str, ids: frozenset[str]) -> None:
        for coordinator in self._all:
            coordinator.hear(event, ids)


def _polling(session: Session, priority: Priority) -> Session:
    """Return the session under the options of polls."""
    once = RetryPolicy(attempts=1)
    options = evolve(session.options, priority=priority, retry=once, max_wait=None)
    return session.with_options(options)


def _split(question: Question | str) -> tuple[str, Question | None]:
    if isinstance(question, Question):
        return question.id, question
    return question, None


def _listed(questions: Iterable[Question | str]) -> Iterable[Question | str]:
    if isinstance(questions, str | Question):
        raise InvalidRequestError("Pass several questions or ids, such as [question.id].")
    return questions


def _checked(timeout: float | None) -> float:
    """Return the seconds; None and ``inf`` mean for ever."""
    if timeout is None:
        return math.inf
    seconds = Number(least=0, most=math.inf, unit="seconds")
    return float(seconds.check("timeout", timeout, error=InvalidRequestError))
