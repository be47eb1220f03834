"""The limiter of one process: every task of a client shares its windows."""

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Literal
from weakref import WeakSet

from gather_async.clock import Clock, Timer
from gather_async.errors import ClientClosedError
from gather_async.models.rate_limit import RateLimitStatus
from gather_async.protocol.rate_headers import ServerQuota
from gather_async.protocol.rolling_windows import RateLimit, RollingWindows, check_rate_limits
from gather_async.quota.forecast import Forecast, describe, quota_wait_error, snapshot
from gather_async.quota.limiter import InProcessSlot, Priority, Slot, check_priority
from gather_async.quota.priority_queue import PriorityScheduler, WaitQueue, WaitQueues
from gather_async.quota.server_quota import Hold, ServerQuotaTracker
from gather_async.validators import Choice, Number

__all__ = ["InProcessLimiter", "Pace", "WakeTimer"]

_SHORTEST = 1e-6  # seconds; a timer may ring a float's last bit early, so 0 could ring for ever
_COUNT = Number(least=0, whole=True)
_SECONDS = Number(least=0, most=math.inf, unit="seconds")


class WakeTimer:
    """Rings at the earliest instant it was set to since it last rang.

    Args:
        clock: Whose instants they are.
        ring: Called when it rings; it may ring too early, and is set again then.
    """

    __slots__ = ("_at", "_clock", "_ring", "_timer")

    def __init__(self, clock: Clock, ring: Callable[[], object]) -> None:
        self._clock = clock
        self._ring = ring
        self._timer: Timer | None = None
        self._at = math.inf

    def set(self, at: float, now: float) -> None:
        """Ring by then; ``inf`` turns the alarm off."""
        if self._timer is not None:
            if self._at <= at < math.inf:
                return  # cheaper than to move it: it rings early, and is set again
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            self._at = at
            self._timer = self._clock.call_later(max(at - now, _SHORTEST), self._rings)

    def _rings(self) -> None:
        self._timer = None
        self._ring()


Pace = Literal["burst", "even"]

_NEWEST = 0.1  # the share of the newest request in the usual latency


class InProcessLimiter:
    """Gives leave to send, as early as every rolling window allows and no earlier.

    First come, first served within a priority; interactive calls go ahead of bulk
    ones, which get about one start in five once they got none for ten seconds.
    Bulk never takes the last ``reserve`` slots of a window; a window that is no
    larger than the reserve leaves bulk one slot, so that it goes on.

    The count survives an event loop: a limiter used under `asyncio.run` again
    knows what it sent before. What was in flight in the old loop counts as lost.

    An operation costs O(1) amortised, however many calls wait. Not thread-safe.

    Args:
        rate_limits: The windows, at least one.
        reserve: Slots, from 0.
        clock: Where time comes from.
        pace: ``"burst"`` lets bulk use what is free; ``"even"`` spaces its starts
            so that it spends the longest window's quota evenly over that window.
        rng: Adds up to a second of jitter to each hold; None adds none.

    Raises:
        ConfigurationError: An argument can't work.
    """

    def __init__(
        self,
        rate_limits: Sequence[RateLimit],
        *,
        reserve: int = 5,
        clock: Clock,
        pace: Pace = "burst",
        rng: random.Random | None = None,
    ) -> None:
        limits = check_rate_limits(rate_limits)
        _COUNT.check("reserve", reserve)
        Choice(("burst", "even")).check("pace", pace)
        self._clock = clock
        self._windows = RollingWindows(limits, reserve=reserve)
        self._server = ServerQuotaTracker(self._windows)
        self._turns = PriorityScheduler(self._windows, even=pace == "even")
        self._latency = 0.0
        self._hold = Hold(limits[-1].per, rng)
        self._refused: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._alarm = WakeTimer(clock, self._dispatch)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._generation = 0
        self._lines: WaitQueues[InProcessSlot] = WaitQueues()

    async def acquire(self, *, priority: Priority, max_wait: float | None) -> Slot:
        """Return leave to send, as soon as the windows allow.

        Args:
            priority: ``"interactive"`` or ``"bulk"``.
            max_wait: Seconds, from 0; None waits as long as it takes. Whether it
                suffices is forecast from the calls ahead and the usual latency; a
                call that waits after all, because the server held the client
                meanwhile, gives up when the time is over.

        Raises:
            QuotaWaitError: It would take longer than ``max_wait``; nothing was queued.
            ConfigurationError: No such priority, or ``max_wait`` is negative.
            ClientClosedError: Another event loop is using the limiter right now.

        Cancelling the call leaves no trace and loses no slot.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        bulk = priority == "bulk"
        if not bulk:
            check_priority(priority)
        again = bool(self._refused) and self._was_refused()
        now = self._clock.monotonic()
        is_quiet = now >= self._hold.until and not self._lines.anyone()
        if is_quiet and self._turns.may_start(now, bulk=bulk):
            return self._start(now, bulk=bulk)
        if max_wait is not None:
            self._check_wait(max_wait, now, bulk=bulk)
        return await self._queue(loop, max_wait, bulk=bulk, again=again)

    async def _queue(
        self, loop: asyncio.AbstractEventLoop, max_wait: float | None, *, bulk: bool, again: bool
    ) -> InProcessSlot:
        """Wait in line; whoever leaves it takes nothing along."""
        line = self._lines.bulk if bulk else self._lines.interactive
        waiter: asyncio.Future[InProcessSlot] = loop.create_future()
        line.join(waiter, again=again)
        self._dispatch()
        if waiter.done():
            return waiter.result()
        deadline = None
        if max_wait is not None:
            deadline = self._clock.call_later(
                max_wait, partial(self._give_up, waiter, max_wait, bulk=bulk)
            )
        try:
            return await waiter
        except BaseException:
            self._leave(line, waiter)
            raise
        finally:
            if deadline is not None:
                deadline.cancel()
            del waiter, deadline  # a cancelled future refers to this frame: no cycle to collect

    def _leave(self, line: WaitQueue[InProcessSlot], waiter: asyncio.Future[InProcessSlot]) -> None:
        """Undo what a cancelled waiter did: its place in line, or the slot it just got."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().returned()
            return
        if not waiter.get_loop().is_closed():  # else its line goes with the loop
            waiter.cancel()
            line.leave()
            self._dispatch()

    def _give_up(
        self, waiter: asyncio.Future[InProcessSlot], max_wait: float, *, bulk: bool
    ) -> None:
        """End a wait that a hold, or slow answers, made longer than was forecast."""
        if not waiter.done():
            now = self._clock.monotonic()
            wait = max(0.0, self._forecast(now, bulk=bulk, count=0) - now)
            waiter.set_exception(quota_wait_error(wait, max_wait, self._clock.wall()))

    def _start(self, now: float, *, bulk: bool) -> InProcessSlot:
        self._windows.sent()
        self._turns.started(now, bulk=bulk, bulk_waits=self._lines.bulk.waiting > 0)
        return InProcessSlot(self, now, self._generation)

    def _dispatch(self) -> None:
        """Let go whoever may start now, then set the alarm to when the next may."""
        if self._loop is None or not self._loop.is_running():
            return  # a task of a loop that stopped is being taken apart
        now = self._clock.monotonic()
        if now < self._hold.until:
            self._alarm.set(self._hold.until if self._lines.anyone() else math.inf, now)
            return
        interactive, bulk, turns = self._lines.interactive, self._lines.bulk, self._turns
        while True:
            turn = turns.next(now, interactive.waiting > 0, bulk.waiting > 0)
            if turn is None:
                break
            waiter = (bulk if turn == "bulk" else interactive).serve()
            if waiter is None:  # all have left, and will say so when they next run
                return
            waiter.set_result(self._start(now, bulk=turn == "bulk"))
        self._alarm.set(turns.next_at(now, interactive.waiting > 0, bulk.waiting > 0), now)

    def _was_refused(self) -> bool:
        """Tell whether this task asked for a hold, and forget it."""
        task = asyncio.current_task()
        if task is None or task not in self._refused:
            return False
        self._refused.discard(task)
        return True

    def recount(self, slot: InProcessSlot) -> None:
        """Count one more request in flight; called by the slot."""
        if slot.generation == self._generation:
            self._windows.sent()

    def settle(self, slot: InProcessSlot, *, sent: bool, quota: ServerQuota | None) -> None:
        """Take a slot's requests out of flight; called by the slot."""
        if slot.generation != self._generation:
            return  # its loop is gone, and it counted as lost then
        now = self._clock.monotonic()
        if quota is not None:
            reset = quota.reset_at
            reset_in = None if reset is None else reset - self._clock.wall()
            self._server.observe(quota, sent_at=slot.sent_at, now=now, reset_in=reset_in)
        if sent:
            self._windows.answered(now, slot.weight)
            latency = now - slot.sent_at
            self._latency += (latency - self._latency) * (_NEWEST if self._latency else 1.0)
        else:
            self._windows.returned(slot.weight)
        if self._lines.anyone():
            self._dispatch()

    def hold(self, until: float) -> None:
        """Let nothing start before this wall time, in Unix seconds; only ever grows.

        The task that asks for it was refused by the server: its next call goes ahead
        of all of its priority that weren't sent yet.

        A hold is turned into monotonic time at once, so a wall clock that jumps
        afterwards changes nothing, and it exceeds the longest window by a minute at
        most. A past time, or NaN, holds nothing.
        """
        with suppress(RuntimeError):  # no loop is running, so there is no task either
            task = asyncio.current_task()
            if task is not None:
                self._refused.add(task)
        grown = self._hold.grow(until - self._clock.wall(), self._clock.monotonic())
        if grown and self._lines.anyone():
            self._dispatch()

    def status(self) -> RateLimitStatus:
        """Return what is known of the quota now."""
        return snapshot(
            self._windows,
            now=self._clock.monotonic(),
            wall=self._clock.wall(),
            held=self._hold.until,
            queued=self._lines.status(),
        )

    def estimate(self, requests: int, *, priority: Priority) -> timedelta:
        """Return how long until that many more requests could have been answered.

        Simulates from the present: after the calls that wait already, with the
        usual latency, the reserve and the pace, and nobody else joining. Costs a
        few milliseconds at most, however many requests.

        Raises:
            ConfigurationError: ``requests`` is no whole number from 0, or no such priority.
        """
        check_priority(priority)
        _COUNT.check("requests", requests)
        now = self._clock.monotonic()
        start = self._forecast(now, bulk=priority == "bulk", count=requests)
        try:
            return timedelta(seconds=start + self._latency - now if requests else 0.0)
        except OverflowError:
            return timedelta.max

    def recent(self, now_wall: float | None = None) -> list[float]:
        """Return when the requests of the longest window ended, in Unix seconds, in order.

        Those still in flight count as ending now. What `restore` wants in the next
        process.

        Args:
            now_wall: The present in Unix seconds; None asks the clock.
        """
        now = self._clock.monotonic()
        offset = (self._clock.wall() if now_wall is None else now_wall) - now
        ends = [*self._windows.answers(now), *[now] * self._windows.in_flight]
        return [at + offset for at in ends]

    def restore(self, wall_times: Iterable[float]) -> None:
        """Count requests that another process sent under this key.

        Args:
            wall_times: When they were answered or given up, in Unix seconds, in any
                order. Those older than the longest window are dropped, those in the
                future count as now. Each call adds: restore a history only once.
        """
        now = self._clock.monotonic()
        offset = now - self._clock.wall()
        self._windows.insert((at + offset for at in wall_times if math.isfinite(at)), now)

    def __repr__(self) -> str:
        return f"<InProcessLimiter {describe(self.status())}>"

    def _check_wait(self, max_wait: float, now: float, *, bulk: bool) -> None:
        _SECONDS.check("max_wait", max_wait, accepts="or None")
        wait = self._forecast(now, bulk=bulk, count=1) - now
        if wait > max_wait:
            raise quota_wait_error(wait, max_wait, self._clock.wall())

    def _forecast(self, now: float, *, bulk: bool, count: int) -> float:
        """Return when the last of ``count`` calls that joined now would start."""
        forecast = Forecast(
            self._windows, now=now, not_before=self._hold.until, latency=self._latency
        )
        ahead, turns = self._lines.status(), self._turns
        if not bulk:
            return forecast.start(ahead.interactive + count)
        forecast.start(ahead.interactive)
        return forecast.start(
            ahead.bulk + count, bulk=True, interval=turns.interval, not_before=turns.next_bulk
        )

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on in another event loop: keep the history, drop what belonged to the old one."""
        old, self._loop = self._loop, loop
        if old is None:
            return
        if old.is_running():
            self._loop = old
            raise ClientClosedError("The limiter is in use in another event loop right now.")
        self._generation += 1
        self._windows.answered(self._clock.monotonic(), self._windows.in_flight)
        self._alarm.set(math.inf, 0.0)
        stranded, self._lines = self._lines.disband(), WaitQueues()
        if not old.is_closed():
            for waiter in stranded:
                waiter.set_exception(ClientClosedError("The limiter moved to another event loop."))
