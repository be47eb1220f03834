"""Steps of a shared limiter: when one is due, what it reports, and what becomes of its reply."""

import asyncio
import contextvars
import math
import uuid
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from gather_async.clock import Clock
from gather_async.errors import ClientClosedError
from gather_async.loops import running_loop
from gather_async.protocol.rolling_windows import RateLimit, RollingWindows
from gather_async.protocol.server_quota import ServerQuota
from gather_async.quota.call_queue import CallWaiter, LimiterSlot
from gather_async.quota.forecast import quota_wait_error
from gather_async.quota.queued_limiter import Pace, QueuedLimiter
from gather_async.redis.connection import RedisConnection, RedisError
from gather_async.redis.outage import Outage
from gather_async.redis.step import (
    STEP,
    EndedRequest,
    SeenQuota,
    SharedState,
    StepInFlight,
    StepSettings,
    UndecidedCall,
    WaitingCalls,
    step_arguments,
)

__all__ = ["SETTLE", "SteppedLimiter"]

# The part of a lease for which nothing starts on a server that lost its state: more than the third
# in which each process renews its own.
SETTLE = 0.5


class SteppedLimiter(QueuedLimiter):
    """Limiter whose slots a server grants: one step in flight at a time, for all calls.

    A step is taken in the loop in which it became due, and is followed by the next one in
    whichever loop calls wait. Every method that starts with an underscore wants the lock held.

    Args:
        rate_limits: The windows.
        reserve: Slots.
        clock: Where time comes from.
        pace: How bulk work is spread.
        connection: To the server.
        keys: Of the server, that hold the state.
        lease: Seconds, as `StepSettings` has them.
        patience: Seconds, likewise.
        timeout: Seconds for a step.
        outage: What is known of failures.
    """

    def __init__(
        self,
        rate_limits: Sequence[RateLimit],
        *,
        reserve: int,
        clock: Clock,
        pace: Pace,
        connection: RedisConnection,
        keys: Sequence[str],
        lease: float,
        patience: float,
        timeout: float,
        outage: Outage,
    ) -> None:
        super().__init__(rate_limits, reserve=reserve, clock=clock, pace=pace)
        self._settings = StepSettings(
            lease=lease,
            patience=patience,
            interval=self._scheduler.interval,
            settle=lease * SETTLE,
        )
        self._connection, self._keys = connection, keys
        self._timeout, self._outage = timeout, outage
        self._state = SharedState(self._windows, offset=clock.wall() - clock.monotonic())
        self._number = 0
        self._is_closed = False
        self._begin()

    def _begin(self) -> None:
        """Be a process that has nothing in flight and nothing to report."""
        self._process = uuid.uuid4().hex[:16]
        self._in_flight = 0
        self._ended: list[EndedRequest] = []
        self._seen: list[SeenQuota] = []
        self._undecided: list[UndecidedCall] = []
        self._step: StepInFlight | None = None
        self._left = WaitingCalls()
        self._is_urgent = False
        self._due = self._report_at = math.inf
        self._good_until = -math.inf
        self._outage.local = None

    # What the queue asks for

    def _now(self) -> float:
        return self._clock.monotonic() + self._state.offset

    def _known(self) -> RollingWindows:
        ended = [*(self._step.ended if self._step is not None else ()), *self._ended]
        return self._state.known(ended, self._now()) if ended else self._windows

    def _as_of(self) -> float | None:
        at = self._state.as_of
        return at + self._state.offset if at > -math.inf else None

    def _check_wait(self, max_wait: float, *, bulk: bool) -> None:
        """Leave it to the next step: what is known may be old."""

    def _joined(self, waiter: CallWaiter, max_wait: float | None, *, bulk: bool) -> bool:
        self._outage.hurry(self._clock.monotonic())
        self._is_urgent |= not self._left.cover(bulk=bulk)
        if max_wait is not None:
            self._is_urgent = True
            deadline = self._clock.monotonic() + max_wait
            position = (self._queues.bulk if bulk else self._queues.interactive).waiting
            self._undecided.append(UndecidedCall(waiter, deadline, max_wait, bulk, position))
        return True

    def _forecast(self, now: float, *, bulk: bool, count: int) -> float:
        # Of the calls in other processes, as many go ahead as in turns of one each.
        waiting, state = self._queues.status(), self._state
        ahead = waiting.interactive + waiting.bulk * bulk + count
        others = min(sum(state.others[: 1 + bulk]), ahead * state.rivals)
        return super()._forecast(now, bulk=bulk, count=count + others)

    def _hold_grew(self) -> None:
        self._state.hold, self._state.is_hold_news = self._hold.until, True
        self._is_urgent = True
        self._dispatch()

    def _lateness(self) -> float:
        now = self._clock.monotonic()
        is_on_its_way = self._step is not None or self._next_at(now) <= now
        return self._settings.patience if is_on_its_way else 0.0

    def _lose(self, requests: int) -> None:
        self._end(requests, sent=True)

    def recount(self, slot: LimiterSlot) -> None:
        """Count one more request in flight; called by the slot."""
        with self._lock:
            if slot.home.is_gone or self._is_closed:
                return
            slot.home.in_flight += 1
            self._start(1)
            if self._outage.local is not None:
                self._outage.local.recount()
            self._is_urgent = True
            self._dispatch()

    def finish(self, slot: LimiterSlot, *, sent: bool, quota: ServerQuota | None) -> None:
        """Take a slot's requests out of flight; called by the slot."""
        with self._lock:
            if slot.home.is_gone or self._is_closed:
                return
            now = self._clock.monotonic()
            slot.home.in_flight -= slot.weight
            if sent:
                self._measure(now - slot.sent_at)
            if quota is not None:
                reset = quota.reset_at
                reset_in = None if reset is None else reset - self._clock.wall()
                self._seen.append(SeenQuota(quota, slot.sent_at, now, reset_in))
            self._end(slot.weight, sent=sent)
            self._dispatch()

    def _start(self, requests: int) -> None:
        self._in_flight += requests
        self._windows.in_flight += requests

    def _end(self, requests: int, *, sent: bool) -> None:
        """Take requests out of flight, and remember to report that."""
        now = self._clock.monotonic()
        self._in_flight -= requests
        self._windows.in_flight -= requests
        if self._outage.local is not None:
            self._outage.local.ended(now, requests, sent=sent)
        self._report_at = min(self._report_at, now + self._settings.patience)
        if sent:
            self._ended += [EndedRequest(self._number + 1, now)] * requests
        # What was not sent is free at once. What was answered may let one find out whether the
        # use of the key elsewhere is over.
        if not sent or any(each.external for each in self._windows.windows):
            self._is_urgent |= not self._queues.is_empty or self._state.living > 1

    @property
    def steps(self) -> int:
        """How often the server was asked."""
        return self._number

    # Steps

    def _dispatch(self) -> None:
        """Begin a step if one is due and none is in flight; else see to it that it begins."""
        if self._is_closed:
            return
        if self._calls.has_other_loops:
            self._calls.sweep()
        now = self._clock.monotonic()
        step = self._step
        if step is not None and (now >= step.ends or step.home.is_gone):
            self._abandon(step)
        alone_at = self._serve_alone(now)
        if self._step is not None:
            if now >= self._outage.limit > self._step.asked_at:
                self._outlast(now)
            at = min(self._step.ends, self._outage.limit_after(now), alone_at)
            self._calls.wake_at(at, now)
            return
        at = self._next_at(now)
        loop = running_loop()
        if at <= now and self._connection.is_ending:  # another loop, or the next one, goes on
            at = now + self._settings.patience
        if at <= now and loop is not None:
            self._take_step(now, loop)
        else:
            self._calls.wake_at(min(at, alone_at), now, busy=self._report_at < math.inf)

    def _next_at(self, now: float) -> float:
        """Return when the next step is due."""
        at = min(self._due if not self._queues.is_empty else math.inf, self._report_at)
        if self._is_urgent:
            at = now
        return max(at, self._outage.retry_at)

    def _take_step(self, now: float, loop: asyncio.AbstractEventLoop) -> None:
        self._step = step = StepInFlight(self._calls.home(loop), now, now + 2 * self._timeout)
        # A context of its own: the step serves all calls, not the one that made it due.
        step.task = loop.create_task(self._run(step), context=contextvars.Context())

    def _ask(self, step: StepInFlight) -> Sequence[Any]:
        """Return a step's arguments, which include all that the loop woke up for."""
        step.asked_at = self._clock.monotonic()
        step.waiting = WaitingCalls.of(self._queues.status())
        step.flying, step.has_hold_news = self._in_flight, self._state.is_hold_news
        step.ended, self._ended = self._ended, []
        step.seen, self._seen = self._seen, []
        self._is_urgent = False
        self._number += 1
        arguments = step_arguments(
            self._state,
            self._settings,
            process=self._process,
            number=self._number,
            now=step.asked_at,
            flying=step.flying,
            waiting=step.waiting,
            ended=step.ended,
        )
        self._state.is_hold_news = False
        return arguments

    async def _run(self, step: StepInFlight) -> None:
        """Ask the server, and let go what it grants."""
        reply: Any = None
        failure: Exception | None = None
        with self._lock:
            if self._step is not step:  # given up meanwhile
                return
            arguments = self._ask(step)
        try:
            reply = await self._connection.run(STEP, self._keys, arguments)
        except (RedisError, ClientClosedError) as error:
            failure = error
        finally:
            with self._lock:
                if self._step is step:
                    if reply is None or not self._record(step, reply):
                        self._abandon(step)
                    if failure is not None:
                        self._fail(step, failure)
                    self._step = None
                    if reply is None and failure is None:  # cancelled: the loop is about to end
                        now = self._clock.monotonic()
                        self._calls.wake_at(now + self._settings.patience, now, busy=True)
                    else:
                        self._dispatch()

    def _abandon(self, step: StepInFlight) -> None:
        """Let the next step report what this one may not have."""
        self._ended = step.ended + self._ended
        self._seen = step.seen + self._seen
        self._state.is_hold_news |= step.has_hold_news
        self._is_urgent = True
        self._step = None

    @abstractmethod
    def _serve_alone(self, now: float) -> float:
        """Let calls go without the server, if an outage lasted long enough for that.

        Returns:
            When the next one may go; ``inf`` if none waits, or calls don't go without it.
        """

    def _fail(self, step: StepInFlight, error: Exception) -> None:
        """Record that a step failed."""
        now = self._clock.monotonic()
        # An outage may last for days: what no step can use any more is dropped.
        most = max(each.limit for each in self._windows.windows)
        self._ended, self._seen = self._ended[-most:], self._seen[-most:]
        self._undecided = [each for each in self._undecided if not each.is_over]
        is_waited_for = not self._queues.is_empty
        self._outage.failed(error, asked_at=step.asked_at, now=now, is_waited_for=is_waited_for)
        if now >= self._outage.limit:
            self._outlast(now)

    def _outlast(self, now: float) -> None:
        """End what waits for the server, unless it goes on without."""
        self._serve_alone(now)
        if self._outage.local is None and self._outage.is_over(now):
            self._calls.refuse_all(self._outage.error)

    def restart_after_fork(self) -> None:
        """Go on in a forked child, as another process with the history of its parent."""
        super().restart_after_fork()
        self._state.flying += self._in_flight
        self._begin()

    def _record(self, step: StepInFlight, reply: Sequence[Any]) -> bool:
        """Take over a step's reply; return whether the step was carried out."""
        state, now = self._state, self._clock.monotonic()
        was_declared = self._outage.succeeded()
        if not state.record(reply, asked_at=step.asked_at, flying=step.flying):
            return False
        self._windows.in_flight = state.flying + self._in_flight
        if was_declared:  # others may have gone on alone, and report it any moment
            state.hold = max(state.hold, now + state.offset + self._settings.settle)
            state.is_hold_news = True
            self._is_urgent = True
        self._hold.until = state.hold
        self._scheduler.next_bulk = state.next_bulk
        self._good_until = step.asked_at + self._settings.lease
        self._left = step.waiting.without(state.granted)
        self._due = state.wake - state.offset
        if self._ended:
            self._report_at = now + self._settings.patience
        else:
            self._report_at = step.asked_at + self._settings.lease / 3
        is_changed = self._observe(step.seen)  # before what is granted is in flight, too
        if now + state.offset >= state.hold:  # a hold may have come while the step was in flight
            self._grant(state.granted, now)
        if not self._in_flight and not self._ended:
            self._report_at = math.inf
        self._is_urgent |= is_changed and not self._queues.is_empty
        self._decide(now)
        # Those that joined meanwhile may have counted on others that have left.
        for bulk, queue in ((False, self._queues.interactive), (True, self._queues.bulk)):
            self._is_urgent |= queue.waiting > 0 and not self._left.cover(bulk=bulk)
        return True

    def _grant(self, granted: Sequence[tuple[bool, int]], now: float) -> None:
        for is_bulk, count in granted:
            queue = self._queues.bulk if is_bulk else self._queues.interactive
            for _ in range(count):
                waiter = queue.pop()
                if waiter is None:  # it left meanwhile; the next step gives the slot back
                    self._is_urgent = True
                    break
                self._let_go(waiter, now)

    def _let_go(self, waiter: CallWaiter, now: float) -> None:
        self._start(1)
        waiter.home.in_flight += 1
        self._calls.grant(waiter, LimiterSlot(self, now, waiter.home))

    def _observe(self, seen: Sequence[SeenQuota]) -> bool:
        """Fit in what headers said, all of that time being known; return whether that is news."""
        offset = self._state.offset
        before = [each.external for each in self._windows.windows]
        for each in seen:
            self._server.observe(
                each.quota,
                sent_at=each.sent_at + offset,
                now=each.at + offset,
                reset_in=each.reset_in,
            )
        return before != [each.external for each in self._windows.windows]

    def _decide(self, now: float) -> None:
        """Refuse the calls that won't be served within their ``max_wait``."""
        undecided, self._undecided = self._undecided, []
        queues = self._queues.status()
        for each in undecided:
            if each.is_over:
                continue
            waiting = queues.bulk if each.bulk else queues.interactive
            count = min(0, each.position - waiting)
            start = self._forecast(now + self._state.offset, bulk=each.bulk, count=count)
            at = start - self._state.offset
            if at > each.deadline:
                error = quota_wait_error(at - now, each.max_wait, self._clock.wall())
                self._calls.refuse(each.waiter, error)
