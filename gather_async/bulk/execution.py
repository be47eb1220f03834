"""Puts a job together, runs it once, and reports, however it ended."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

from attrs import define, evolve, field
from attrs.validators import optional

from gather_async.bulk.candidate_file import CandidateFile
from gather_async.bulk.existing import ExistingIndex, LookupStrategy
from gather_async.bulk.journal import Connect, Journal, JournalScope, connect_to
from gather_async.bulk.report import (
    InvitePlan,
    InviteProgress,
    InviteReport,
    Outcomes,
    StopReason,
    copy_file,
    instant,
    private_copy,
)
from gather_async.bulk.requests import Restorable, TrackedLimiter, owner_of
from gather_async.bulk.row_check import RowCheck
from gather_async.bulk.row_state import JobStatistics
from gather_async.bulk.row_task import InviteOptions, RowContext
from gather_async.bulk.runner import JobLimits, OutcomeQueue, Runner, StopSignal
from gather_async.bulk.source import CandidateSource, count_of, require_rows
from gather_async.clock import Clock
from gather_async.errors import ConfigurationError
from gather_async.observability import log_fields
from gather_async.phone import PhonePolicy
from gather_async.protocol.retry import RetryPolicy
from gather_async.quota import Limiter, Priority
from gather_async.resources import CandidateInterviews, Candidates
from gather_async.validators import Number

__all__ = ["BulkClient", "JobExecution", "JobLease"]

_LOG = logging.getLogger("gather_async.bulk")
_INTERVAL = 0.1  # seconds: ten calls a second are as many as can be seen


class BulkClient(Protocol):
    """A client, or a view of one."""

    @property
    def candidates(self) -> Candidates:
        """Where people are created and found."""
        ...

    @property
    def candidate_interviews(self) -> CandidateInterviews:
        """Where invites are sent and found."""
        ...

    @property
    def base_url(self) -> str:
        """Which server it is."""
        ...

    @property
    def clock(self) -> Clock:
        """Where time comes from."""
        ...

    @property
    def limiter(self) -> Limiter:
        """Who decides when a request may go."""
        ...

    @property
    def retry(self) -> RetryPolicy:
        """How failed requests are tried again."""
        ...

    @property
    def phone_policy(self) -> PhonePolicy:
        """How much must be true of a phone number."""
        ...

    @property
    def default_region(self) -> str | None:
        """The region of national phone numbers; None refuses them."""
        ...

    def key_digest(self, salt: bytes) -> str:
        """Return a digest of the API key under a salt."""
        ...

    def estimate(self, requests: int) -> timedelta:
        """Return how long that many more requests will take."""
        ...

    def with_options(
        self, *, priority: Priority, max_wait: None, limiter: Limiter, retry: RetryPolicy
    ) -> Self:
        """Return a view with other options."""
        ...


class JobLease(Protocol):
    """The sole permission to run a job, such as `gather_async.redis.RedisLease`."""

    @property
    def lost(self) -> asyncio.Event:
        """Set when the permission may be another machine's; asked for once it is entered."""
        ...

    async def __aenter__(self) -> object:
        """Get the permission, or raise if another machine has it."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> object:
        """Give it back, if it isn't lost."""
        ...


def _journal(path: str | PathLike[str] | None) -> Path | None:
    if path is None or path == ":memory:":
        return None
    is_path = isinstance(path, str | PathLike) and isinstance(fspath(path), str)
    if not is_path or not str(path).strip() or "\0" in str(path):
        raise ConfigurationError("journal must be a file's path, or None to keep it in memory.")
    return Path(path)


def _lease(_: object, __: object, value: Any) -> None:
    names = ("__aenter__", "__aexit__", "lost")
    if value is not None and not all(hasattr(value, name) for name in names):
        raise ConfigurationError(
            "lease must be an async context manager with an event named lost, such as RedisLease."
        )


@define(eq=False, kw_only=True, repr=False)  # error reporters print `self`, and rows are persons
class JobExecution:
    """One job, as the caller described it, and its parts."""

    gather: BulkClient
    candidates: CandidateSource = field(validator=lambda _, __, rows: require_rows(rows))
    invitation: InviteOptions
    journal_path: Path | None = field(converter=_journal)
    limits: JobLimits
    on_progress: Callable[[InviteProgress], object] | None
    is_dry: bool
    total: int | None = field(validator=optional(Number(least=0, whole=True)))
    keeps_candidates: bool
    retry_failed: bool
    """Whether rows that the server refused in an earlier run are tried again."""
    other_key: bool
    """Whether a journal that was begun with another API key is gone on with."""
    lease: JobLease | None = field(validator=_lease)
    queue: OutcomeQueue = field(factory=OutcomeQueue)
    stop_signal: StopSignal = field(factory=StopSignal)
    statistics: JobStatistics = field(factory=JobStatistics)
    report: InviteReport | None = None
    _tracked: TrackedLimiter = field(init=False)
    _view: BulkClient = field(init=False)
    _people: ExistingIndex | None = None
    _plan: InvitePlan | None = None
    _began: float | None = None
    _notified_at: float = -math.inf

    def __attrs_post_init__(self) -> None:
        self._tracked = TrackedLimiter(
            self.gather.limiter,
            self.gather.clock,
            lambda: self.stop_signal.is_asked,
            # Short beside what it is added to.
            heartbeat=min(5.0, max(0.05, self.invitation.in_flight_timeout / 4)),
        )
        # Bulk work waits for the quota as long as it takes, and never holds a row's place
        # for a request of unknown fate: such a row is postponed.
        self._view = self.gather.with_options(
            priority="bulk",
            max_wait=None,
            limiter=self._tracked,
            retry=evolve(self.gather.retry, in_flight_timeout=None),
        )

    async def run(self) -> InviteReport:
        """Run the job, close everything, and return the report or raise."""
        self._began = self.gather.clock.monotonic()
        try:
            self.statistics.total = self.total
            if self.total is None:
                self.statistics.total = await count_of(self.candidates)
            async with self._hold_lease():
                with ExitStack() as scratch:
                    journal = await self._open(scratch)
                    try:
                        await self._run_with(journal)
                    finally:
                        await journal.aclose()
        finally:
            self.queue.close()
        if self.stop_signal.error is not None:
            raise self.stop_signal.error
        assert self.report is not None  # noqa: S101 - set by _run_with
        if not self.is_dry:
            self._log_end(self.report)
        return self.report

    def _log_end(self, report: InviteReport) -> None:
        counts = {status.value: count for status, count in report.counts.items() if count}
        rows, requests = report.total, report.requests
        extra = log_fields(rows=rows, requests=requests, counts=counts)
        summary = ", ".join(f"{count} {status}" for status, count in counts.items())
        _LOG.info("A bulk invite ended: %s; rows: %d", summary, rows, extra=extra)

    @asynccontextmanager
    async def _hold_lease(self) -> AsyncIterator[None]:
        """Hold the job's lease, and stop the job once it is lost."""
        lease = None if self.is_dry else self.lease
        if lease is None:
            yield
            return
        async with lease:
            loss = asyncio.create_task(lease.lost.wait(), name="gather-async-bulk-lease")
            loss.add_done_callback(self._on_loss)
            try:
                yield
            finally:
                loss.cancel()

    def _on_loss(self, loss: "asyncio.Task[bool]") -> None:
        if not loss.cancelled():
            self.stop_signal.stop(StopReason.LEASE_LOST)

    async def _open(self, scratch: ExitStack) -> Journal:
        """Open the journal; a dry run works on a copy of it, so that nothing is changed."""
        path = self.journal_path
        if self.is_dry and path is not None:
            folder = TemporaryDirectory(prefix="gather-async-")
            copy = Path(scratch.enter_context(folder), "dry-run.db")
            path = copy if await asyncio.to_thread(copy_file, path, copy) else None
        return await Journal.open(
            path,
            JournalScope(
                interview_id=self.invitation.interview_id,
                server=self.gather.base_url,
                invitation=repr(self.invitation.terms),
                key_digest=self.gather.key_digest,
                other_key=self.other_key,
            ),
            retry_failed=self.retry_failed,
            keeps_candidates=self.keeps_candidates,
            owner=owner_of(self.gather.limiter),
        )

    async def _run_with(self, journal: Journal) -> None:
        clock = self.gather.clock
        if not self.is_dry:
            await self._restore(journal)
            self._tracked.log = journal
        runner = Runner(
            candidates=self.candidates,
            check=RowCheck(
                policy=self.gather.phone_policy,
                region=self.gather.default_region,
                needs_opt_in=self.invitation.needs_opt_in,
            ),
            context=await self._context(journal),
            limits=self.limits,
            statistics=self.statistics,
            queue=self.queue,
            stop_signal=self.stop_signal,
            notify=self._notify,
            tracked=self._tracked,
            clock=clock,
            is_dry=self.is_dry,
        )
        await runner.run()
        self._plan = self.plan() if self.is_dry else None
        self.report = await self._report(journal, runner)
        self._notify(always=True)

    async def _restore(self, journal: Journal) -> None:
        """Count what earlier processes sent in the limiter, unless it has it by other means."""
        times = await journal.claim_history(self.gather.clock.wall())
        if times and isinstance(self.gather.limiter, Restorable):
            self.gather.limiter.restore(times)

    async def _context(self, journal: Journal) -> RowContext:
        view, invitation = self._view, self.invitation
        now = self._tracked.now()
        ages: Mapping[int, float] = {}
        if not self.is_dry:
            ages = await journal.ages(now)
        # A run may have sent its last request just before its next sign of life.
        timeout = invitation.in_flight_timeout + self._tracked.heartbeat
        candidates, invites = view.candidates, view.candidate_interviews
        interview_id, rows = invitation.interview_id, self.statistics
        self._people = ExistingIndex.of_people(candidates, invites, journal, interview_id, rows)
        return RowContext(
            invitation=invitation,
            journal=journal,
            candidates=candidates,
            candidate_interviews=invites,
            people=self._people,
            invited=ExistingIndex.of_invites(invites, journal, interview_id),
            monotonic=self.gather.clock.monotonic,
            in_flight_until={run: now.monotonic + timeout - age for run, age in ages.items()},
            is_stopping=lambda: self.stop_signal.is_asked,
            requests_sent=self._tracked.requests_sent,
            on_change=self.statistics.change,
        )

    async def _report(self, journal: Journal, runner: Runner) -> InviteReport:
        if self.journal_path is None or self.is_dry:
            connect: Connect = await private_copy(journal)
        else:
            connect = connect_to(self.journal_path)
        return InviteReport(
            counts=MappingProxyType(dict(self.statistics.counts)),
            total=self.statistics.read,
            outcomes=Outcomes(connect, journal.identity.run, self.is_dry, self.statistics.read),
            requests=self._tracked.requests,
            plan=self._plan,
            stopped=self.stop_signal.reason,
            error=runner.last_error,
        )

    def plan(self) -> InvitePlan:
        """Return what is still to be sent."""
        writes = self.statistics.requests_left()
        lookups, lookup_requests = LookupStrategy.UNDECIDED, 0
        if self._people is not None:
            lookups, lookup_requests = self._people.choice, self._people.requests_left()
        duration = self._duration(writes + lookup_requests)
        candidates = self.candidates
        return InvitePlan(
            rows=self.statistics.read,
            total=self.statistics.total,
            writes=writes,
            lookups=lookups,
            lookup_requests=lookup_requests,
            requests=writes + lookup_requests,
            duration=duration,
            finish_at=instant(self.gather.clock, duration),
            source=candidates.description if isinstance(candidates, CandidateFile) else None,
        )

    def snapshot(self) -> InviteProgress:
        """Return how far the job is."""
        clock = self.gather.clock
        people = self._people
        left = self.statistics.requests_left() + (0 if people is None else people.requests_left())
        remaining = self._duration(left)
        return InviteProgress(
            done=self.statistics.done,
            earlier=self.statistics.earlier,
            total=self.statistics.total,
            counts=MappingProxyType(dict(self.statistics.counts)),
            requests_sent=self._tracked.requests,
            requests_left=left,
            remaining=remaining,
            finish_at=instant(clock, remaining),
            elapsed=0.0 if self._began is None else clock.monotonic() - self._began,
        )

    def _notify(self, *, always: bool = False) -> None:
        """Call ``on_progress``, unless that was done a moment ago.

        One that raises is logged and not called again: a broken progress bar must not
        stop invites.
        """
        now = self.gather.clock.monotonic()
        if self.on_progress is None or not (always or now - self._notified_at >= _INTERVAL):
            return
        self._notified_at = now
        try:
            self.on_progress(self.snapshot())
        except Exception as error:
            self.on_progress = None
            extra = log_fields(error=error)
            _LOG.exception("on_progress raised, and will not be called again", extra=extra)

    def _duration(self, requests: int) -> timedelta:
        return self._view.estimate(requests) if requests else timedelta(0)
