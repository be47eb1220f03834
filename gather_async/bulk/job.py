"""`BulkInvite`: a job that can be awaited, iterated, watched and stopped."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from os import PathLike
from typing import Any, Literal

from gather_async.bulk.execution import BulkClient, JobExecution, JobLease
from gather_async.bulk.report import InvitePlan, InviteProgress, InviteReport, StopReason
from gather_async.bulk.row_state import InviteOutcome
from gather_async.bulk.row_task import InviteOptions
from gather_async.bulk.runner import JobLimits
from gather_async.bulk.source import CandidateSource
from gather_async.models.enums import DeliveryType
from gather_async.pager import TaskCoroutine

__all__ = ["BulkInvite"]


class BulkInvite(TaskCoroutine[InviteReport]):
    """A bulk invite. Nothing is opened, read or sent before it is awaited or iterated.

    ``report = await job`` runs it to its end; awaiting again gives the same
    report. ``async for outcome in job`` runs it too, and gives each row's outcome
    as it ends, those that ended in earlier runs included; the job goes no faster
    than the loop takes them. Leaving the loop early doesn't stop the job: `stop` does.

    Cancelling a task that waits for the job, or for its next outcome, stops it:
    requests on the wire get ``grace`` seconds to end, nothing new is begun, then the
    journal is closed and the cancellation goes on. Cancelling once more spares the
    grace. The same call with the same journal continues.
    """

    def __init__(
        self,
        gather: BulkClient,
        candidates: CandidateSource,
        *,
        interview_id: str,
        delivery_types: Iterable[DeliveryType | str] = ("email",),
        expiry_days: int | None = None,
        external_redirect_uri: str | None = None,
        journal: str | PathLike[str] | None = None,
        concurrency: int = 16,
        on_progress: Callable[[InviteProgress], object] | None = None,
        dry_run: bool = False,
        on_existing: Literal["reuse", "skip", "error"] = "reuse",
        total: int | None = None,
        in_flight_timeout: float = 120.0,
        max_consecutive_failures: int = 10,
        retry_failed: bool = False,
        other_key: bool = False,
        grace: float = 10.0,
        keep_candidates: bool = True,
        lease: JobLease | None = None,
    ) -> None:
        """Describe the job.

        Args:
            gather: The client.
            candidates: Iterable or async iterable of `NewCandidate` or of mappings,
                read lazily and in order; what `read_candidates` returns is one. In later
                runs with the same journal they may come in another order.
            interview_id: What everyone is invited to.
            delivery_types: ``email``, ``sms`` or both. With ``sms``, a row needs
                ``sms_opt_in``.
            expiry_days: Days until the link dies; None: the organization's setting.
            external_redirect_uri: Where candidates land after finishing.
            journal: The SQLite file that lets the job go on after a crash; it holds
                personal data, see ``keep_candidates``. None keeps it in memory (large
                ones spill into a nameless temporary file): then a crash forgets it.
            concurrency: Rows worked on at a time, 1 or more.
            on_progress: Called in the loop, at most ten times a second.
            dry_run: Check every row and estimate; nothing is sent, and the journal's
                file is not changed. The report's ``plan`` says what the job would cost.
            on_existing: What to do if a person has the row's own external id:
                ``"reuse"`` invites that person, unless they are invited already;
                ``"skip"`` leaves them alone; ``"error"`` fails the row.
            total: How many rows there are, for progress, if you know and the source
                doesn't say; lists and files do.
            in_flight_timeout: Seconds, 0 or more, within which a request whose fate is
                unknown may still be carried out. Only then does absence from the
                server's list prove that it was not.
            max_consecutive_failures: Failures in a row, 1 or more, that stop the job.
            retry_failed: Whether rows that the server refused in an earlier run are
                tried again.
            other_key: Whether to go on with a journal that was begun with another API
                key. Pass True if both keys belong to the same organization.
            grace: Seconds that requests on the wire get when the job stops.
            keep_candidates: Whether the journal holds names, addresses and numbers,
                for ``outcome.candidate`` of `InviteReport.outcomes`; if not, only
                digests and ids.
            lease: Lets one machine at a time run the job, such as
                `gather_async.redis.RedisLease`: held from before the journal is opened until
                it is closed. Once its event ``lost`` is set, the job stops as by `stop`. A dry
                run needs none.

        Raises:
            ConfigurationError: An argument can't work.
            InviteNotDeliverableError: There is no delivery type, or an unknown one.
        """
        self._execution = JobExecution(
            gather=gather,
            candidates=candidates,
            invitation=InviteOptions(
                interview_id=interview_id,
                delivery_types=delivery_types,
                expiry_days=expiry_days,
                external_redirect_uri=external_redirect_uri,
                on_existing=on_existing,
                in_flight_timeout=in_flight_timeout,
            ),
            journal_path=journal,
            limits=JobLimits(
                concurrency=concurrency,
                max_consecutive_failures=max_consecutive_failures,
                grace=grace,
            ),
            on_progress=on_progress,
            is_dry=dry_run,
            total=total,
            keeps_candidates=keep_candidates,
            retry_failed=retry_failed,
            other_key=other_key,
            lease=lease,
        )
        self._runs = {}
        self._task: asyncio.Task[InviteReport] | None = None
        self._reader: asyncio.Task[Any] | None = None

    def __await__(self) -> Generator[Any, None, InviteReport]:
        """Run the job to its end and return its report.

        Raises:
            AuthenticationError: The key is refused; the rest of the rows is untouched.
            PermissionDeniedError: The key may not do this; likewise.
            NotFoundError: There is no such interview; likewise.
            ConfigurationError: The journal is in use, belongs to another job or key, lacks
                its last changes, or was removed meanwhile; a file's columns are wrong.
            ClientClosedError: The client was closed meanwhile.
            sqlite3.Error: The journal can't be written: a full disk, for one.
            OSError: The journal's or the source's file can't be opened.
            Exception: Whatever else the source raised, or the lease: `LeaseHeldError`, for one.
        """
        return self._result().__await__()

    async def __aiter__(self) -> AsyncGenerator[InviteOutcome, None]:
        """Run the job and yield each row's outcome as it ends.

        Once the job is over, iterating reads the outcomes back from the journal.

        Raises:
            RuntimeError: Another loop iterates over the job at this moment.
            Exception: As awaiting does, once the outcomes before it were given.
        """
        if self._task is not None and self._task.done():
            for earlier in (await self._result()).outcomes:
                yield earlier
            return
        queue = self._execution.queue
        if queue.is_read:
            raise RuntimeError("Another loop iterates over this job already.")
        queue.attach()
        self._reader = asyncio.current_task()
        task = self._start()
        try:
            while (outcome := await self._take(task)) is not None:
                yield outcome
        finally:
            self._reader = None
            queue.detach()
        await self._wait_for(task)

    def stop(self) -> None:
        """Begin nothing more, and end once the requests on the wire have ended.

        The report then has ``stopped`` set, and the same call with the same journal
        goes on. Harmless to repeat, and before the job runs. Not thread-safe: from a
        thread or a signal handler use ``loop.call_soon_threadsafe(job.stop)``.
        """
        self._execution.stop_signal.stop(StopReason.ASKED)

    @property
    def plan(self) -> InvitePlan:
        """What is still to be sent, as far as known by now. Costs no request."""
        return self._execution.plan()

    @property
    def progress(self) -> InviteProgress:
        """How far the job is. Costs no request."""
        return self._execution.snapshot()

    @property
    def report(self) -> InviteReport | None:
        """The report, once the job is over, also if it ended with an error; else None."""
        return self._execution.report

    def __repr__(self) -> str:
        state = "new" if self._task is None else "over" if self._task.done() else "running"
        return f"<BulkInvite {state}, {self._execution.statistics.done} rows done>"

    def _start(self) -> "asyncio.Task[InviteReport]":
        if self._task is None:
            self._task = asyncio.create_task(self._execution.run(), name="gather-async-bulk-invite")
            # A caller that only iterates gets the error there, and not a second time.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._task

    async def _result(self) -> InviteReport:
        task = self._start()
        if self._reader is not None and self._reader is asyncio.current_task():
            # The loop's body waits for the job, so no outcome is taken any more.
            self._execution.queue.detach()
        return await self._wait_for(task)

    async def _wait_for(self, task: "asyncio.Task[InviteReport]") -> InviteReport:
        """Wait; being cancelled stops the job, and waits for that."""
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await self._end(task)
            raise

    async def _take(self, task: "asyncio.Task[InviteReport]") -> InviteOutcome | None:
        """Return the next outcome; being cancelled stops the job, and waits for that."""
        try:
            return await self._execution.queue.take()
        except asyncio.CancelledError:
            self._execution.queue.detach()
            await self._end(task)
            raise

    async def _end(self, task: "asyncio.Task[InviteReport]") -> None:
        """Stop in good order; being cancelled once more stops at once."""
        self.stop()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
