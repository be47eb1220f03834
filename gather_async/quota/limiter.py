"""The protocol of limiters and their slots, the limiter of one process, and the log of waits."""

import asyncio
import logging
import math
import random
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from attrs import define, field

from gather_async.clock import Clock
from gather_async.models.rate_limit import RateLimitStatus
from gather_async.observability import log_fields
from gather_async.protocol.requests import Request
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.protocol.server_quota import ServerQuota
from gather_async.quota.call_queue import LimiterSlot, LoopHome
from gather_async.quota.priority_queue import PRIORITY, Priority
from gather_async.quota.queued_limiter import Pace, QueuedLimiter

__all__ = ["HoldNotice", "InProcessLimiter", "Limiter", "Slot", "log_wait"]


class Slot(Protocol):
    """Permission to send one request. Exactly one of its endings is called, once.

    Endings are synchronous, so that they can run while a task is being cancelled.
    """

    @abstractmethod
    def resent(self) -> None:
        """Count one more request: aiohttp sent this one again on its own."""

    @abstractmethod
    def answered(self, quota: ServerQuota | None) -> None:
        """End it: an answer came; ``quota`` is what its headers said, None if nothing."""

    @abstractmethod
    def lost(self) -> None:
        """End it: it was sent, and no answer will be read."""

    @abstractmethod
    def returned(self) -> None:
        """End it: it never was sent; the slot is free at once."""


class Limiter(Protocol):
    """Rate limiter of one API key: grants slots as the rolling windows allow."""

    @abstractmethod
    async def acquire(self, *, priority: Priority, max_wait: float | None) -> Slot:
        """Return a slot, as soon as the windows allow.

        Cancelling the call leaves no trace and loses no slot.

        Raises:
            QuotaWaitError: At once, if that would take more than ``max_wait`` seconds.
        """

    @abstractmethod
    def hold(self, until: float) -> None:
        """Let nothing start before this wall time, in Unix seconds; only ever grows.

        The task that asks for it was refused, and its next call should go first.
        """

    @abstractmethod
    def status(self) -> RateLimitStatus:
        """Return what is known of the quota now."""

    @abstractmethod
    def estimate(self, requests: int, *, priority: Priority) -> timedelta:
        """Return how long until that many more requests could have been sent."""


class InProcessLimiter(QueuedLimiter):
    """Grants slots as early as every rolling window allows, and no earlier.

    First come, first served within a priority; interactive calls go ahead of bulk
    ones, which get about one start in five once they got none for ten seconds.
    Bulk never takes the last ``reserve`` slots of a window; a window that is no
    larger than the reserve leaves bulk one slot, so that it goes on.

    Any number of event loops, in any threads, may use it at once; the order holds across
    them. The count survives a loop: a limiter used under `asyncio.run` again knows what it
    sent before, and what was in flight in a loop that ended counts as lost. A forked child
    starts with its parent's history.

    An operation costs O(1) amortised, however many calls wait.

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
        super().__init__(rate_limits, reserve=reserve, clock=clock, pace=pace, rng=rng)

    def __init_subclass__(cls) -> None:
        """Let no subclass that changes `acquire` be passed by through `grant`."""
        if "acquire" in vars(cls) and "grant" not in vars(cls):
            setattr(cls, "grant", _grant_none)  # noqa: B010 - type checkers take no other way

    async def acquire(self, *, priority: Priority, max_wait: float | None) -> Slot:
        """Return a slot, as soon as the windows allow.

        Args:
            priority: ``"interactive"`` or ``"bulk"``.
            max_wait: Seconds, from 0; None waits as long as it takes. Whether it
                suffices is forecast from the calls ahead and the usual latency; a
                call that waits after all, because the server held the client
                meanwhile, gives up when the time is over.

        Raises:
            QuotaWaitError: It would take longer than ``max_wait``; nothing was queued.
            ConfigurationError: No such priority, or ``max_wait`` is negative.

        Cancelling the call leaves no trace and loses no slot.
        """
        slot = self.grant(priority)
        if slot is not None:
            return slot
        return await self._wait_in_line(max_wait, bulk=priority == "bulk")

    def grant(self, priority: Priority) -> Slot | None:
        """Return a slot if one is free now and no call waits; None otherwise.

        What `acquire` does where it needn't wait, without the cost of a coroutine.

        Raises:
            ConfigurationError: There is no such priority.
        """
        bulk = priority == "bulk"
        if not bulk and priority != "interactive":
            PRIORITY.check("priority", priority)
        with self._lock:
            now = self._clock.monotonic()
            is_quiet = now >= self._hold.until and self._queues.is_empty
            if not is_quiet or not self._scheduler.may_start(now, bulk=bulk):
                return None
            return self._start(now, self._calls.home(asyncio.get_running_loop()), bulk=bulk)

    def _start(self, now: float, home: LoopHome, *, bulk: bool) -> LimiterSlot:
        self._windows.sent()
        home.in_flight += 1
        self._scheduler.started(now, bulk=bulk, bulk_waits=self._queues.bulk.waiting > 0)
        return LimiterSlot(self, now, home)

    def _dispatch(self) -> None:
        """Grant what is free to the calls that wait, then set the timers to when more will be."""
        calls, scheduler = self._calls, self._scheduler
        if calls.has_other_loops:
            calls.sweep()
        now = self._clock.monotonic()
        if now < self._hold.until:
            calls.wake_at(math.inf if self._queues.is_empty else self._hold.until, now)
            return
        interactive, bulk = self._queues.interactive, self._queues.bulk
        while True:
            turn = scheduler.next(now, interactive.waiting > 0, bulk.waiting > 0)
            if turn is None:
                break
            waiter = (bulk if turn == "bulk" else interactive).pop()
            if waiter is None:  # all have left
                continue
            calls.grant(waiter, self._start(now, waiter.home, bulk=turn == "bulk"))
        calls.wake_at(scheduler.next_at(now, interactive.waiting > 0, bulk.waiting > 0), now)

    def _lose(self, requests: int) -> None:
        """Count what a loop that ended had in flight as answered now: the safe guess."""
        self._windows.answered(self._clock.monotonic(), requests)

    def recount(self, slot: LimiterSlot) -> None:
        """Count one more request in flight; called by the slot."""
        with self._lock:
            if not slot.home.is_gone:
                self._windows.sent()
                slot.home.in_flight += 1

    def finish(self, slot: LimiterSlot, *, sent: bool, quota: ServerQuota | None) -> None:
        """Take a slot's requests out of flight; called by the slot."""
        with self._lock:
            if slot.home.is_gone:
                return  # it counted as lost when its loop ended
            now = self._clock.monotonic()
            if quota is not None:
                reset = quota.reset_at
                reset_in = None if reset is None else reset - self._clock.wall()
                self._server.observe(quota, sent_at=slot.sent_at, now=now, reset_in=reset_in)
            slot.home.in_flight -= slot.weight
            if sent:
                self._windows.answered(now, slot.weight)
                self._measure(now - slot.sent_at)
            else:
                self._windows.returned(slot.weight)
            if not self._queues.is_empty:
                self._dispatch()

    def recent(self, now_wall: float | None = None) -> list[float]:
        """Return when the requests of the longest window ended, in Unix seconds, in order.

        Those still in flight count as ending now. What `restore` wants in the next
        process.

        Args:
            now_wall: The present in Unix seconds; None asks the clock.
        """
        with self._lock:
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
        instants = [at + offset for at in wall_times if math.isfinite(at)]
        with self._lock:
            self._windows.insert(instants, now)

    def restart_after_fork(self) -> None:
        """Go on in a forked child: its parent's history, and what was in flight as lost."""
        super().restart_after_fork()
        self._lose(self._windows.in_flight)


def _grant_none(_: InProcessLimiter, __: Priority) -> None:
    """Leave every call to `acquire`."""


_LOG = logging.getLogger("gather_async.quota")
_NOTABLE = 10.0  # seconds; a shorter wait is over before anyone has read of it


def log_wait(request: Request, seconds: float) -> None:
    """Log that a request waited for the quota, unless it was for less than a hundredth."""
    if seconds >= 0.01 and _LOG.isEnabledFor(logging.DEBUG):
        fields = log_fields(request, wait=seconds)
        _LOG.debug("%s: waited %.2f s for the quota", request, seconds, extra=fields)


@define(eq=False)
class HoldNotice:
    """The warning of a long wait that the server asked for, logged once for all its calls."""

    _until: float = field(default=-math.inf, init=False)

    def log(self, request: Request, error: object, wait: float, *, now: float) -> None:
        """Warn of a wait of more than ten seconds, unless an earlier warning covers it.

        Args:
            request: What was refused.
            error: How the server refused; its ``status`` is named.
            wait: Seconds from now.
            now: Wall time in Unix seconds.
        """
        if wait <= _NOTABLE or now + wait <= self._until + _NOTABLE:
            return
        self._until = now + wait
        _LOG.warning(
            "%s: the server answered %s and asks to wait: nothing is tried again for %.0f s, "
            "until %s UTC",
            request,
            getattr(error, "status", "nothing"),
            wait,
            datetime.fromtimestamp(self._until, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            extra=log_fields(request, status=getattr(error, "status", None), wait=wait),
        )
