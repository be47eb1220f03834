"""Base of every limiter of our own: calls that wait in order, and what is known meanwhile."""

import asyncio
import math
import os
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal
from weakref import WeakSet

from gather_async.clock import Clock
from gather_async.errors import QuotaWaitError
from gather_async.models.rate_limit import QueueStatus, RateLimitStatus, WindowStatus
from gather_async.protocol.rolling_windows import RateLimit, RollingWindows, check_rate_limits
from gather_async.protocol.server_quota import Hold, ServerQuota, ServerQuotaTracker
from gather_async.quota.call_queue import CallQueue, CallWaiter, LimiterSlot
from gather_async.quota.forecast import Forecast, quota_wait_error
from gather_async.quota.priority_queue import PRIORITY, Priority, PriorityScheduler, WaitQueues
from gather_async.validators import Choice, Number

__all__ = ["Pace", "QueuedLimiter"]

_COUNT = Number(least=0, whole=True)
_SECONDS = Number(least=0, most=math.inf, unit="seconds")

Pace = Literal["burst", "even"]

# The share of the newest request in the usual latency: about the last ten decide.
_NEWEST = 0.1
# Seconds for which a forecast is gone on from, unless the state changed: the present moves on,
# and by so much a call may be refused too late.
_FRESH = 0.05


class QueuedLimiter(ABC):
    """Calls of one key that wait for slots, in any number of event loops and threads.

    Who grants the slots differs. Shared are the queues and their order, cancellation,
    holds, the status and the forecast. Every method that starts with an underscore wants
    the lock held.

    Args:
        rate_limits: The windows, at least one.
        reserve: Slots, from 0.
        clock: Where time comes from.
        pace: How bulk work is spread.
        rng: Adds up to a second of jitter to each hold; None adds none.

    Raises:
        ConfigurationError: An argument can't work.
    """

    def __init__(
        self,
        rate_limits: Sequence[RateLimit],
        *,
        reserve: int,
        clock: Clock,
        pace: Pace,
        rng: random.Random | None = None,
    ) -> None:
        limits = check_rate_limits(rate_limits)
        _COUNT.check("reserve", reserve)
        Choice(("burst", "even")).check("pace", pace)
        self._clock = clock
        self._windows = RollingWindows(limits, reserve=reserve)
        self._server = ServerQuotaTracker(self._windows)
        self._scheduler = PriorityScheduler(self._windows, even=pace == "even")
        self._latency = 0.0
        self._hold = Hold(limits[-1].per, None if rng is None else rng.random)
        self._latest_forecast: tuple[object, float, Forecast] | None = None
        self._open_queues()
        _LIMITERS.add(self)

    def _open_queues(self) -> None:
        self._lock = threading.RLock()
        self._queues: WaitQueues[CallWaiter] = WaitQueues()
        self._calls = CallQueue(
            self._queues,
            self._clock,
            self._lock,
            dispatch=self._dispatch,
            lost=self._lose,
            lateness=self._lateness,
        )

    @abstractmethod
    def _dispatch(self) -> None:
        """Grant what is free to the calls that wait, and see to it that the rest follows."""

    @abstractmethod
    def _lose(self, requests: int) -> None:
        """Count what a loop that ended had in flight as answered now: the safe guess."""

    def _lateness(self) -> float:
        """Return the seconds that a slot on its way may take."""
        return 0.0

    @abstractmethod
    def recount(self, slot: LimiterSlot) -> None:
        """Count one more request in flight; called by the slot."""

    @abstractmethod
    def finish(self, slot: LimiterSlot, *, sent: bool, quota: ServerQuota | None) -> None:
        """Take a slot's requests out of flight; called by the slot."""

    def _now(self) -> float:
        """Return the present on the windows' clock."""
        return self._clock.monotonic()

    def _known(self) -> RollingWindows:
        """Return the windows as they are known to stand now."""
        return self._windows

    def _as_of(self) -> float | None:
        """Return when what is known of other processes was learned, on the windows' clock."""
        return None

    async def _wait_in_line(self, max_wait: float | None, *, bulk: bool) -> LimiterSlot:
        """Return the slot of a call that joins its priority's queue; the lock is not held.

        Raises:
            QuotaWaitError: It would take longer than ``max_wait``, or did.
            ConfigurationError: ``max_wait`` is negative, or no number.
        """
        await self._calls.arrive(bulk=bulk)
        if max_wait is not None:
            _SECONDS.check("max_wait", max_wait, accepts="or None")
        with self._lock:
            if max_wait is not None:
                self._check_wait(max_wait, bulk=bulk)
            home = self._calls.home(asyncio.get_running_loop())
            waiter, queue = self._calls.push(home, bulk=bulk)
            if self._joined(waiter, max_wait, bulk=bulk):
                self._dispatch()
        try:
            return await self._calls.wait(waiter, queue, max_wait)
        except QuotaWaitError:
            raise
        except TimeoutError:
            assert max_wait is not None  # noqa: S101 - only a deadline ends a wait so
            raise self._waited_in_vain(max_wait, bulk=bulk) from None
        finally:
            del waiter  # a cancelled future refers to this frame: no cycle to collect

    def _joined(self, waiter: CallWaiter, max_wait: float | None, *, bulk: bool) -> bool:
        """Note that a call joined a queue; return whether that may let any call start.

        It lets none where others wait in its queue and its loop: the slot that is next is
        theirs, and their loop's timer rings when it is free.
        """
        queue = self._queues.bulk if bulk else self._queues.interactive
        return queue.waiting == 1 or waiter.home.waiting == 1

    def _waited_in_vain(self, max_wait: float, *, bulk: bool) -> QuotaWaitError:
        """Return the error of a wait that a hold, or slow answers, made longer than forecast."""
        with self._lock:
            now = self._now()
            wait = max(0.0, self._forecast(now, bulk=bulk, count=0) - now)
        return quota_wait_error(wait, max_wait, self._clock.wall())

    def _measure(self, latency: float) -> None:
        """Let a response's seconds count in the usual latency."""
        self._latency += (latency - self._latency) * (_NEWEST if self._latency else 1.0)

    def hold(self, until: float) -> None:
        """Let nothing start before this wall time, in Unix seconds; only ever grows.

        The task that asks for it was refused by the server: its next call goes ahead
        of all of its priority that weren't sent yet.

        A hold is turned into monotonic time at once, so a wall clock that jumps
        afterwards changes nothing, and it exceeds the longest window by a minute at
        most. A past time, or NaN, holds nothing.
        """
        with self._lock:
            self._calls.remember_refused()
            if self._hold.grow(until - self._clock.wall(), self._now()):
                self._hold_grew()

    def _hold_grew(self) -> None:
        if not self._queues.is_empty:
            self._dispatch()

    def status(self) -> RateLimitStatus:
        """Return what is known of the quota now."""
        with self._lock:
            return _snapshot(
                self._known(),
                now=self._now(),
                wall=self._clock.wall(),
                held=self._hold.until,
                queued=self._queues.status(arriving=True),
                as_of=self._as_of(),
            )

    def estimate(self, requests: int, *, priority: Priority) -> timedelta:
        """Return how long until that many more requests could have been answered.

        Simulates from the present: after the calls that wait already, with the
        usual latency, the reserve and the pace, and no other call joining. Costs a
        few milliseconds at most, however many requests.

        Raises:
            ConfigurationError: ``requests`` is no whole number from 0, or no such priority.
        """
        PRIORITY.check("priority", priority)
        _COUNT.check("requests", requests)
        with self._lock:
            now = self._now()
            start = self._forecast(now, bulk=priority == "bulk", count=requests)
        try:
            return timedelta(seconds=start + self._latency - now if requests else 0.0)
        except OverflowError:
            return timedelta.max

    def _check_wait(self, max_wait: float, *, bulk: bool) -> None:
        """Raise if a call that joined now would wait longer.

        Raises:
            QuotaWaitError: It would.
        """
        now = self._now()
        wait = self._next_start(now, bulk=bulk) - now
        if wait > max_wait:
            raise quota_wait_error(wait, max_wait, self._clock.wall())

    def _next_start(self, now: float, *, bulk: bool) -> float:
        """Return when a call that joined now would start.

        The calls of a burst go on from one forecast: if each simulated all that wait before
        it, thousands would hold the loop for seconds (benchmarks/growth.py).
        """
        if self._scheduler.interval:  # a paced start depends on the one before it
            return self._forecast(now, bulk=bulk, count=1)
        windows, ahead = self._known(), self._queues.status()
        waiting = ahead.bulk if bulk else ahead.interactive
        other = ahead.interactive if bulk else 0
        used = [(each.limit, each.external) for each in windows.windows]
        used.append((windows.in_flight, windows.count(-math.inf)))
        state = (bulk, other, used, self._hold.until, self._latency)
        latest = self._latest_forecast
        if latest is not None and latest[0] == (state, waiting) and now - latest[1] < _FRESH:
            made_at, forecast = latest[1:]
            start = forecast.start(1, bulk=bulk)
        else:
            made_at = now
            forecast, start = self._schedule(now, bulk=bulk, count=1)
        self._latest_forecast = (state, waiting + 1), made_at, forecast
        return start

    def _forecast(self, now: float, *, bulk: bool, count: int) -> float:
        """Return when the last of ``count`` calls that joined now would start."""
        return self._schedule(now, bulk=bulk, count=count)[1]

    def _schedule(self, now: float, *, bulk: bool, count: int) -> tuple[Forecast, float]:
        """Return a forecast that reaches as far, and when the last of them would start."""
        forecast = Forecast(
            self._known(), now=now, not_before=self._hold.until, latency=self._latency
        )
        ahead, scheduler = self._queues.status(), self._scheduler
        if not bulk:
            return forecast, forecast.start(ahead.interactive + count)
        forecast.start(ahead.interactive)
        start = forecast.start(
            ahead.bulk + count,
            bulk=True,
            interval=scheduler.interval,
            not_before=scheduler.next_bulk,
        )
        return forecast, start

    def restart_after_fork(self) -> None:
        """Go on in a forked child: its parent's history, but none of its loops or locks."""
        self._open_queues()  # another thread may have held the old lock

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {_describe(self.status())}>"


def _snapshot(
    windows: RollingWindows,
    *,
    now: float,
    wall: float,
    held: float,
    queued: QueueStatus,
    as_of: float | None = None,
) -> RateLimitStatus:
    """Return the quota as it stands at ``now``, which is ``wall`` in Unix seconds."""
    states = []
    for window in windows.windows:
        used = windows.used(window, now)
        states.append(
            WindowStatus(
                limit=window.limit,
                period=window.period,
                used=used,
                remaining=max(0, window.limit - used),
                external=window.external,
                next_free=_seconds(windows.window_free_at(window, now), now),
                learned=window.learned,
            )
        )
    return RateLimitStatus(
        windows=tuple(states),
        in_flight=windows.in_flight,
        queued=queued,
        next_slot=_seconds(max(windows.free_at(now), held), now),
        held_until=datetime.fromtimestamp(wall + held - now, UTC) if held > now else None,
        as_of=None if as_of is None else datetime.fromtimestamp(wall + as_of - now, UTC),
    )


def _seconds(at: float, now: float) -> float | None:
    return None if at == math.inf else max(0.0, at - now)


def _describe(status: RateLimitStatus) -> str:
    """Return the status in one line.

    >>> window = WindowStatus(limit=100, period=60.0, used=3, remaining=97)
    >>> _describe(RateLimitStatus(windows=(window,), in_flight=2))
    '3/100 in 60 s, 2 in flight, 0+0 queued, free now'
    """
    parts = [
        f"{each.used}/{each.limit} in {each.period:g} s" + " (learned)" * each.learned
        for each in status.windows
    ]
    parts.append(f"{status.in_flight} in flight")
    parts.append(f"{status.queued.interactive}+{status.queued.bulk} queued")
    if status.next_slot is None:
        parts.append("free after an answer")
    else:
        parts.append(f"free in {status.next_slot:.1f} s" if status.next_slot else "free now")
    if status.held_until is not None:
        parts.append(f"held until {status.held_until:%H:%M:%S}Z")
    return ", ".join(parts)


_LIMITERS: "WeakSet[QueuedLimiter]" = WeakSet()


def _restart_all_after_fork() -> None:
    for limiter in list(_LIMITERS):
        limiter.restart_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_all_after_fork)
