"""Calls that wait for a slot, in any number of event loops and threads.

A limiter's state is one; its waiters belong to the loops that they run in. Whichever
thread finds room decides who gets it, under the limiter's lock, and the waiter is woken in
its own loop. Every loop in which calls wait keeps a timer of its own, so that no loop
depends on another that may end at any time.
"""

import asyncio
import math
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Protocol

from gather_async.clock import Clock, Timer
from gather_async.errors import ClientClosedError
from gather_async.loops import running_loop
from gather_async.protocol.server_quota import ServerQuota
from gather_async.quota.priority_queue import Lobby, WaitQueue, WaitQueues

__all__ = ["CallQueue", "CallWaiter", "LimiterSlot", "LoopHome", "SlotOwner", "WakeTimer"]


class SlotOwner(Protocol):
    """The limiter of a slot, as far as the slot is concerned."""

    def recount(self, slot: "LimiterSlot") -> None:
        """Count one more request in flight for the slot."""

    def finish(self, slot: "LimiterSlot", *, sent: bool, quota: ServerQuota | None) -> None:
        """Take the slot's requests out of flight."""


class LimiterSlot:
    """Slot of our own limiters. A second ending does nothing: the first one was counted.

    Attributes:
        sent_at: When it was granted, on the limiter's clock.
        weight: How many requests it stands for: 1, and one more each time it was resent.
        home: The part of the event loop that it was granted in.
    """

    __slots__ = ("_owner", "home", "sent_at", "weight")

    def __init__(self, owner: SlotOwner, sent_at: float, home: Any) -> None:
        self._owner: SlotOwner | None = owner
        self.sent_at: float = sent_at
        self.weight: int = 1
        self.home: Any = home

    def resent(self) -> None:
        """Count one more request: aiohttp sent this one again on its own."""
        if self._owner is not None:
            self.weight += 1
            self._owner.recount(self)

    def answered(self, quota: ServerQuota | None) -> None:
        """End it: an answer came."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.finish(self, sent=True, quota=quota)

    def lost(self) -> None:
        """End it: it was sent, and no answer will be read; it counts from now."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.finish(self, sent=True, quota=None)

    def returned(self) -> None:
        """End it: it never was sent; the slot is free at once.

        If it was resent after all, it did leave, and counts as lost.
        """
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.finish(self, sent=self.weight > 1, quota=None)

    def __repr__(self) -> str:
        state = "open" if self._owner is not None else "ended"
        return f"<LimiterSlot {state}, {self.weight} request{'s' * (self.weight > 1)}>"


_SHORTEST = 1e-6  # seconds; a timer may ring a float's last bit early, so 0 could ring for ever
# Seconds between looks for loops that died with requests in flight. Only asked while calls of
# other loops wait for an answer that may never come.
_SWEEP_INTERVAL = 1.0


class WakeTimer:
    """Timer that rings at the earliest instant it was set to since it last rang.

    Args:
        clock: The clock of its instants.
        ring: Called when it rings; it may ring too early, and is set again then.
    """

    __slots__ = ("_clock", "_ring", "_timer", "at")

    def __init__(self, clock: Clock, ring: Callable[[], object]) -> None:
        self._clock = clock
        self._ring = ring
        self._timer: Timer | None = None
        self.at: float = math.inf

    def set(self, at: float, now: float) -> None:
        """Ring by then, in the running loop; ``inf`` turns the timer off."""
        if self._timer is not None:
            if self.at <= at < math.inf:
                return  # cheaper than to move it: it rings early, and is set again
            self._timer.cancel()
            self._timer = None
        self.at = at
        if at < math.inf:
            self._timer = self._clock.call_later(max(at - now, _SHORTEST), self._rings)

    def _rings(self) -> None:
        self._timer = None
        self.at = math.inf
        self._ring()


class LoopHome:
    """One event loop's part in a limiter.

    Attributes:
        loop: The loop.
        lobby: Where its calls wait before they join, if they are many.
        timer: Rings in this loop.
        waiting: Calls of this loop that wait.
        in_flight: Requests of this loop that were not answered yet.
        is_called: Whether another thread asked the loop to dispatch, and it has not yet.
        is_gone: Whether the loop ended, so that what was in flight counted as lost.
    """

    __slots__ = ("in_flight", "is_called", "is_gone", "lobby", "loop", "timer", "waiting")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, ring: "Callable[[LoopHome], object]"
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.lobby: Lobby = Lobby(loop)
        self.timer: WakeTimer = WakeTimer(clock, partial(ring, self))
        self.waiting: int = 0
        self.in_flight: int = 0
        self.is_called: bool = False
        self.is_gone: bool = False


class CallWaiter:
    """One call that waits.

    The future only wakes the call. The slot belongs to the waiter from the moment it was
    granted, so that a call cancelled before it woke can give it back.
    """

    __slots__ = ("deadline", "future", "home", "is_counted_out", "slot")

    def __init__(self, home: LoopHome) -> None:
        self.home: LoopHome = home
        self.deadline: Timer | None = None
        self.is_counted_out: bool = False
        self.future: asyncio.Future[None] = home.loop.create_future()
        self.slot: LimiterSlot | None = None

    @property
    def has_left(self) -> bool:
        """Whether the call was cancelled or gave up."""
        return self.future.done()


class CallQueue:
    """The waiting calls of one limiter. Every method but `arrive` and `wait` wants the lock held.

    Args:
        queues: Where they wait, in order.
        clock: Where the timers' time comes from.
        lock: The limiter's, reentrant.
        dispatch: Grants what is free; called in the loop whose timer rang.
        lost: Called with the number of requests that a dead loop had in flight.
        lateness: Returns for how many more seconds a call whose time is over waits: for a
            slot that is on its way.
    """

    def __init__(
        self,
        queues: WaitQueues[CallWaiter],
        clock: Clock,
        lock: AbstractContextManager[Any],
        *,
        dispatch: Callable[[], object],
        lost: Callable[[int], object],
        lateness: Callable[[], float],
    ) -> None:
        self._queues = queues
        self._clock = clock
        self._lock = lock
        self._dispatch = dispatch
        self._lost = lost
        self._lateness = lateness
        self._homes: dict[asyncio.AbstractEventLoop, LoopHome] = {}
        self._latest: LoopHome | None = None
        self._refused: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    @property
    def has_other_loops(self) -> bool:
        """Whether calls of more than one loop are known."""
        return len(self._homes) > 1

    def home(self, loop: asyncio.AbstractEventLoop) -> LoopHome:
        """Return the running loop's part, which is made with its first call."""
        latest = self._latest
        if latest is not None and latest.loop is loop:
            return latest
        home = self._homes.get(loop)
        if home is None:
            self.sweep()
            home = self._homes[loop] = LoopHome(loop, self._clock, self._ring)
        self._latest = home
        return home

    async def arrive(self, *, bulk: bool) -> None:
        """Return once the running loop has time to let a call join: at once, unless many do."""
        with self._lock:
            lobby = self.home(asyncio.get_running_loop()).lobby
            if lobby.pass_one():
                return
            turn = lobby.turn()
            queue = self._queues.bulk if bulk else self._queues.interactive
            queue.arriving += 1
        try:
            await turn
        finally:
            del turn  # a cancelled future refers to this frame: no cycle to collect
            with self._lock:
                queue.arriving -= 1

    def _ring(self, home: LoopHome) -> None:
        with self._lock:
            home.is_called = False
            if not home.is_gone:
                self._dispatch()

    async def wait(
        self, waiter: CallWaiter, queue: WaitQueue[CallWaiter], max_wait: float | None
    ) -> LimiterSlot:
        """Return the slot that a pushed waiter is granted.

        Args:
            waiter: It may have been granted one already.
            queue: Where it was pushed.
            max_wait: Seconds after which the waiter is given up; None waits on.

        Raises:
            TimeoutError: ``max_wait`` is over.
            ClientClosedError: The loop rested while another one took over.
        """
        if max_wait is not None:
            waiter.deadline = self._clock.call_later(max_wait, partial(self._give_up, waiter))
        try:
            if waiter.slot is None:
                await waiter.future
            assert waiter.slot is not None  # noqa: S101 - only a grant ends the future well
            return waiter.slot
        except BaseException:
            self._withdraw(waiter, queue)
            raise
        finally:
            if waiter.deadline is not None:
                waiter.deadline.cancel()
            del waiter  # a cancelled future refers to this frame: no cycle to collect

    def push(self, home: LoopHome, *, bulk: bool) -> tuple[CallWaiter, WaitQueue[CallWaiter]]:
        """Add the calling task to its priority's queue."""
        queue = self._queues.bulk if bulk else self._queues.interactive
        waiter = CallWaiter(home)
        queue.push(waiter, was_refused=bool(self._refused) and self._pop_refused())
        home.waiting += 1
        return waiter, queue

    def grant(self, waiter: CallWaiter, slot: LimiterSlot) -> None:
        """Give a popped waiter its slot, and wake it in its own loop."""
        waiter.slot = slot
        home = waiter.home
        home.waiting -= 1
        if home.loop is running_loop():
            waiter.future.set_result(None)
            return
        try:
            home.loop.call_soon_threadsafe(_wake, waiter.future)
        except RuntimeError:  # the loop was closed with the call in it
            waiter.slot = None
            slot.returned()

    def wake_at(self, at: float, now: float, *, busy: bool = False) -> None:
        """Let every loop in which calls wait dispatch at that instant.

        Args:
            at: When.
            now: The present.
            busy: Whether loops with requests in flight do, too, and the running one.
        """
        here = running_loop()
        if self.has_other_loops and not self._queues.is_empty:
            at = min(at, now + _SWEEP_INTERVAL)
        for home in self._homes.values():
            if home.loop is here:
                home.timer.set(at if home.waiting or busy else math.inf, now)
            elif (
                (home.waiting or (busy and home.in_flight))
                and at < home.timer.at
                and not home.is_called
            ):
                home.is_called = True
                with suppress(RuntimeError):  # closed: the next sweep forgets it
                    home.loop.call_soon_threadsafe(self._ring, home)

    def refuse(self, waiter: CallWaiter, error: Exception) -> None:
        """End the wait of a call with an error, in its own loop."""
        if waiter.home.loop is running_loop():
            _fail(waiter.future, error)
        else:
            with suppress(RuntimeError):  # the loop was closed with the call in it
                waiter.home.loop.call_soon_threadsafe(_fail, waiter.future, error)

    def refuse_all(self, error: Callable[[], Exception]) -> None:
        """End the wait of every call with an error of its own."""
        for queue in (self._queues.interactive, self._queues.bulk):
            for waiter in queue.remove(lambda _: True):
                self.refuse(waiter, error())

    def sweep(self) -> None:
        """Forget loops that no longer run; what they had in flight counts as lost now."""
        for home in [each for each in self._homes.values() if not each.loop.is_running()]:
            del self._homes[home.loop]
            home.is_gone = True
            if self._latest is home:
                self._latest = None
            self._lost(home.in_flight)
            for queue in (self._queues.interactive, self._queues.bulk):
                stranded = queue.remove(partial(_lives_in, home))
                if not home.loop.is_closed():  # it rests, and would wait for ever when it goes on
                    for waiter in stranded:
                        waiter.future.set_exception(
                            ClientClosedError("The limiter moved to another event loop.")
                        )

    def remember_refused(self) -> None:
        """Let the running task's next call go ahead of those that weren't sent yet."""
        with suppress(RuntimeError):  # no loop is running, so there is no task either
            task = asyncio.current_task()
            if task is not None:
                self._refused.add(task)

    def _pop_refused(self) -> bool:
        task = asyncio.current_task()
        if task is None or task not in self._refused:
            return False
        self._refused.discard(task)
        return True

    def _give_up(self, waiter: CallWaiter, *, is_late: bool = False) -> None:
        with self._lock:
            if waiter.slot is not None or waiter.future.done():
                return
            late = 0.0 if is_late else self._lateness()
            if late:
                again = partial(self._give_up, waiter, is_late=True)
                waiter.deadline = self._clock.call_later(late, again)
            else:
                waiter.future.set_exception(TimeoutError())

    def _withdraw(self, waiter: CallWaiter, queue: WaitQueue[CallWaiter]) -> None:
        """Undo what a call that left did: its place in the queue, or the slot it just got."""
        with self._lock:
            if waiter.slot is not None:
                waiter.slot.returned()
            elif not waiter.home.is_gone:  # else its place went with the loop
                waiter.future.cancel()
                waiter.home.waiting -= 1
                # What is next, and when, only depends on whether calls wait, not on how many.
                if queue.discard(waiter) or not waiter.home.waiting:
                    self._dispatch()


def _lives_in(home: LoopHome, waiter: CallWaiter) -> bool:
    return waiter.home is home


def _fail(future: "asyncio.Future[None]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
