"""The running of a job: rows in, bounded work, outcomes out, and an orderly end."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from attrs import define, evolve, field

from gather_async.bulk.candidate_file import line_of
from gather_async.bulk.failures import CircuitBreaker, InterviewNotFound, is_fatal
from gather_async.bulk.journal import Journal
from gather_async.bulk.journal_sql import SourceRow, outcome_of
from gather_async.bulk.outcome import InviteStatus
from gather_async.bulk.progress import JobStatistics, OutcomeQueue, ProgressNotifier
from gather_async.bulk.report import StopReason
from gather_async.bulk.row_check import RowCheck, with_external_id
from gather_async.bulk.row_state import RowRecord, RowState, defer, status_of
from gather_async.bulk.row_task import RowContext, RowTask
from gather_async.bulk.settings import JobLimits
from gather_async.bulk.source import CandidateSource, chunks_of
from gather_async.bulk.tracked_limiter import TrackedLimiter
from gather_async.clock import Clock
from gather_async.errors import GatherError
from gather_async.models.candidate import NewCandidate
from gather_async.protocol.retry import backoff

__all__ = ["Runner", "StopSignal"]

_TRIES = 3
"""Attempts at a row whose failures the client's own retries could not mend; then the next
run has to."""


@define(eq=False)
class StopSignal:
    """Whether the job is to end early, and why."""

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


@define(eq=False, kw_only=True)
class Runner:
    """Runs the rows of one job. Used once."""

    candidates: CandidateSource
    check: RowCheck
    journal: Journal
    errand: RowContext
    limits: JobLimits
    tally: JobStatistics
    stream: OutcomeQueue
    halt: StopSignal
    progress: ProgressNotifier
    watch: TrackedLimiter
    clock: Clock
    is_dry: bool
    last_error: GatherError | None = None
    _breaker: CircuitBreaker = field(init=False)
    _slots: asyncio.Semaphore = field(init=False)
    _rows: dict[asyncio.Task[None], RowTask] = field(factory=dict)
    _telling: set[asyncio.Task[None]] = field(factory=set)
    _first_try: asyncio.Event = field(factory=asyncio.Event)

    def __attrs_post_init__(self) -> None:
        self._breaker = CircuitBreaker(self.limits.max_consecutive_failures)
        self._slots = asyncio.Semaphore(self.limits.concurrency)

    async def run(self) -> None:
        """Run to the end of the source, or until the job is halted.

        Cancelling ends every task at once; the journal knows what may be on its way.
        """
        feeder = asyncio.create_task(self._feed())
        halted = asyncio.create_task(self.halt.asked.wait())
        try:
            await asyncio.wait({feeder, halted}, return_when=asyncio.FIRST_COMPLETED)
            feeder.cancel()
            await asyncio.wait({feeder})
            await self._wind_up()
        finally:
            leftover = [feeder, halted, *self._rows]
            for task in leftover:
                task.cancel()
            await asyncio.gather(*leftover, return_exceptions=True)

    async def _feed(self) -> None:
        """Take the source in chunk by chunk, as fast as rows come to their end."""
        try:
            last_row = 0
            async with aclosing(chunks_of(self.candidates)) as chunks:
                async for rows in chunks:
                    await self._take_in(rows, last_row + 1)
                    last_row += len(rows)
            await self.journal.finish_source(last_row)
            self.tally.total = last_row
            while self._rows:
                await asyncio.wait(self._rows)
        except Exception as error:
            self.halt.fail(error)

    async def _take_in(self, rows: Sequence[object], first_row: int) -> None:
        entries = [
            SourceRow(row, self.check.read(raw), line_of(raw))
            for row, raw in enumerate(rows, start=first_row)
        ]
        records = await self.journal.upsert_rows(entries)
        self.tally.enter(records)
        for entry, record in zip(entries, records, strict=True):
            candidate = entry.checked if isinstance(entry.checked, NewCandidate) else None
            if candidate is None or record.has_ended or self.is_dry:
                # A rejected row was checked anew; whatever else has ended did so before.
                earlier = record.has_ended and record.state is not RowState.REJECTED
                await self._tell(record, candidate, earlier=earlier)
            else:
                await self._begin(record, candidate)

    async def _begin(self, record: RowRecord, candidate: NewCandidate) -> None:
        """Start a row's task when there is room for it."""
        if self._rows and not self._first_try.is_set():
            # The first row goes alone: if the interview or the key is wrong, only
            # one candidate is created for nothing.
            await self._first_try.wait()
        await self._slots.acquire()
        # What an earlier run gave up is a new beginning for this one.
        row = RowTask(self.errand, evolve(record, error=None), candidate)
        task = asyncio.create_task(self._run_row(row))
        self._rows[task] = row
        task.add_done_callback(self._row_over)

    def _row_over(self, task: asyncio.Task[None]) -> None:
        del self._rows[task]
        self._slots.release()
        self._first_try.set()

    async def _run_row(self, row: RowTask) -> None:
        try:
            is_over = await self._try(row)
        except InterviewNotFound as signal:
            self.halt.fail(signal.error)
            return
        except Exception as error:
            self.halt.fail(error)
            return
        if is_over:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - it runs in one
            self._telling.add(task)
            try:
                await self._tell(row.record, row.candidate)
            finally:
                self._telling.discard(task)

    async def _try(self, row: RowTask) -> bool:
        """Return whether the row has ended, or was given up for this run."""
        for number in range(1, _TRIES + 1):
            try:
                await row.advance()
            except GatherError as error:
                if is_fatal(error):
                    raise
                self._failed(error)
                if self.halt.is_asked:
                    return False
                if number == _TRIES:
                    await row.save(defer(row.record, error))
                    return True
                await self.errand.pause(backoff(number, base=5.0, cap=30.0, factor=6.0))
            else:
                if row.record.state is RowState.FAILED and row.record.error is not None:
                    self._failed(row.record.error)
                elif row.record.has_ended:
                    self._breaker = self._breaker.succeeded()
                return row.record.has_ended
        raise AssertionError("the last try has no pause")

    def _failed(self, error: GatherError) -> None:
        self._first_try.set()
        self._breaker = self._breaker.failed(error)
        if self._breaker.is_open and not self.halt.is_asked:
            self.last_error = error
            self.halt.stop(StopReason.BREAKER)

    async def _tell(
        self, record: RowRecord, candidate: NewCandidate | None, *, earlier: bool = False
    ) -> None:
        """Count a row that has ended, and pass its outcome on."""
        if candidate is not None and record.external_id is not None and self.stream.is_read:
            candidate = with_external_id(candidate, record.external_id)
        self.tally.earlier += earlier
        if self.is_dry and not record.has_ended:
            self.tally.counts[InviteStatus.READY] += 1
        else:
            self.tally.end(record, status_of(record))
        self.progress.tell()
        if self.stream.is_read:
            await self.stream.put(
                outcome_of(record, candidate, earlier=earlier, is_dry=self.is_dry)
            )

    async def _wind_up(self) -> None:
        """Let what is on the wire end, within the grace, and cancel all else at once."""
        for task, row in list(self._rows.items()):
            is_busy = self.watch.is_under_way(task) or row.is_saving or task in self._telling
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
