"""The background worker: claims due events from the inbox and runs their handlers."""

import asyncio
import contextlib
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from attrs import define, field

from gather_async.clock import Clock, wait
from gather_async.observability import EventListeners
from gather_async.webhooks.handlers import Handler
from gather_async.webhooks.inbox import (
    ClaimedEvent,
    ClaimReport,
    ClaimResult,
    HandlerFailure,
    Inbox,
    StoredEvent,
)
from gather_async.webhooks.runs import (
    HandlerEnded,
    HandlerPolicy,
    HeldEvent,
    KnownHandlers,
    StorageLog,
    last_report,
    run_handler,
    wanted_here,
)

__all__ = ["Worker"]

_LOG = logging.getLogger("gather_async.webhooks")

_STORAGE_PAUSE: Final = 1.0  # seconds before a failed inbox is tried again
_PRUNE_EVERY: Final = 600.0
_ANNOUNCE_EVERY: Final = 60.0  # far below the shortest time for which handlers are kept
# Seconds between polls for events that wake waiters: 0.3 s is promised, a poll costs 60 us.
_PUBLISHED_EVERY: Final = 0.2
# A process that dies as often on one event will do so again; deployments kill some, too.
_CRASHES: Final = 25
# Events held at once for each slot, so that slow handlers line up without holding the rest up.
_HELD_FOR_EACH_SLOT: Final = 10
# Events claimed at once while none of them is wanted here; 500 take about 20 ms.
_LARGEST_BATCH: Final = 500
# Seconds for which the last claim's list of all handlers is believed.
_FRESH: Final = 0.1


@define(eq=False)
class Worker:
    """Runs the handlers of one receiver for as long as it is started."""

    inbox: Inbox
    handlers: Mapping[str, Handler]
    policy: HandlerPolicy
    clock: Clock
    rng: random.Random
    receivers: Sequence[str]
    """The receiver's name, then those under which it stored events before."""
    on_dead: Callable[[ClaimedEvent, str, HandlerFailure], None]
    """Called for each dead letter, once it is stored."""
    has_listeners: Callable[[], bool]
    on_published: Callable[[StoredEvent], None]
    """Called for each event that any process stored, if there are listeners."""
    run_events: EventListeners[HandlerEnded] = field(factory=lambda: EventListeners(log=_LOG))
    _wake: asyncio.Event = field(factory=asyncio.Event)
    _main: "asyncio.Task[None] | None" = None
    _is_draining: bool = False
    _held: dict[str, HeldEvent] = field(factory=dict)
    _active: Counter[str] = field(factory=Counter)
    _lines: dict[str, deque[HeldEvent]] = field(factory=dict)
    _known: KnownHandlers = field(factory=KnownHandlers)
    _storage: StorageLog = field(factory=StorageLog)
    _batch: int = 1
    _position: int | None = None
    _next_renewal: float = math.inf
    _next_prune: float = -math.inf
    _next_published: float = -math.inf

    async def prepare(self) -> None:
        """Open the inbox, and let other processes know of the handlers."""
        self.forget()
        await self.inbox.open()
        with contextlib.suppress(Exception):  # the work begins with it, and says what failed
            await self._announce()

    def start(self) -> None:
        """Begin, in the running loop."""
        self._is_draining = False
        self._main = asyncio.create_task(self._work(), name="webhook worker")

    def wake(self) -> None:
        """Claim what is due now."""
        self._wake.set()

    def forget(self) -> None:
        """Forget a loop that ended without `drain`."""
        self._main, self._wake = None, asyncio.Event()
        self._held, self._active, self._lines = {}, Counter(), {}
        self._position, self._known = None, KnownHandlers()

    async def drain(self) -> None:
        """Finish what is due, for as long as the policy allows, then cancel what still runs.

        Cancelling this cancels the rest at once. Handlers that were cancelled are due
        again at the next start, if the inbox survives.
        """
        if self._main is None:
            return
        self._is_draining = True
        self.wake()
        timer = self.clock.call_later(self.policy.drain, self._main.cancel)
        try:
            await asyncio.wait([self._main])
        finally:
            timer.cancel()
            await self._abort()

    async def _abort(self) -> None:
        """Cancel what still runs, and give the events back once it has ended."""
        self._lines = {}  # what ends now makes room for no other
        runs = [run for held in self._held.values() for run in held.running.values()]
        main = () if self._main is None else (self._main,)  # a second call may have ended it
        rest = [task for task in (*main, *runs) if not task.done()]
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)
        self._main = None
        now = self.clock.monotonic()
        for held in self._held.values():
            held.cancel_timers()
            held.lined_up.clear()
        reports = [held.report(now=now, due_in=0.0) for held in self._held.values()]
        self._held = {}
        if reports:
            with contextlib.suppress(Exception):  # the leases end by themselves
                await self.inbox.report(reports)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._announce()
                due_at = await self._claim()
                await self._maintain()
                await self._publish()
                self._storage.succeeded()
            except Exception as error:
                self._storage.failed(error)
                due_at = self.clock.monotonic() + _STORAGE_PAUSE
            if self._is_draining and not self._held and not self._waits_for(due_at):
                return
            await self._pause(due_at)

    async def _announce(self) -> None:
        """Record which handlers are here, so that other processes leave them their events."""
        here = {name: handler.events for name, handler in self.handlers.items()}
        now, keep_for = self.clock.monotonic(), self.policy.keep_handlers
        if handlers := self._known.due(here, now):
            name, *former = self.receivers
            await self.inbox.announce(name, handlers, former=former, keep_for=keep_for)
            self._known.announced(here, now + min(_ANNOUNCE_EVERY, keep_for / 3))

    # Claims

    async def _claim(self) -> float | None:
        """Start what is due and has room; return when the next is due."""
        while True:
            rooms = {name: self._room(name) for name in self.handlers}
            room = max(rooms.values(), default=0)
            if room <= 0:
                return None
            await self._hand_over_idle()
            limit = max(room, self._batch)
            now = self.clock.monotonic()
            result = await self._claimed([n for n, free in rooms.items() if free > 0], limit)
            reports = [
                report
                for claimed in result.events
                if (report := self._accept(claimed, now + self._lease())) is not None
            ]
            # What no handler here wants holds nothing up: ever more of it is claimed at once.
            is_passing = len(reports) == limit
            self._batch = min(2 * limit, _LARGEST_BATCH) if is_passing else 1
            if reports:
                await self._report(reports)
            if not reports or len(result.events) < limit:
                due_in = result.next_due_in
                return None if due_in is None else now + due_in

    async def _claimed(self, handlers: Sequence[str], limit: int) -> ClaimResult:
        result = await self.inbox.claim(
            self.receivers[0], handlers, limit=limit, lease=self._lease()
        )
        self._known.record(result.handlers, self.clock.monotonic())
        if self._known.are_lost:
            self.wake()
        return result

    def _room(self, handler: str) -> int:
        """Return how many runs of a handler may begin now."""
        return (
            self.policy.share(len(self.handlers))
            - self._active[handler]
            - len(self._lines.get(handler, ()))
        )

    def _lease(self) -> float:
        return self.policy.lease if self.inbox.is_shared else math.inf

    def _accept(self, claimed: ClaimedEvent, valid_until: float) -> ClaimReport | None:
        """Hold a claimed event and start its handlers; return a report if there is none."""
        older = self._held.get(claimed.event.key)
        if older is not None:  # a loop that was blocked lost its lease, and got it again
            older.claimed, older.valid_until, older.is_lost = claimed, valid_until, False
            older.ended |= claimed.ended  # in another process
            return None
        wanted = wanted_here(self.handlers, claimed.event.name, claimed.ended)
        held = HeldEvent(claimed, valid_until, ended=set(claimed.ended))
        now = self.clock.monotonic()
        if claimed.crashes >= _CRASHES:
            for name in wanted:
                problem = f"The process died {claimed.crashes} times on this event."
                held.record_failure(name, problem, None, now)
        ready = [n for n in wanted if claimed.retry_in(n) <= 0 and n not in held.dead]
        if not ready:
            return self._last_report(held, is_new=True)
        self._held[claimed.event.key] = held
        if len(self._held) == 1:
            self._next_renewal = now + self._lease() / 3
        for name in ready:
            self._line_up(held, name)
        return None

    async def _hand_over_idle(self) -> None:
        """Let go of events that only wait for a slot of one handler, if too many are held."""
        most = _HELD_FOR_EACH_SLOT * self.policy.concurrency
        if len(self._held) < most:
            return
        idle = [held for held in self._held.values() if not held.running and not held.is_lost]
        now, reports = self.clock.monotonic(), []
        for held in idle[most // 2 :]:
            waits_for = min(held.lined_up)
            self._drop(held)
            reports.append(held.report(now=now, due_in=0.0, waits_for=waits_for))
        if reports:
            await self._report(reports)

    def _drop(self, held: HeldEvent) -> None:
        held.cancel_timers()
        for name in held.lined_up:
            self._lines[name].remove(held)
        held.lined_up.clear()
        self._held.pop(held.claimed.event.key, None)

    # Runs

    def _line_up(self, held: HeldEvent, name: str) -> None:
        held.timers.pop(name, None)
        held.lined_up.add(name)
        self._lines.setdefault(name, deque()).append(held)
        self._begin(name)

    def _begin(self, name: str) -> None:
        """Begin runs of a handler while its share has a slot."""
        line = self._lines.get(name, deque())
        while line and self._active[name] < self.policy.share(len(self.handlers)):
            held = line.popleft()
            held.lined_up.discard(name)
            # Another process may have run it since the lease ended.
            if held.is_lost or self.clock.monotonic() >= held.valid_until:
                held.is_lost = True
                if held.is_idle:
                    self._drop(held)
                continue
            self._active[name] += 1
            held.running[name] = asyncio.create_task(
                self._run(held, name), name=f"webhook run {name}"
            )

    async def _run(self, held: HeldEvent, name: str) -> None:
        """Run one handler, and record what came of it."""
        try:
            if name not in held.ended:  # by another process, while it waited for a slot
                await self._attempt(held, name)
            if len(held.running) == 1 and not held.lined_up:
                await self._end(held)
        finally:
            held.running.pop(name, None)
            self._active[name] -= 1
            self._begin(name)
            self.wake()

    async def _attempt(self, held: HeldEvent, name: str) -> None:
        failure = await run_handler(
            self.handlers[name],
            held.claimed,
            failures=held.failures_of(name),
            timeout=self.policy.timeout,
            clock=self.clock,
            on_end=self.run_events,
        )
        # Others still run, or are about to: it needn't wait for them.
        is_last = len(held.running) == 1 and not held.lined_up
        if failure is None:
            held.record_success(name)
            if not is_last:
                await self._repeat(lambda: self.inbox.complete(held.claimed, name))
                held.done.discard(name)
            return
        pause = self.policy.pause(held.failures_of(name) + 1, self.rng.random())
        held.record_failure(name, failure, pause, self.clock.monotonic())
        if pause is not None and not is_last:
            held.timers[name] = self.clock.call_later(pause, lambda: self._line_up(held, name))

    async def _end(self, held: HeldEvent) -> None:
        """Report an event whose last handler has ended here."""
        held.cancel_timers()
        if self.clock.monotonic() > self._known.at + _FRESH:
            with contextlib.suppress(Exception):  # the list of a moment ago will do
                await self._claimed((), 0)
        await self._report([self._last_report(held)])
        self._held.pop(held.claimed.event.key, None)

    def _last_report(self, held: HeldEvent, *, is_new: bool = False) -> ClaimReport:
        now, known = self.clock.monotonic(), self._known.events
        return last_report(held, self.handlers, known, now=now, is_new=is_new)

    async def _report(self, reports: Sequence[ClaimReport]) -> None:
        await self._repeat(lambda: self.inbox.report(reports))
        for report in reports:
            for name, failure in report.dead.items():
                self.on_dead(report.claimed, name, failure)

    async def _repeat(self, change: Callable[[], Awaitable[None]]) -> None:
        """Change the inbox, again and again: a success must not be forgotten for a full disk."""
        while True:
            try:
                await change()
                return
            except Exception as error:
                self._storage.failed(error)
            await self.clock.sleep(_STORAGE_PAUSE)

    # Upkeep

    def _waits_for(self, due_at: float | None) -> bool:
        """Return whether draining waits for that: what is due, or would be lost with memory."""
        is_due = due_at is not None and due_at <= self.clock.monotonic()
        return is_due or (due_at is not None and not self.inbox.is_shared)

    async def _maintain(self) -> None:
        """Renew leases and forget old events, if it is time."""
        now = self.clock.monotonic()
        if self._held and now >= self._next_renewal:
            self._next_renewal = now + self._lease() / 3
            claims = {key: held.claimed for key, held in self._held.items()}
            kept = await self.inbox.renew(tuple(claims.values()), lease=self._lease())
            for key, claimed in claims.items():
                held = self._held.get(key)
                if held is not None and held.claimed is claimed:
                    held.is_lost = key not in kept
                    held.valid_until = now + self._lease()
        if now >= self._next_prune:
            self._next_prune = now + _PRUNE_EVERY
            await self.inbox.prune()

    async def _publish(self) -> None:
        """Notify listeners of the events that other processes stored."""
        now = self.clock.monotonic()
        if not self.inbox.is_shared or not self.has_listeners():
            self._position = None
            return
        if self._position is not None and now < self._next_published:
            return
        self._next_published = now + _PUBLISHED_EVERY
        while (found := await self.inbox.published(self._position)).events:
            self._position = found.position
            for event in found.events:
                self.on_published(event)
        self._position = found.position

    async def _pause(self, due_at: float | None) -> None:
        """Wait until something is due, which is nothing else after a failure, or for `wake`."""
        now = self.clock.monotonic()
        waits = [] if due_at is None else [due_at - now]
        if self.inbox.is_shared and not self._storage.is_away:
            waits.append(self.policy.poll)
            if self._held:
                waits.append(self._next_renewal - now)
            if self.has_listeners():
                waits.append(self._next_published - now)
        await wait(self.clock, self._wake, min(waits, default=math.inf))
