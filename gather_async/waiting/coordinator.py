"""One task per condition, which polls for all calls that wait."""

import asyncio
import contextvars
import math
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from gather_async.clock import Clock, LoopOwner, wait
from gather_async.errors import (
    AudioGenerationError,
    ClientClosedError,
    GatherError,
    InvalidRequestError,
)
from gather_async.protocol.polling import PollPolicy
from gather_async.quota.limiter import Priority
from gather_async.validators import Number
from gather_async.waiting.conditions import MOST_REMEMBERED, Condition
from gather_async.waiting.list_index import Poll
from gather_async.waiting.pacing import PollBudget, is_fatal
from gather_async.waiting.registry import CHUNK, Target, Waiter, WaiterRegistry
from gather_async.waiting.scheduler import MOST_IN_FLIGHT, Scheduler

__all__ = ["Coordinator", "RecentEvents"]

T = TypeVar("T")
_REMEMBERED_FOR = 300.0  # seconds: a wait may begin that long after its event came


class RecentEvents:
    """A short memory of ids that events named, for waits that begin after the event."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at: OrderedDict[str, float] = OrderedDict()

    def note(self, id: str, now: float) -> None:
        """Remember an id; the oldest are forgotten."""
        self._at[id] = now
        self._at.move_to_end(id)
        oldest = now - _REMEMBERED_FOR
        while len(self._at) > MOST_REMEMBERED or next(iter(self._at.values())) < oldest:
            self._at.popitem(last=False)

    def last(self, id: str, now: float) -> float | None:
        """Return when the id was last named; None if not lately."""
        at = self._at.get(id)
        return at if at is not None and now - at <= _REMEMBERED_FOR else None


class Coordinator(Generic[T]):
    """The waits of one condition, and the task that polls for them while there are any.

    What was learned of the list survives the task and the event loop.
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
        """Make one; nothing runs yet.

        Args:
            condition: What is awaited.
            budget: What polls may use, shared by all conditions.
            clock: Where time comes from.
            rng: Where the jitter comes from.
            is_alive: Returns whether events arrive at present.
        """
        self._condition = condition
        self._clock = clock
        self._registry: WaiterRegistry[T] = WaiterRegistry()
        self._scheduler = Scheduler(
            condition,
            self._registry,
            budget,
            rng,
            is_slow=lambda: condition.has_events and is_alive(),
        )
        self._recent = RecentEvents()
        self._owner = LoopOwner("client")
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._fatal: BaseException | None = None
        self._is_closed = False

    async def wait(
        self, target: T | str, *, timeout: float | None, poll: PollPolicy | None = None
    ) -> T:
        """Return the object once the condition holds.

        Args:
            target: The object or its id.
            timeout: Seconds; None and ``inf`` for ever.
            poll: When to poll; None takes the default.

        Raises:
            GatherError: The wait ended badly, or its time was over.
        """
        over = asyncio.get_running_loop().create_future()

        def end(_: Waiter[T]) -> None:
            if not over.done():
                over.set_result(None)

        waiter = self._add(_split(target), _seconds(timeout), poll or PollPolicy(), end)
        self._start()
        try:
            await over
        finally:
            self._remove(waiter)
            await self.wait_idle()
        return waiter.result()

    async def wait_each(
        self, targets: Iterable[T | str], *, timeout: float | None, poll: PollPolicy | None = None
    ) -> AsyncIterator[T | AudioGenerationError]:
        """Yield each object once the condition holds for it, or why it never will.

        Raises:
            GatherError: What else ended a wait, once all the others are over; its notes
                name all that ended so.
        """
        seconds, policy = _seconds(timeout), poll or PollPolicy()
        distinct = dict(_split(each) for each in _several(targets))
        over: asyncio.Queue[Waiter[T]] = asyncio.Queue()
        waiting: set[Waiter[T]] = set()
        failed: list[Waiter[T]] = []
        try:
            for target in distinct.items():
                waiting.add(self._add(target, seconds, policy, over.put_nowait))
                if len(waiting) % CHUNK == 0:
                    await asyncio.sleep(0)
            self._start()
            while waiting:
                waiter = await over.get()
                waiting.discard(waiter)
                if waiter.error is None:
                    yield waiter.result()
                elif isinstance(waiter.error, AudioGenerationError):
                    yield waiter.error
                else:
                    failed.append(waiter)
        finally:
            for waiter in waiting:
                self._remove(waiter)
            await self.wait_idle()
        if failed:
            raise _first_of(failed)

    def _add(
        self,
        target: tuple[str, T | None],
        timeout: float,
        policy: PollPolicy,
        on_end: Callable[[Waiter[T]], object],
    ) -> Waiter[T]:
        """Add a wait, which must be removed in the end."""
        if self._is_closed:
            raise _closed()
        target_id, seen = target
        self._enter_loop()
        now = self._clock.monotonic()
        waiter = Waiter(target_id, policy, now, timeout, on_end, has_seen=seen is not None)
        notified_at = self._recent.last(target_id, now)
        self._scheduler.add(waiter, now, notified_at=notified_at, seen=seen)
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

    def _remove(self, waiter: Waiter[T]) -> None:
        """Remove a wait, however it ended."""
        self._scheduler.remove(waiter)
        if not self._registry:
            self._changed.set()

    async def wait_idle(self) -> None:
        """Return once the task has ended, if nothing is awaited any more."""
        task = self._task
        if task is not None and not self._registry and not task.done():
            await asyncio.wait({task})

    def notify(self, event: str, ids: frozenset[str]) -> None:
        """Record an event, from any thread."""
        if not event.startswith(self._condition.event_prefix):
            return
        self._owner.call(self._on_event, ids)

    async def close(self) -> None:
        """End all waits with `ClientClosedError`, and the task."""
        self._is_closed = True
        if self._owner.loop is None or self._owner.is_here:
            self._end(_closed())
            if self._task is not None and not self._task.done():
                await asyncio.wait({self._task})
        elif self._owner.is_elsewhere:
            self._owner.call(self._end, _closed())

    def _enter_loop(self) -> None:
        """Move to the running loop; what was left in one that ended is forgotten."""
        if self._owner.is_elsewhere and not self._registry:
            self._owner.leave()  # nothing waits there any more
        if self._owner.enter():
            self._scheduler.clear()
            self._task, self._changed = None, asyncio.Event()

    def _on_event(self, ids: frozenset[str]) -> None:
        now = self._clock.monotonic()
        for each in ids:
            self._recent.note(each, now)
        self._registry.notify(ids, now)
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
            self._finish(list(self._registry), ClientClosedError("The event loop is being closed."))
            raise
        except Exception as error:  # a waiting call must never hang
            self._finish(list(self._registry), error)
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
            now = self._clock.monotonic()
            if self._fatal is not None or self._registry.next_deadline <= now:
                self._end_some(now)
                await asyncio.sleep(0)
                continue
            is_full = len(polls) >= MOST_IN_FLIGHT
            poll = math.inf if is_full else self._scheduler.plan(now)
            if isinstance(poll, Poll):
                polls.add(asyncio.create_task(self._poll_once(poll)))
            else:
                await self._sleep(min(poll, self._registry.next_deadline - now))

    def _end_some(self, now: float) -> None:
        """End waits that are over, not so many at once that the loop is held up."""
        if self._fatal is not None:
            some = [each for each, _ in zip(self._registry, range(CHUNK), strict=False)]
            self._finish(some, self._fatal)
            return
        for waiter in self._registry.expired(now):
            target = self._registry.get(waiter.id)
            last = None if target is None else target.last
            error = self._condition.timed_out(waiter.id, last, now - waiter.began)
            error.__cause__ = self._scheduler.backoff.last  # why nothing was seen
            self._scheduler.finish(waiter, error)

    def _finish(self, targets: Iterable[Target[T]], error: BaseException) -> None:
        now = self._clock.monotonic()
        for target in targets:
            self._scheduler.finish_each(target.waiters, error, now)

    async def _sleep(self, seconds: float) -> None:
        """Sleep until then, or until something changes."""
        if seconds <= 0:
            await asyncio.sleep(0)
        else:  # a sleep shorter than a float of the clock can show would never end
            await wait(self._clock, self._changed, max(seconds, 0.001))

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


def _several(targets: Iterable[T | str]) -> Iterable[T | str]:
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise InvalidRequestError("Pass several questions or ids, such as [question.id].")
    return targets


def _seconds(timeout: float | None) -> float:
    """Return the seconds; None and ``inf`` mean for ever."""
    if timeout is None:
        return math.inf
    seconds = Number(least=0, most=math.inf, unit="seconds")
    return float(seconds.check("timeout", timeout, error=InvalidRequestError))


def _first_of(failed: Sequence[Waiter[Any]]) -> BaseException:
    """Return the first failure; where there are several, its notes name all objects."""
    errors = {each.id: each.error for each in failed if each.error is not None}
    first = next(iter(errors.values()))
    if len(failed) > 1 and not (isinstance(first, GatherError) and is_fatal(first)):
        kinds: dict[str, list[str]] = {}
        for each, error in errors.items():
            kinds.setdefault(type(error).__name__, []).append(each)
        for kind, ids in kinds.items():
            more = f" and {len(ids) - CHUNK} more" if len(ids) > CHUNK else ""
            first.add_note(f"{kind} of {len(ids)}: {', '.join(ids[:CHUNK])}{more}")
    return first


def _closed() -> ClientClosedError:
    return ClientClosedError("The client was closed while this call waited: make a new one.")
