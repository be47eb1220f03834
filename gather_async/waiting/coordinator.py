"""One task per kind of wait, which polls for everybody who waits."""

import asyncio
import contextvars
import math
import random
from collections.abc import Callable
from typing import Generic, TypeVar

from gather_async.clock import Clock, LoopOwner, wait
from gather_async.errors import ClientClosedError, GatherError
from gather_async.protocol.polling import PollPolicy
from gather_async.quota.limiter import Priority
from gather_async.waiting.budget import PollBudget
from gather_async.waiting.conditions import Condition
from gather_async.waiting.list_index import Poll, ReadOne
from gather_async.waiting.registry import Waiter, WaiterRegistry
from gather_async.waiting.scheduler import Scheduler
from gather_async.waiting.signals import RecentEvents

__all__ = ["Coordinator"]

T = TypeVar("T")
_SHORTEST_NAP = 0.001  # seconds
_MOST_UNDER_WAY = 4  # polls at once: one that hangs holds up nobody


class Coordinator(Generic[T]):
    """Lets calls wait, and polls for all of them while there are any.

    What was learned of the list survives the task and the event loop.
    """

    def __init__(
        self,
        kind: Condition[T],
        *,
        allowance: PollBudget,
        clock: Clock,
        rng: random.Random,
        is_alive: Callable[[], bool],
    ) -> None:
        """Make one; nothing runs yet.

        Args:
            kind: What is awaited.
            allowance: What polling may spend, shared by all kinds.
            clock: Where time comes from.
            rng: Where the jitter comes from.
            is_alive: Tells whether events arrive at present.
        """
        self._kind = kind
        self._clock = clock
        self._roster: WaiterRegistry[T] = WaiterRegistry()
        self._board = Scheduler(
            kind, self._roster, allowance, rng, is_slow=lambda: kind.has_events and is_alive()
        )
        self._heard = RecentEvents()
        self._owner = LoopOwner("client")
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def wait(self, id: str, *, timeout: float, policy: PollPolicy, seen: T | None) -> T:
        """Return the object once it is ready.

        Args:
            id: Whose.
            timeout: Seconds; ``inf`` for ever.
            policy: When to look.
            seen: What the caller has of it; it tells nothing but what to name in an error.

        Raises:
            GatherError: The wait ended badly, or its time was over.
        """
        waiter = self.join(id, timeout=timeout, policy=policy, seen=seen)
        try:
            return await waiter.future
        finally:
            self.leave(waiter)
            await self.settle()

    def join(self, id: str, *, timeout: float, policy: PollPolicy, seen: T | None) -> Waiter[T]:
        """Let a call wait, which must `leave` in the end."""
        if self._is_closed:
            raise _closed()
        loop = self._enter_loop()
        now = self._clock.monotonic()
        waiter: Waiter[T] = Waiter(id, policy, now, timeout, loop.create_future())
        if timeout < math.inf:
            waiter.timer = self._clock.call_later(timeout, lambda: self._expire(waiter))
        self._roster.add(waiter, now, told_at=self._heard.last(id, now), seen=seen)
        if self._task is None or self._task.done():
            # A context of its own: polls belong to no single caller.
            self._task = loop.create_task(
                self._run(),
                name=f"gather_async: waiting for {self._kind.noun}",
                context=contextvars.Context(),
            )
        self._changed.set()
        return waiter

    def leave(self, waiter: Waiter[T]) -> None:
        """Take a call out, however it ended."""
        self._roster.drop(waiter)
        if waiter.timer is not None:
            waiter.timer.cancel()
        if waiter.future.done() and not waiter.future.cancelled():
            waiter.future.exception()  # it may have come while the call was being cancelled
        self._changed.set()

    async def settle(self) -> None:
        """Return once the task has ended, if nobody waits any more."""
        task = self._task
        if task is not None and not self._roster and not task.done():
            await asyncio.wait({task})

    def hear(self, event: str, ids: frozenset[str]) -> None:
        """Take in an event, from any thread."""
        if not event.startswith(self._kind.event_prefix):
            return
        self._owner.call(self._take_in, ids)

    async def close(self) -> None:
        """End all waits with `ClientClosedError`, and the task."""
        self._is_closed = True
        if self._owner.loop is None or self._owner.is_here:
            self._end_all(_closed())
            await self.settle()
        elif self._owner.is_elsewhere:
            self._owner.call(self._end_all, _closed())

    def _enter_loop(self) -> asyncio.AbstractEventLoop:
        """Move to the running loop; what was left in one that ended is forgotten."""
        if self._owner.is_elsewhere and not self._roster:
            self._owner.leave()  # nothing waits there any more
        if self._owner.enter():
            self._roster.forget_all()
            self._board.forget_steps()
            self._task, self._changed = None, asyncio.Event()
        return asyncio.get_running_loop()

    def _take_in(self, ids: frozenset[str]) -> None:
        now = self._clock.monotonic()
        for each in ids:
            self._heard.note(each, now)
        self._roster.tell(ids, now)
        self._changed.set()

    def _expire(self, waiter: Waiter[T]) -> None:
        """End a wait whose time is over; why nothing was seen is the error's cause."""
        waited = self._clock.monotonic() - waiter.began
        error = self._kind.timed_out(waiter.id, self._roster.last_of(waiter), waited)
        error.__cause__ = self._board.trouble.last
        self._roster.end(waiter, error)
        self._changed.set()

    def _end_all(self, error: BaseException) -> None:
        self._roster.end_all(error)
        self._changed.set()

    async def _run(self) -> None:
        """Poll while anybody waits. Whatever ends this ends all waits, too."""
        steps: set[asyncio.Task[None]] = set()
        try:
            await self._poll(steps)
        except asyncio.CancelledError:
            self._roster.end_all(ClientClosedError("The event loop is being closed."))
            raise
        except Exception as error:  # a waiting call must never hang
            self._roster.end_all(error)
        finally:
            if self._task is asyncio.current_task():
                self._task = None
                self._board.forget_steps()
            for step in steps:
                step.cancel()
            await asyncio.gather(*steps, return_exceptions=True)

    async def _poll(self, steps: "set[asyncio.Task[None]]") -> None:
        while self._roster:
            self._changed.clear()
            for done in [each for each in steps if each.done()]:
                steps.discard(done)
                done.result()  # a crash of one is a crash of all
            is_full = len(steps) >= _MOST_UNDER_WAY
            step = math.inf if is_full else self._board.plan(self._clock.monotonic())
            if isinstance(step, Poll):
                steps.add(asyncio.create_task(self._take(step)))
            else:
                await self._nap(step)

    async def _nap(self, seconds: float) -> None:
        """Sleep until then, or until something changes."""
        # A nap shorter than a float of the clock can tell would never end.
        await wait(self._clock, self._changed, max(seconds, _SHORTEST_NAP))

    async def _take(self, step: Poll) -> None:
        """Send one poll and take in its answer."""
        board, request = self._board, step.request
        try:
            if isinstance(request, ReadOne):
                item = await self._kind.read(request.id, self._priority(), self._count)
                board.saw_one(step, request.id, item, self._clock.monotonic())
            else:
                listed = await self._kind.page(request.number, self._priority())
                board.saw_page(step, request, listed, self._clock.monotonic())
        except GatherError as error:
            board.failed(step, error, self._clock.monotonic(), self._clock.wall())
        finally:
            board.over(step, self._clock.monotonic())
            self._changed.set()

    def _count(self) -> None:
        self._board.spend(self._clock.monotonic())

    def _priority(self) -> Priority:
        is_urgent = any(each.priority == "interactive" for each in self._roster.policies)
        return "interactive" if is_urgent else "bulk"


def _closed() -> ClientClosedError:
    return ClientClosedError("The client was closed while this call waited: make a new one.")
