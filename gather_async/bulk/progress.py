"""Progress of a job."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from attrs import define, field, frozen

from gather_async.bulk.candidate_file import FileDescription
from gather_async.bulk.existing import KeysLeft, LookupStrategy
from gather_async.bulk.row_state import (
    InviteOutcome,
    InviteStatus,
    RowRecord,
    RowState,
    requests_left,
)
from gather_async.clock import Clock
from gather_async.observability import log_fields

__all__ = [
    "InvitePlan",
    "InviteProgress",
    "JobStatistics",
    "OutcomeQueue",
    "ProgressNotifier",
    "instant",
]


@frozen(kw_only=True)
class InvitePlan:
    """The requests still to be sent, as far as known when asked."""

    rows: int
    """Rows read so far; in a dry run's report, all of them."""
    total: int | None
    """Rows in the source; None while unknown."""
    writes: int
    """Requests that create candidates and send invites, if nothing goes wrong."""
    lookups: LookupStrategy
    """How people who are there already are found."""
    lookup_requests: int
    """Requests for that. Where it is undecided: one for each row with an external id of
    its own, and one that may show that no other row can be there."""
    requests: int
    """All requests to come."""
    duration: timedelta
    """How long they will take, by the quota as it stands."""
    finish_at: datetime
    """When that will be; aware, UTC."""
    source: FileDescription | None = None
    """How the file is read: encoding, delimiter, columns; None until it was begun, and
    for rows that come from no file."""


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
class JobStatistics:
    """Counts rows, outcomes and requests to come."""

    total: int | None = None
    """Rows in the source; None until known."""
    earlier: int = 0
    """Rows that an earlier run had ended."""
    read: int = 0
    """Rows read so far."""
    counts: Counter[InviteStatus] = field(factory=Counter)
    """Rows that ended, earlier runs' included, by status."""
    _requests: int = 0
    _own_ids: int = 0
    _own_ids_waiting: int = 0
    _derived_waiting: int = 0

    @property
    def done(self) -> int:
        """Return how many rows have ended."""
        return self.counts.total()

    def enter(self, records: Iterable[RowRecord]) -> None:
        """Count rows as they come from the journal, before anything happens to them."""
        for record in records:
            self.read += 1
            self._requests += requests_left(record)
            self._own_ids += record.own_id
            self._wait(record, 1)

    def change(self, before: RowRecord, after: RowRecord) -> None:
        """Count a step of a row."""
        self._requests += requests_left(after) - requests_left(before)
        self._wait(before, -1)
        self._wait(after, 1)

    def end(self, record: RowRecord, status: InviteStatus) -> None:
        """Count a row that has ended, or was given up for this run."""
        self.counts[status] += 1
        self._requests -= requests_left(record)
        self._wait(record, -1)

    def requests_left(self) -> int:
        """Return how many writes are to come, if nothing goes wrong: two for an unread row."""
        return self._requests + 2 * self._unread()

    def keys_left(self) -> KeysLeft:
        """Return how many people are still to be asked for, by how their external id came to be.

        Rows that weren't read yet are taken to be like those that were.
        """
        if self.total is None:
            has_derived = self._own_ids < self.read
            return KeysLeft(own=None, derived=None if has_derived else 0)
        share = self._own_ids / self.read if self.read else 0.0
        own = round(self._unread() * share)
        return KeysLeft(
            own=self._own_ids_waiting + own,
            derived=self._derived_waiting + self._unread() - own,
        )

    def _wait(self, record: RowRecord, step: int) -> None:
        """Count a row whose person is still to be asked for in or out."""
        if record.state is RowState.SEEN:
            self._own_ids_waiting += step * record.own_id
            self._derived_waiting += step * (not record.own_id)

    def _unread(self) -> int:
        return 0 if self.total is None else max(0, self.total - self.read)


_LOG = logging.getLogger("gather_async.bulk")
_INTERVAL = 0.1  # seconds: ten calls a second are as many as can be seen


@frozen(kw_only=True)
class InviteProgress:
    """Progress of a bulk invite."""

    done: int
    """Rows that ended, however they did, in this run or an earlier one."""
    earlier: int
    """Those of them that earlier runs had ended; the rest is this run's own work."""
    total: int | None
    """Rows in the source; None while unknown, as it is for a generator until its end."""
    counts: Mapping[InviteStatus, int]
    """Rows that ended, by how they did."""
    requests_sent: int
    """Requests this run has sent."""
    requests_left: int
    """Requests to come if nothing goes wrong; of the rows read so far if ``total`` is None."""
    remaining: timedelta
    """How long those will take from now, by the quota as it stands."""
    finish_at: datetime
    """When that will be; aware, UTC."""
    elapsed: float
    """Seconds since the job began."""


@define(eq=False, kw_only=True)
class ProgressNotifier:
    """Calls back at most ten times a second, and once at the end."""

    callback: Callable[[InviteProgress], object] | None
    snapshot: Callable[[], InviteProgress]
    clock: Clock
    _notified_at: float | None = field(default=None, init=False)

    def notify(self, *, always: bool = False) -> None:
        """Call back, unless that was done a moment ago.

        A callback that raises is logged and not called again: a broken progress
        bar must not stop invites.
        """
        if self.callback is None:
            return
        now = self.clock.monotonic()
        if not always and self._notified_at is not None and now - self._notified_at < _INTERVAL:
            return
        self._notified_at = now
        try:
            self.callback(self.snapshot())
        except Exception as error:
            self.callback = None
            extra = log_fields(error=error)
            _LOG.exception("on_progress raised, and will not be called again", extra=extra)


def instant(clock: Clock, later: timedelta) -> datetime:
    """Return the moment that is so much later than now, as far as a date can say."""
    try:
        return datetime.fromtimestamp(clock.wall(), UTC) + later
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
