"""The running of a job: rows in, bounded work, outcomes out, and an orderly end."""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing

from attrs import define, evolve, field, frozen

from gather_async.bulk.journal_sql import SourceRow
from gather_async.bulk.report import StopReason
from gather_async.bulk.requests import (
    CircuitBreaker,
    InterviewNotFound,
    TrackedLimiter,
    is_fatal,
    is_rejection,
)
from gather_async.bulk.row_check import RowCheck, line_of
from gather_async.bulk.row_state import (
    InviteOutcome,
    InviteStatus,
    JobStatistics,
    RowRecord,
    RowState,
    defer,
    outcome_of,
    status_of,
)
from gather_async.bulk.row_task import RowContext, RowTask
from gather_async.bulk.source import CandidateSource, chunks_of
from gather_async.clock import Clock, wait
from gather_async.errors import GatherError
from gather_async.models.candidate import NewCandidate
from gather_async.protocol.retry import backoff
from gather_async.validators import Number

__all__ = ["JobLimits", "OutcomeQueue", "Runner", "StopSignal"]


# Seconds before a row is tried again after what the client's own retries could not
# mend; then the next run has to. One request in seven lost five times in a row: 1 of 20 000.
_PAUSES = (5.0, 30.0, 60.0, 120.0)
# Seconds before the next row while nothing gets through.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
# What is postponed is kept in memory; at 500 rows a second, one in seven lost, 120 s.
_MOST_POSTPONED = 10_000


@frozen(kw_only=True)
class JobLimits:
    """Limits of what a job does at once, and of how long it bears with what goes wrong."""

    concurrency: int = field(validator=Number(least=1, whole=True))
    max_consecutive_failures: int = field(validator=Number(least=1, whole=True))
    """Failures in a row that stop the job."""
    grace: float = field(validator=Number(least=0, unit="seconds"))
    """Seconds that requests on the wire get to end when the job stops."""


@define(eq=False)
class StopSignal:
    """The signal that ends a job early, with the reason."""

    reason: StopReason | None = None
    error: BaseException | None = None
    """What to raise at the end."""
    asked: asyncio.Event = field(factory=asyncio.Event)

    @property
    def is_asked(self) -> bool:
        """Whether nothing new should be begun."""
        return self.asked.is_set()

    def stop(self, reason: StopReason) -> None:
        """End early; the first reason counts."""
        if not self.is_asked:
            self.reason = reason
            self.asked.set()

    def fail(self, error: BaseException) -> None:
        """End early and raise; the first error counts."""
        if self.error is None:
            self.error = error
        self.asked.set()


_ROOM = 64


class OutcomeQueue:
    """Passes outcomes on to one reader, no more than a few ahead of it.

    Without a reader, what is put in is gone: the journal has it.
    """

    def __init__(self) -> None:
        self._waiting: deque[InviteOutcome] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._is_over = False
        self.is_read: bool = False

    def attach(self) -> None:
        """Let outcomes be kept for a reader from now on."""
        self.is_read = True

    def detach(self) -> None:
        """Forget the reader, and let go what waits for it."""
        self.is_read = False
        self._waiting.clear()
        self._room.set()
        self._news.set()

    def close(self) -> None:
        """Let the reader end once it has taken what is there."""
        self._is_over = True
        self._news.set()

    async def put(self, outcome: InviteOutcome) -> None:
        """Pass an outcome on, when the reader has room. Cancelling drops it."""
        while self.is_read and len(self._waiting) >= _ROOM:
            self._room.clear()
            await self._room.wait()
        if self.is_read:
            self._waiting.append(outcome)
            self._news.set()

    async def take(self) -> InviteOutcome | None:
        """Return the next outcome, in the order in which rows end; None at the end.

        Cancelling loses nothing.
        """
        while not self._waiting:
            if self._is_over or not self.is_read:
                return None
            self._news.clear()
            await self._news.wait()
        self._room.set()
        return self._waiting.popleft()


@define(eq=False)
class _Postponed:
    """Rows that are to be resumed later, the earliest first."""

    _clock: Clock
    _rows: list[tuple[float, int, RowTask]] = field(factory=list)
    _numbers: Iterator[int] = field(factory=itertools.count)
    _news: asyncio.Event = field(factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._rows)

    def push(self, row: RowTask, at: float) -> None:
        """Keep a row until then, by the clock's `monotonic`."""
        heapq.heappush(self._rows, (at, next(self._numbers), row))
        self._news.set()

    async def pop(self) -> RowTask:
        """Return the first row whose time has come. Cancelling loses none."""
        while not self._rows or self._rows[0][0] > self._clock.monotonic():
            self._news.clear()
            if self._rows:
                await wait(self._clock, self._news, self._rows[0][0] - self._clock.monotonic())
            else:
                await self._news.wait()
        return heapq.heappop(self._rows)[-1]


@define(eq=False, kw_only=True, repr=False)  # as `JobExecution`
class Runner:
    """Runs the rows of one job. Used once."""

    candidates: CandidateSource
    check: RowCheck
    context: RowContext
    limits: JobLimits
    statistics: JobStatistics
    queue: OutcomeQueue
    stop_signal: StopSignal
    notify: Callable[[], None]
    """Called when a row has ended."""
    tracked: TrackedLimiter
    clock: Clock
    is_dry: bool
    last_error: GatherError | None = None
    _breaker: CircuitBreaker = field(init=False)
    _failed_at: float = 0.0
    _slots: asyncio.Semaphore = field(init=False)
    _turn: asyncio.Lock = field(factory=asyncio.Lock)
    """For one row to be begun at a time."""
    _rows: dict[asyncio.Task[None], RowTask] = field(factory=dict)
    _open: int = 0
    """Rows that were begun and have not ended, the postponed ones included."""
    _postponed: _Postponed = field(init=False)
    _publishing: set[asyncio.Task[None]] = field(factory=set)
    _first_try: asyncio.Event = field(factory=asyncio.Event)
    _change: asyncio.Event = field(factory=asyncio.Event)
    """Set when a row has ended or was postponed."""

    def __attrs_post_init__(self) -> None:
        self._breaker = CircuitBreaker(self.limits.max_consecutive_failures)
        self._slots = asyncio.Semaphore(self.limits.concurrency)
        self._postponed = _Postponed(self.clock)

    async def run(self) -> None:
        """Run to the end of the source, or until the job is stopped.

        Cancelling ends every task at once; the journal knows what may be on its way.
        """
        producer = asyncio.create_task(self._guard(self._produce))
        others = [
            asyncio.create_task(self._guard(self._resume_postponed)),
            asyncio.create_task(self._guard(self.tracked.record_in_flight)),
        ]
        stopped = asyncio.create_task(self.stop_signal.asked.wait())
        try:
            await asyncio.wait({producer, stopped}, return_when=asyncio.FIRST_COMPLETED)
            producer.cancel()
            others[0].cancel()
            await asyncio.wait({producer, others[0]})
            await self._drain()
        finally:
            leftover = [producer, *others, stopped, *self._rows]
            for task in leftover:
                task.cancel()
            await asyncio.gather(*leftover, return_exceptions=True)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run one of the job's own tasks; what it raises ends the job."""
        try:
            await work()
        except Exception as error:
            self.stop_signal.fail(error)

    async def _produce(self) -> None:
        """Admit the source chunk by chunk, as fast as rows come to their end."""
        last_row = 0
        async with aclosing(chunks_of(self.candidates)) as chunks:
            async for rows in chunks:
                await self._admit_chunk(rows, last_row + 1)
                last_row += len(rows)
        await self.context.journal.finish_source()
        self.statistics.total = last_row
        while self._open:
            await self._wait_for_change()

    async def _admit_chunk(self, rows: Sequence[object], first_row: int) -> None:
        entries = [
            SourceRow(row, self.check.read(raw), line_of(raw))
            for row, raw in enumerate(rows, start=first_row)
        ]
        records = await self.context.journal.upsert_rows(entries)
        self.statistics.enter(records)
        for entry, record in zip(entries, records, strict=True):
            candidate = entry.checked if isinstance(entry.checked, NewCandidate) else None
            if candidate is None or record.has_ended or self.is_dry:
                # A rejected row was checked anew; whatever else has ended did so before.
                earlier = record.has_ended and record.state is not RowState.REJECTED
                await self._publish(record, candidate, earlier=earlier)
            else:
                if not self._first_try.is_set() and self._rows:
                    # The first row goes alone: if the interview or the key is wrong, only
                    # one candidate is created for nothing.
                    await self._first_try.wait()
                # What an earlier run deferred is a new beginning for this one.
                row = RowTask(self.context, evolve(record, error=None), candidate)
                while len(self._postponed) >= _MOST_POSTPONED:
                    await self._wait_for_change()
                self._open += 1
                await self._spawn(row)

    async def _resume_postponed(self) -> None:
        """Go on with each postponed row once its time has come."""
        while True:
            row = await self._postponed.pop()
            await self._spawn(row)

    async def _spawn(self, row: RowTask) -> None:
        """Start a row's task when there is room for it, and somewhere for it to get to."""
        async with self._turn:
            await self._wait_for_room()
            await self._slots.acquire()
            task = asyncio.create_task(self._run_row(row))
            self._rows[task] = row
            task.add_done_callback(self._row_over)

    async def _wait_for_room(self) -> None:
        """While nothing gets through, begin one row at a time, after a growing pause."""
        while self._breaker.outages > 1 and self._rows:
            await self._wait_for_change()
        if self._breaker.outages > 1:
            pause = backoff(self._breaker.outages - 1, base=_FIRST_PAUSE, cap=_LONGEST_PAUSE)
            await self.clock.sleep(self._failed_at + pause - self.clock.monotonic())

    async def _wait_for_change(self) -> None:
        self._change.clear()
        await self._change.wait()

    def _row_over(self, task: asyncio.Task[None]) -> None:
        row = self._rows.pop(task)
        self._open -= row.resume_at is None
        self._slots.release()
        self._first_try.set()
        self._change.set()

    async def _run_row(self, row: RowTask) -> None:
        try:
            is_over = await self._try(row)
        except InterviewNotFound as signal:
            self.stop_signal.fail(signal.error)
            return
        except Exception as error:
            self.stop_signal.fail(error)
            return
        if is_over:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - it runs in one
            self._publishing.add(task)
            try:
                await self._publish(row.record, row.candidate)
            finally:
                self._publishing.discard(task)

    async def _try(self, row: RowTask) -> bool:
        """Return whether the row has ended, or was deferred to the next run."""
        began, candidate_id = self.clock.monotonic(), row.record.candidate_id
        try:
            await row.advance()
        except GatherError as error:
            if is_fatal(error):
                raise
            if row.record.candidate_id != candidate_id:
                self._breaker = self._breaker.responded()
            self._failed(error, began)
            row.failures += 1
            if row.failures > len(_PAUSES):
                row.resume_at = None
                await row.save(defer(row.record, error))
                return True
            if row.resume_at is None:
                row.resume_at = self.clock.monotonic() + _PAUSES[row.failures - 1]
        else:
            if row.refusal is not None:
                self._failed(row.refusal, began)
            elif row.record.has_ended:
                self._breaker = self._breaker.succeeded()
            else:
                self._breaker = self._breaker.responded()
        if row.resume_at is not None and not self.stop_signal.is_asked:
            self._postponed.push(row, row.resume_at)
        return row.record.has_ended

    def _failed(self, error: GatherError, began: float) -> None:
        """Count a failure; rows that were on their way together have failed once."""
        self._first_try.set()
        if not is_rejection(error):
            if self._breaker.outages and began < self._failed_at:
                return
            self._failed_at = self.clock.monotonic()
        self._breaker = self._breaker.failed(error)
        if self._breaker.is_open and not self.stop_signal.is_asked:
            self.last_error = error
            self.stop_signal.stop(StopReason.BREAKER)

    async def _publish(
        self, record: RowRecord, candidate: NewCandidate | None, *, earlier: bool = False
    ) -> None:
        """Count a row that has ended, and pass its outcome on."""
        self.statistics.earlier += earlier
        if self.is_dry and not record.has_ended:
            self.statistics.counts[InviteStatus.READY] += 1
        else:
            self.statistics.end(record, status_of(record))
        self.notify()
        if self.queue.is_read:
            await self.queue.put(outcome_of(record, candidate, earlier=earlier, is_dry=self.is_dry))

    async def _drain(self) -> None:
        """Let what is on the wire end, within the grace, and cancel all else at once."""
        for task, row in list(self._rows.items()):
            is_busy = self.tracked.is_in_flight(task) or row.is_saving or task in self._publishing
            if not is_busy:
                task.cancel()
        timer = self.clock.call_later(self.limits.grace, self._cancel_rows)
        try:
            while self._rows:
                await asyncio.wait(self._rows)
        finally:
            timer.cancel()

    def _cancel_rows(self) -> None:
        for task in self._rows:
            task.cancel()
