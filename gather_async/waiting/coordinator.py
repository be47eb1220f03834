"""The waits of a client, and the task of each condition that polls for all of them."""

import asyncio
import contextvars
import math
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from attrs import evolve

from gather_async.clock import Clock, wait
from gather_async.endpoint import candidate_interviews_endpoint, questions_endpoint
from gather_async.errors import (
    AudioGenerationError,
    ClientClosedError,
    GatherError,
    InvalidRequestError,
)
from gather_async.loops import LoopOwner, PerLoop
from gather_async.models.candidate import CandidateInterview, InterviewResults
from gather_async.models.question import Question
from gather_async.protocol.polling import PollPolicy
from gather_async.protocol.retry import RetryPolicy
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota.priority_queue import Priority
from gather_async.session import Session
from gather_async.validators import Number
from gather_async.waiting.conditions import (
    Condition,
    Endpoints,
    Signals,
    audio_ready,
    completed,
    subscribe_weakly,
    summarized,
)
from gather_async.waiting.list_index import Poll
from gather_async.waiting.pacing import PollBudget, is_fatal, log_failed_poll
from gather_async.waiting.registry import CHUNK, Waiter, WaiterRegistry
from gather_async.waiting.scheduler import MOST_IN_FLIGHT, Scheduler

__all__ = ["Coordinator", "Waits"]

T = TypeVar("T")
_PRIORITIES: tuple[Priority, ...] = ("interactive", "bulk")
_SECONDS = Number(least=0, most=math.inf, unit="seconds")


class Coordinator(Generic[T]):
    """The waits of one condition, and the task that polls for them while there are any.

    What was learned of the list survives the task and the event loop. The budget is shared
    by all conditions; ``is_alive`` returns whether events arrive at present.
    """

    def __init__(
        self,
        condition: Condition[T],
        *,
        budget: PollBudget,
        clock: Clock,
        rng: random.Random,
        is_alive: Callable[[], bool],
    ) -> None:
        self._condition, self._clock = condition, clock
        self._registry: WaiterRegistry[T] = WaiterRegistry()
        self._scheduler = Scheduler(
            condition, self._registry, budget, rng, lambda: condition.has_events and is_alive()
        )
        self._owner = LoopOwner("client")
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._fatal: BaseException | None = None
        self._is_closed = False

    async def wait(
        self, target: T | str, *, timeout: float | None, poll: PollPolicy | None = None
    ) -> T:
        """Return the object once the condition holds.

        Raises:
            GatherError: The wait ended badly, or its time was over.
        """
        over = asyncio.Event()
        target_id, seen = _split(target)
        policy = PollPolicy.of(poll)
        waiter = self._add(target_id, seen, _seconds(timeout), policy, lambda _: over.set())
        self._start()
        try:
            await over.wait()
        finally:
            self._scheduler.remove(waiter)
            await self._wait_idle()
        outcome = waiter.outcome
        assert outcome is not None  # noqa: S101 - it is over
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def wait_each(
        self, targets: Iterable[T | str], *, timeout: float | None, poll: PollPolicy | None = None
    ) -> AsyncIterator[T | AudioGenerationError]:
        """Yield each object once the condition holds for it, or why it never will.

        Raises:
            GatherError: What else ended a wait, once all the others are over; its notes
                name all that ended so.
        """
        seconds, policy = _seconds(timeout), PollPolicy.of(poll)
        if isinstance(targets, str) or not isinstance(targets, Iterable):
            raise InvalidRequestError("Pass several questions or ids, such as [question.id].")
        distinct = dict(_split(each) for each in targets)
        over, waiting = asyncio.Queue[Waiter[T]](), set[Waiter[T]]()
        failed: dict[str, BaseException] = {}
        try:
            for target_id, seen in distinct.items():
                waiting.add(self._add(target_id, seen, seconds, policy, over.put_nowait))
                if len(waiting) % CHUNK == 0:
                    await asyncio.sleep(0)
            self._start()
            while waiting:
                waiter = await over.get()
                waiting.discard(waiter)
                outcome = waiter.outcome
                if isinstance(outcome, AudioGenerationError):
                    yield outcome
                elif isinstance(outcome, BaseException):
                    failed[waiter.id] = outcome
                elif outcome is not None:
                    yield outcome
        finally:
            for waiter in waiting:
                self._scheduler.remove(waiter)
            await self._wait_idle()
        if failed:
            raise _first_of(failed)

    def _add(
        self,
        id: str,
        seen: T | None,
        timeout: float,
        policy: PollPolicy,
        on_end: Callable[[Waiter[T]], object],
    ) -> Waiter[T]:
        """Add a wait, which must be removed in the end."""
        if self._is_closed:
            raise _closed()
        if self._owner.is_elsewhere and not self._registry:
            self._owner.leave()  # nothing waits there any more
        if self._owner.enter():  # what was left in a loop that ended is forgotten
            self._scheduler.clear()
            self._task, self._changed = None, asyncio.Event()
        now = self._clock.monotonic()
        waiter = Waiter(id, policy, now, timeout, on_end, seen)
        self._scheduler.add(waiter, now)
        return waiter

    def _start(self) -> None:
        if self._registry and (self._task is None or self._task.done()):
            # A context of its own: polls belong to no single caller.
            self._task = asyncio.get_running_loop().create_task(
                self._run(),
                name=f"gather_async: waiting for {self._condition.noun}",
                context=contextvars.Context(),
            )
        self._changed.set()

    async def _wait_idle(self) -> None:
        if not self._registry:
            self._changed.set()
            await self._join()

    async def _join(self) -> None:
        """Return once the task has ended."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    def notify(self, event: str, ids: frozenset[str]) -> None:
        """Record an event, from any thread."""
        if event.startswith(self._condition.event_prefix):
            self._owner.call(self._on_event, ids)

    async def close(self) -> None:
        """End all waits with `ClientClosedError`, and the task."""
        self._is_closed = True
        if self._owner.loop is None or self._owner.is_here:
            self._end(_closed())
            await self._join()
        elif self._owner.is_elsewhere:
            self._owner.call(self._end, _closed())

    def _on_event(self, ids: frozenset[str]) -> None:
        self._registry.notify(ids, self._clock.monotonic())
        self._changed.set()

    def _end(self, error: BaseException) -> None:
        """End all waits soon."""
        if self._registry:
            self._fatal = error
            self._changed.set()

    async def _run(self) -> None:
        """Poll while anything is awaited. Whatever ends this ends all waits, too."""
        polls: set[asyncio.Task[None]] = set()
        try:
            await self._poll(polls)
        except asyncio.CancelledError:
            self._finish(len(self._registry), ClientClosedError("The event loop is being closed."))
            raise
        except Exception as error:  # a waiting call must never hang
            self._finish(len(self._registry), error)
        finally:
            if self._task is asyncio.current_task():
                self._task = self._fatal = None
                self._scheduler.clear()
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, return_exceptions=True)

    async def _poll(self, polls: "set[asyncio.Task[None]]") -> None:
        while self._registry:
            self._changed.clear()
            for done in [each for each in polls if each.done()]:
                polls.discard(done)
                done.result()  # a crash of one is a crash of all
            now, deadline = self._clock.monotonic(), self._registry.next_deadline
            if self._fatal is not None:
                self._finish(CHUNK, self._fatal)
            elif deadline <= now:
                self._scheduler.finish_late(now)
            else:
                is_full = len(polls) >= MOST_IN_FLIGHT
                poll = math.inf if is_full else self._scheduler.plan(now)
                if isinstance(poll, Poll):
                    polls.add(asyncio.create_task(self._poll_once(poll)))
                    continue
                seconds = min(poll, deadline - now)
                if seconds > 0:  # a sleep shorter than the clock can show would never end
                    await wait(self._clock, self._changed, max(seconds, 0.001))
                    continue
            await asyncio.sleep(0)  # so that the loop isn't held up

    def _finish(self, most: int, error: BaseException) -> None:
        """End the waits for so many targets at most."""
        now = self._clock.monotonic()
        for target in [each for each, _ in zip(self._registry, range(most), strict=False)]:
            self._scheduler.finish_each(target.waiters, error, now)

    async def _poll_once(self, poll: Poll) -> None:
        """Send one poll and record its answer."""
        scheduler, clock, condition = self._scheduler, self._clock, self._condition
        try:
            if poll.id is not None:
                item = await condition.read(poll.id, self._priority(), self._count)
                scheduler.record_read(poll, poll.id, item, clock.monotonic())
            elif poll.page is not None and condition.page is not None:
                page = await condition.page(poll.page, self._priority())
                scheduler.record_page(poll, poll.page, page, clock.monotonic())
        except GatherError as error:
            log_failed_poll(condition.noun, error)
            if is_fatal(error):
                self._end(error)
            else:
                scheduler.record_failure(poll, error, clock.monotonic(), clock.wall())
        finally:
            scheduler.end(poll, clock.monotonic())
            self._changed.set()

    def _count(self) -> None:
        self._scheduler.spend(self._clock.monotonic())

    def _priority(self) -> Priority:
        is_urgent = any(each.priority == "interactive" for each in self._registry.policies)
        return "interactive" if is_urgent else "bulk"


def _split(target: T | str) -> tuple[str, T | None]:
    """Return an awaited object's id, and the object if the caller has it."""
    if isinstance(target, str):
        return target, None
    target_id = getattr(target, "id", None)
    if not isinstance(target_id, str):
        raise InvalidRequestError("Pass the object or its id to wait for it.")
    return target_id, target


def _seconds(timeout: float | None) -> float:
    """Return the seconds; None and ``inf`` mean for ever."""
    checked = math.inf if timeout is None else timeout
    return float(_SECONDS.check("timeout", checked, error=InvalidRequestError))


def _first_of(errors: Mapping[str, BaseException]) -> BaseException:
    """Return the first failure; where there are several, its notes name all objects."""
    first = next(iter(errors.values()))
    if len(errors) > 1 and not (isinstance(first, GatherError) and is_fatal(first)):
        kinds: dict[str, list[str]] = {}
        for each, error in errors.items():
            kinds.setdefault(type(error).__name__, []).append(each)
        for kind, ids in kinds.items():
            more = f" and {len(ids) - CHUNK} more" if len(ids) > CHUNK else ""
            first.add_note(f"{kind} of {len(ids)}: {', '.join(ids[:CHUNK])}{more}")
    return first


def _closed() -> ClientClosedError:
    return ClientClosedError("The client was closed while this call waited: make a new one.")


_Coordinators = tuple[
    Coordinator[Question], Coordinator[CandidateInterview], Coordinator[InterviewResults]
]


class Waits:
    """All waits of a client and its views, which share their polls.

    Each event loop has coordinators of its own; what one learned of a list is handed to the
    next loop when its own has ended. Polls retry nothing, as the next is soon enough, and wait
    for the quota as long as it takes. ``rate_limits`` stand in for those of a silent limiter.
    """

    def __init__(
        self,
        *,
        session: Session,
        rate_limits: Sequence[RateLimit],
        rng: random.Random,
        signals: Signals | None = None,
    ) -> None:
        def limits() -> Sequence[RateLimit]:
            windows = session.limiter.status().windows
            return [RateLimit(each.limit, per=each.period) for each in windows] or rate_limits

        budget, clock, once = PollBudget(limits), session.clock, RetryPolicy(attempts=1)
        options = evolve(session.options, retry=once, max_wait=None)

        def coordinator(condition: Condition[T]) -> Coordinator[T]:
            return Coordinator(condition, budget=budget, clock=clock, rng=rng, is_alive=is_alive)

        def is_alive() -> bool:
            return signals is not None and signals.alive

        sessions: dict[Priority, Session] = {
            each: session.with_options(evolve(options, priority=each)) for each in _PRIORITIES
        }
        questions: Endpoints[Question] = {
            each: questions_endpoint(polls) for each, polls in sessions.items()
        }
        links: Endpoints[CandidateInterview] = {
            each: candidate_interviews_endpoint(polls) for each, polls in sessions.items()
        }

        self._loops = PerLoop(
            lambda: (
                coordinator(audio_ready(questions)),
                coordinator(completed(links, clock.wall)),
                coordinator(summarized(links, clock.wall)),
            )
        )
        self._is_closed = False
        self._unsubscribe = None if signals is None else subscribe_weakly(signals, self._notify)

    @property
    def audio(self) -> Coordinator[Question]:
        """The running loop's waits for the audio of questions."""
        return self._here()[0]

    @property
    def completion(self) -> Coordinator[CandidateInterview]:
        """The running loop's waits for candidates to finish."""
        return self._here()[1]

    @property
    def summary(self) -> Coordinator[InterviewResults]:
        """The running loop's waits for the summaries of results."""
        return self._here()[2]

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
