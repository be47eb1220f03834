"""An inbox in this process's memory: nothing survives a crash."""

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from attrs import define, field

from gather_async.clock import Clock, SystemClock
from gather_async.validators import Number
from gather_async.webhooks.inbox import (
    ClaimedEvent,
    ClaimReport,
    ClaimResult,
    DeadLetter,
    EventState,
    HandlerFailure,
    InboxEntry,
    Published,
    PutResult,
    StoredEvent,
)

__all__ = ["MemoryInbox"]

_AT_ONCE: Final = -math.inf
_OVER: Final = (EventState.DONE, EventState.IGNORED, EventState.DEAD)


class MemoryInbox:
    """Events in memory, bounded: when it is full, the sender is asked to try again.

    An event that was answered with 200 is lost if the process dies before its
    handlers are done; `SQLiteInbox` keeps it.

    Attributes:
        replay_listeners: Called after each replay: no receiver polls what no other process uses.
    """

    is_shared: Literal[False] = False

    def __init__(
        self, capacity: int = 10_000, *, remember: int = 100_000, clock: Clock | None = None
    ) -> None:
        """Make an inbox.

        Args:
            capacity: Events at most that wait for a handler; with more, the sender gets
                a 503. As many dead, ignored and done events are kept, the newest of each.
            remember: Finished events whose repetition is still recognised, the newest.
            clock: Where time comes from; None: the machine's clock.

        Raises:
            ConfigurationError: A number is below 1.
        """
        count = Number(least=1, whole=True)
        self._capacity: int = count.check("capacity", capacity)
        self._remember: int = count.check("remember", remember)
        self._clock = clock or SystemClock()
        self._numbers = itertools.count(1)
        self._rows: dict[str, _Row] = {}
        self._over: dict[EventState, OrderedDict[str, float]] = {s: OrderedDict() for s in _OVER}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._subjects: OrderedDict[str, tuple[str, bool]] = OrderedDict()
        self._queues: dict[tuple[str, str], list[tuple[float, int, str]]] = {}
        self._handlers: dict[str, dict[str, tuple[frozenset[str], float]]] = {}
        self.replay_listeners: set[Callable[[], None]] = set()

    async def open(self) -> None:
        """Do nothing: memory is there."""

    async def put(self, event: StoredEvent) -> PutResult:
        """Store an event; see `Inbox.put`."""
        if self._contains(event):
            return PutResult.DUPLICATE
        if self._waiting() >= self._capacity:
            return PutResult.FULL
        if event.subjects:
            self._subjects[event.subjects[0]] = (event.state, event.synthetic)
            self._subjects.move_to_end(event.subjects[0])
            _trim(self._subjects, self._remember)
        self._rows[event.key] = row = _Row(
            event, receiver=event.receiver, number=next(self._numbers)
        )
        self._schedule(row, _AT_ONCE)
        return PutResult.NEW

    async def contains(self, event: StoredEvent) -> bool:
        """Return whether `put` would call it a duplicate."""
        return self._contains(event)

    async def announce(
        self,
        receiver: str,
        handlers: Mapping[str, Collection[str]],
        *,
        former: Collection[str] = (),
        keep_for: float,
    ) -> None:
        """Record which handlers exist; see `Inbox.announce`."""
        known = self._handlers.setdefault(receiver, {})
        if handlers.keys() - known.keys():
            self._requeue(receiver, lambda owner, waits_for: owner == receiver and waits_for != "")
        self._requeue(receiver, lambda owner, _: owner in former)
        until = self._clock.monotonic() + keep_for
        known.update({name: (frozenset(events), until) for name, events in handlers.items()})

    async def claim(
        self, receiver: str, handlers: Collection[str], *, limit: int, lease: float
    ) -> ClaimResult:
        """Claim due events; see `Inbox.claim`."""
        now, known = self._clock.monotonic(), self._announced(receiver)
        queues = [(receiver, waits_for) for waits_for in ("", *handlers)]
        claims: list[ClaimedEvent] = []
        while len(claims) < limit:
            queue = min(queues, key=self._first_due)
            if self._first_due(queue) > now:
                break
            claims.append(self._claim(self._rows[heapq.heappop(self._queues[queue])[2]], lease))
        due_at = min(map(self._first_due, queues))
        return ClaimResult(
            events=claims,
            next_due_in=None if due_at == math.inf else max(due_at - now, 0.0),
            handlers={name: events for name, (events, _) in known.items()},
        )

    async def renew(self, claims: Collection[ClaimedEvent], *, lease: float) -> Collection[str]:
        """Make leases last longer; see `Inbox.renew`."""
        held = [row for claimed in claims if (row := self._held(claimed)) is not None]
        for row in held:
            self._schedule(row, self._clock.monotonic() + lease)
        return {row.event.key for row in held}

    async def complete(self, claimed: ClaimedEvent, handler: str) -> None:
        """Record that a handler succeeded; see `Inbox.complete`."""
        row = self._rows.get(claimed.event.key)
        if row is not None:
            row.done.add(handler)
            row.failed.pop(handler, None)
            row.dead.pop(handler, None)

    async def report(self, reports: Collection[ClaimReport]) -> None:
        """End claims; see `Inbox.report`."""
        now = self._clock.monotonic()
        for report in reports:
            for handler in report.done:
                await self.complete(report.claimed, handler)
            row = self._held(report.claimed)
            if row is not None:
                self._end_claim(row, report, now)

    async def list(
        self,
        *,
        state: EventState | None = None,
        event: str | None = None,
        tenant: str | None = None,
        limit: int = 100,
    ) -> Sequence[InboxEntry]:
        """Return stored events, oldest first."""
        found = (
            InboxEntry(event=row.event, state=row.state)
            for row in self._rows.values()
            if state in (None, row.state)
            and event in (None, row.event.name)
            and tenant in (None, row.event.tenant)
        )
        return list(itertools.islice(found, limit))

    async def dead_letters(
        self, *, receiver: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the dead letters, oldest first."""
        letters = [
            DeadLetter(
                event=row.event.decode(),
                handler=handler,
                key=row.event.key,
                receiver=row.event.receiver,
                failures=failure.failures,
                dead_at=dead_at,
                error=failure.error,
            )
            for row in self._rows.values()
            if receiver in (None, row.event.receiver)
            for handler, (failure, dead_at) in row.dead.items()
        ]
        return sorted(letters, key=lambda letter: letter.dead_at)[:limit]

    async def replay(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Make events that are over due again; see `Inbox.replay`."""
        rows = [row for row in self._known(keys) if row.state is not EventState.WAITING]
        for row in rows:
            for handler in list(row.dead) if handlers is None else handlers:
                row.dead.pop(handler, None)
            row.done.difference_update(handlers or ())
            self._over[row.state].pop(row.event.key)
            row.state, row.starts, row.failed, row.waits_for = EventState.WAITING, 0, {}, ""
            self._schedule(row, _AT_ONCE)
        for listener in tuple(self.replay_listeners):
            listener()
        return len(rows)

    async def discard(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Give events up; see `Inbox.discard`."""
        rows = [
            row
            for row in self._known(keys)
            if row.state is not EventState.DONE
            and (handlers is None or row.dead.keys() & set(handlers))
        ]
        for row in rows:
            for handler in list(row.dead) if handlers is None else handlers:
                if row.dead.pop(handler, None) is not None:
                    row.done.add(handler)
            if handlers is None or (row.state is EventState.DEAD and not row.dead):
                self._finish(row, EventState.DONE)
        return len(rows)

    async def counts(self) -> Mapping[EventState, int]:
        """Return how many events are in each state."""
        counts = {state: len(keys) for state, keys in self._over.items()}
        return {EventState.WAITING: self._waiting(), **counts}

    async def published(self, after: int | None, *, limit: int = 100) -> Published:
        """Return nothing: no other process puts events here."""
        return Published(position=0)

    async def prune(self, *, older_than: float | None = None) -> int:
        """Forget events that are over; None: none, as they are bounded by number."""
        if older_than is None:
            return 0
        before = self._clock.monotonic() - older_than
        old = [
            key
            for state in (EventState.DONE, EventState.IGNORED)
            for key, ended_at in self._over[state].items()
            if ended_at <= before
        ]
        for key in old:
            row = self._rows.pop(key)
            self._over[row.state].pop(key)
            self._subjects.pop(next(iter(row.event.subjects), ""), None)
        return len(old)

    async def aclose(self) -> None:
        """Do nothing: what waits goes on waiting for as long as this object lives."""

    def __repr__(self) -> str:
        dead = len(self._over[EventState.DEAD])
        return f"<MemoryInbox {self._waiting()} of {self._capacity}, {dead} dead>"

    def _waiting(self) -> int:
        return len(self._rows) - sum(map(len, self._over.values()))

    def _contains(self, event: StoredEvent) -> bool:
        if any(key in self._rows or key in self._seen for key in (event.key, *event.aliases)):
            return True
        latest = (self._subjects.get(subject) for subject in event.subjects)
        return any(
            each is not None and each[0] == event.state and (each[1] or event.synthetic)
            for each in latest
        )

    def _known(self, keys: Collection[str]) -> Iterator["_Row"]:
        return (self._rows[key] for key in dict.fromkeys(keys) if key in self._rows)

    def _schedule(self, row: "_Row", due_at: float) -> None:
        # What is due at once keeps the order of arrival.
        number = row.number if due_at == _AT_ONCE else next(self._numbers)
        row.due = (due_at, number)
        # An endless lease ends with a report, which schedules the event again.
        if due_at != math.inf:
            queue = self._queues.setdefault(row.queue, [])
            heapq.heappush(queue, (due_at, number, row.event.key))

    def _first_due(self, queue: tuple[str, str]) -> float:
        """Return when the first event of a queue is due, dropping entries that were replaced."""
        entries = self._queues.get(queue, [])
        while entries:
            row = self._rows.get(entries[0][2])
            if row is not None and row.due == entries[0][:2] and row.queue == queue:
                return entries[0][0]
            heapq.heappop(entries)
        return math.inf

    def _claim(self, row: "_Row", lease: float) -> ClaimedEvent:
        now = self._clock.monotonic()
        crashes, row.starts = row.starts, row.starts + 1
        row.token = str(next(self._numbers))
        self._schedule(row, now + lease)
        return ClaimedEvent(
            event=row.event,
            ended=frozenset(row.done | row.dead.keys()),
            failures={
                handler: HandlerFailure(
                    failures=failure.failures, error=failure.error, retry_in=due_at - now
                )
                for handler, (failure, due_at) in row.failed.items()
            },
            crashes=crashes,
            token=row.token,
        )

    def _held(self, claimed: ClaimedEvent) -> "_Row | None":
        """Return the event's row, if the claim still holds."""
        row = self._rows.get(claimed.event.key)
        is_held = row is not None and row.token == claimed.token
        return row if is_held and row is not None and row.state is EventState.WAITING else None

    def _end_claim(self, row: "_Row", report: ClaimReport, now: float) -> None:
        row.starts, row.token = row.starts - 1, ""
        for handler, failure in report.failed.items():
            if handler not in row.done:
                row.failed[handler] = (failure, now + failure.retry_in)
        for handler, failure in report.dead.items():
            if handler not in row.done:
                row.failed.pop(handler, None)
                row.dead[handler] = (failure, self._clock.wall())
        if report.due_in is not None:
            row.waits_for = report.waits_for
            self._schedule(row, now + report.due_in if report.due_in > 0 else _AT_ONCE)
        elif row.dead:
            self._finish(row, EventState.DEAD)
        else:
            self._finish(row, EventState.IGNORED if report.is_ignored else EventState.DONE)

    def _finish(self, row: "_Row", state: EventState) -> None:
        if row.state is not EventState.WAITING:
            self._over[row.state].pop(row.event.key)
        row.state, row.due = state, (math.inf, 0)
        over = self._over[state]
        over[row.event.key] = self._clock.monotonic()
        while len(over) > self._capacity:
            key, _ = over.popitem(last=False)
            del self._rows[key]
            self._seen[key] = None
        _trim(self._seen, self._remember)

    def _announced(self, receiver: str) -> dict[str, tuple[frozenset[str], float]]:
        """Return the receiver's handlers, without those that no process announced for long."""
        known, now = self._handlers.get(receiver, {}), self._clock.monotonic()
        for gone in [name for name, (_, until) in known.items() if until < now]:
            del known[gone]
            self._requeue(receiver, lambda *queue, gone=gone: queue == (receiver, gone))
        return known

    def _requeue(self, receiver: str, is_chosen: Any) -> None:
        """Make the waiting events of some queues wait for any handler of the receiver."""
        for queue in [queue for queue in self._queues if is_chosen(*queue)]:
            for due_at, number, key in self._queues.pop(queue):
                row = self._rows.get(key)
                if row is not None and row.due == (due_at, number) and row.queue == queue:
                    row.receiver, row.waits_for = receiver, ""
                    entries = self._queues.setdefault(row.queue, [])
                    heapq.heappush(entries, (due_at, number, key))


@define
class _Row:
    """An event with its state."""

    event: StoredEvent
    receiver: str
    number: int
    state: EventState = EventState.WAITING
    waits_for: str = ""
    starts: int = 0
    token: str = ""
    due: tuple[float, int] = (0.0, 0)
    done: set[str] = field(factory=set)
    failed: dict[str, tuple[HandlerFailure, float]] = field(factory=dict)
    dead: dict[str, tuple[HandlerFailure, float]] = field(factory=dict)

    @property
    def queue(self) -> tuple[str, str]:
        """What it waits for: a receiver, and any or one of its handlers."""
        return self.receiver, self.waits_for


def _trim(items: OrderedDict[Any, Any], most: int) -> None:
    while len(items) > most:
        items.popitem(last=False)
