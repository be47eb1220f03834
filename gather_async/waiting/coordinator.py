"""The waits of a client, and the task of each condition that polls for all of them."""

import asyncio
import contextvars
import logging
import math
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any, Generic, TypeVar, get_args

from attrs import evolve

from gather_async.clock import Clock, wait
from gather_async.errors import (
    AudioGenerationError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    GatherError,
    InvalidRequestError,
)
from gather_async.loops import LoopOwner, PerLoop
from gather_async.models.candidate import CandidateInterview, InterviewResults
from gather_async.models.question import Question
from gather_async.observability import log_fields
from gather_async.protocol.polling import PollBudget, PollPolicy
from gather_async.protocol.retry import RetryPolicy
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.quota.priority_queue import Priority
from gather_async.session import Session
from gather_async.validators import Number
from gather_async.waiting.conditions import (
    Condition,
    Sessions,
    Signals,
    audio_ready,
    completed,
    subscribe_weakly,
    summarized,
)
from gather_async.waiting.scheduler import Scheduler
from gather_async.waiting.targets import CHUNK, Waiter

__all__ = ["Coordinator", "Waits"]

_LOG = logging.getLogger("gather_async.waiting")
T = TypeVar("T")
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
        self._scheduler = Scheduler(condition, budget, rng, is_alive)
        self._owner = LoopOwner("client")
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tasks = set[asyncio.Task[None]]()  # that one, and those that are about to end
        self._fatal: BaseException | None = None
        self._is_closed = False

    async def wait(
        self, target: T | str, *, timeout: float | None, poll: PollPolicy | None = None
    ) -> T:
        """Return the object once the condition holds.

        Raises:
            GatherError: The wait ended badly, or its time was over.
        """
        async with self._waits([target], timeout, poll) as (_, over):
            outcome = (await over.get()).outcome
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
        if isinstance(targets, str) or not isinstance(targets, Iterable):
            raise InvalidRequestError("Pass several questions or ids, such as [question.id].")
        failed: dict[str, BaseException] = {}
        async with self._waits(targets, timeout, poll) as (waiters, over):
            for _ in waiters:
                waiter = await over.get()
                outcome = waiter.outcome
                if isinstance(outcome, BaseException) and not isinstance(
                    outcome, AudioGenerationError
                ):
                    failed[waiter.id] = outcome
                elif outcome is not None:
                    yield outcome
        if failed:
            raise _first_of(failed)

    @asynccontextmanager
    async def _waits(
        self, targets: Iterable[T | str], timeout: float | None, poll: PollPolicy | None
    ) -> AsyncIterator[tuple[Sequence[Waiter[T]], asyncio.Queue[Waiter[T]]]]:
        """Add waits, and remove them in the end; give them, and where they go as they end."""
        policy, asked = PollPolicy.of(poll), math.inf if timeout is None else timeout
        seconds = float(_SECONDS.check("timeout", asked, error=InvalidRequestError))
        waiters, over = list[Waiter[T]](), asyncio.Queue[Waiter[T]]()
        try:
            for target_id, seen in dict(_split(each) for each in targets).items():
                self._enter()
                now = self._clock.monotonic()
                waiter = Waiter(target_id, policy, now, seconds, over.put_nowait, seen)
                waiters.append(waiter)
                self._scheduler.add(waiter, now)
                if len(waiters) % CHUNK == 0:
                    await asyncio.sleep(0)
            self._start()
            yield waiters, over
        finally:
            for waiter in waiters:
                self._scheduler.remove(waiter)
            if not self._scheduler.targets:
                self._detach()
                await self._join()

    def _enter(self) -> None:
        """Move to the running loop; forget what was left in one that ended."""
        if self._is_closed:
            raise _closed()
        if self._owner.is_elsewhere and not self._scheduler.targets:
            self._owner.leave()  # nothing waits there any more
        if self._owner.enter():
            self._scheduler.clear()
            self._task, self._tasks, self._changed = None, set(), asyncio.Event()

    def _start(self) -> None:
        if self._scheduler.targets and self._task is None:
            # A context of its own: polls belong to no single caller.
            self._task = asyncio.get_running_loop().create_task(
                self._run(),
                name=f"gather_async: waiting for {self._condition.noun}",
                context=contextvars.Context(),
            )
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)
            self._task.add_done_callback(self._ended)  # also if it is cancelled before it begins
        self._changed.set()

    def _ended(self, task: Any, cause: BaseException | None = None) -> None:
        if self._task is task:
            self._fail(None, cause)  # a waiting call must never hang
            self._detach()

    def _detach(self) -> None:
        """Let the task end, as nothing is awaited; a wait that begins now gets another."""
        self._task = self._fatal = None
        self._scheduler.clear()
        self._changed.set()

    async def _join(self) -> None:
        """Return once the tasks that there are now have ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def notify(self, event: str, ids: frozenset[str]) -> None:
        """Record an event, from any thread."""
        if event.startswith(self._condition.event_prefix):
            self._owner.call(self._on_event, ids)

    def _on_event(self, ids: frozenset[str]) -> None:
        self._scheduler.notify(ids, self._clock.monotonic())
        with suppress(RuntimeError):  # the loop was closed before its waits were over
            self._changed.set()

    async def close(self) -> None:
        """End all waits with `ClientClosedError`, and the task."""
        self._is_closed = True
        if self._owner.is_here or self._owner.is_elsewhere:
            self._owner.call(self._end, _closed())
        if self._owner.is_here:
            await self._join()

    def _end(self, error: BaseException) -> None:
        """End all waits soon."""
        if self._scheduler.targets:
            self._fatal = error
            self._changed.set()

    async def _run(self) -> None:
        """Poll while anything is awaited. Whatever ends this ends all waits, too."""
        polls: set[asyncio.Task[None]] = set()
        cause: BaseException | None = None
        try:
            await self._poll(polls)
        except Exception as error:
            cause = error
        finally:
            self._ended(asyncio.current_task(), cause)
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, return_exceptions=True)

    async def _poll(self, polls: "set[asyncio.Task[None]]") -> None:
        while self._scheduler.targets and self._task is asyncio.current_task():
            self._changed.clear()
            for done in [each for each in polls if each.done()]:
                polls.discard(done)
                done.result()  # a crash of one is a crash of all
            if self._fatal is not None:
                self._fail(CHUNK, self._fatal)
            else:
                poll, seconds = self._scheduler.plan(self._clock.monotonic())
                if poll is not None:
                    polls.add(asyncio.create_task(self._poll_once(poll)))
                    continue
                if seconds > 0:  # a sleep shorter than the clock can show would never end
                    await wait(self._clock, self._changed, max(seconds, 0.001))
                    continue
            await asyncio.sleep(0)  # so that the loop isn't held up

    def _fail(self, most: int | None, error: BaseException | None = None) -> None:
        """End the waits for so many targets at most, None means all; by default, as a loop ends."""
        error = error or ClientClosedError("The event loop is being closed.")
        for target in list(islice(self._scheduler.targets.values(), most)):
            self._scheduler.fail(target.waiters, error, self._clock.monotonic())

    async def _poll_once(self, poll: str | int) -> None:
        """Send one poll and record its answer."""
        scheduler, clock, condition = self._scheduler, self._clock, self._condition
        is_urgent = any(each.priority == "interactive" for each in scheduler.policies)
        priority: Priority = "interactive" if is_urgent else "bulk"
        try:
            if isinstance(poll, str):
                item = await condition.read(
                    poll, priority, lambda: scheduler.spend(clock.monotonic())
                )
                scheduler.record_read(poll, item, clock.monotonic())
            elif condition.page is not None:
                page = await condition.page(poll, priority)
                scheduler.record_page(poll, page, clock.monotonic())
        except GatherError as error:
            noun, extra = condition.noun, log_fields(polled=condition.noun, error=error)
            _LOG.info("A poll of %s failed: %s", noun, type(error).__name__, extra=extra)
            if _is_fatal(error):
                self._end(error)
            else:
                scheduler.record_failure(poll, error, clock.monotonic(), clock.wall())
        finally:
            self._changed.set()


def _split(target: T | str) -> tuple[str, T | None]:
    """Return an awaited object's id, and the object if the caller has it."""
    target_id = getattr(target, "id", target)
    if not isinstance(target_id, str):
        raise InvalidRequestError("Pass the object or its id to wait for it.")
    return target_id, None if isinstance(target, str) else target


def _first_of(errors: Mapping[str, BaseException]) -> BaseException:
    """Return the first failure; where there are several, its notes name all objects."""
    first = next(iter(errors.values()))
    if len(errors) > 1 and not (isinstance(first, GatherError) and _is_fatal(first)):
        kinds: dict[str, list[str]] = {}
        for each, error in errors.items():
            kinds.setdefault(type(error).__name__, []).append(each)
        for kind, ids in kinds.items():
            more = f" and {len(ids) - CHUNK} more" if len(ids) > CHUNK else ""
            first.add_note(f"{kind} of {len(ids)}: {', '.join(ids[:CHUNK])}{more}")
    return first


def _is_fatal(error: GatherError) -> bool:
    """Return whether no poll can succeed any more: 401, or the client is closed."""
    return isinstance(error, AuthenticationError | ClientClosedError | ConfigurationError)


def _closed() -> ClientClosedError:
    return ClientClosedError("The client was closed while this call waited: make a new one.")


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
        polls = evolve(session.options, retry=once, max_wait=None)

        def coordinator(condition: Condition[T]) -> Coordinator[T]:
            return Coordinator(condition, budget=budget, clock=clock, rng=rng, is_alive=is_alive)

        def is_alive() -> bool:
            return signals is not None and signals.alive

        sessions: Sessions = {
            each: session.with_options(evolve(polls, priority=each)) for each in get_args(Priority)
        }
        self._loops = PerLoop(
            lambda: (
                coordinator(audio_ready(sessions)),
                coordinator(completed(sessions, clock.wall)),
                coordinator(summarized(sessions, clock.wall)),
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

    def _here(self) -> tuple[Coordinator[Any], Coordinator[Any], Coordinator[Any]]:
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
