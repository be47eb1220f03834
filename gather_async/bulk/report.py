"""Plan, progress and report of a job; the outcomes are read back from its journal when asked."""

import csv
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from os import PathLike
from pathlib import Path
from weakref import finalize

from attrs import define, field, frozen

from gather_async.bulk.candidate_file import FileDescription
from gather_async.bulk.existing import LookupStrategy
from gather_async.bulk.journal import Connect, Journal, connect_to
from gather_async.bulk.journal_sql import COLUMNS, record_of
from gather_async.bulk.row_state import InviteOutcome, InviteStatus, outcome_of
from gather_async.clock import Clock
from gather_async.errors import GatherError
from gather_async.models.candidate import NewCandidate
from gather_async.storage.files import replacing

__all__ = [
    "InvitePlan",
    "InviteProgress",
    "InviteReport",
    "Outcomes",
    "StopReason",
    "copy_file",
    "instant",
    "private_copy",
    "read_outcomes",
]


async def private_copy(journal: Journal) -> Connect:
    """Return what gives a copy of the journal that lasts as long as it can be asked for.

    The copy has no name: SQLite keeps what doesn't fit its cache in a temporary
    file that is removed as soon as it is opened.
    """
    connection = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    keeper = _Keeper(connection)
    finalize(keeper, connection.close)
    await journal.copy_to(connection)
    return keeper.connect


def copy_file(source: Path, target: Path) -> bool:
    """Copy a journal's file, which a job may be writing; return whether there is one."""
    if not source.exists():
        return False
    with connect_to(source)() as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    return True


@define(eq=False)
class _Keeper:
    """Owns a connection, which is closed when the keeper is forgotten."""

    _connection: sqlite3.Connection

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        yield self._connection


_PAGE = 500


def read_outcomes(
    connection: sqlite3.Connection, *, run: int, is_dry: bool, after: int = 0
) -> Iterator[InviteOutcome]:
    """Yield how each row stands, by row number, a few hundred in memory at a time.

    Args:
        connection: The journal's.
        run: The run that asks: its rows, and those of later ones; what ended before it
            is earlier.
        is_dry: Whether a row that is not done counts as ready.
        after: The row after which to begin.
    """
    query = (
        f"SELECT {COLUMNS}, candidate FROM rows WHERE row > ? AND seen >= ?"  # noqa: S608 - constants
        f" ORDER BY row LIMIT {_PAGE}"
    )
    while page := connection.execute(query, (after, run)).fetchall():
        for *values, candidate in page:
            record = record_of(values)
            yield outcome_of(
                record,
                _candidate(candidate),
                earlier=record.has_ended and record.run < run,
                is_dry=is_dry,
            )
        after = page[-1][1]


def _candidate(text: str | None) -> NewCandidate | None:
    """Return a candidate as it was written out."""
    if text is not None:
        with suppress(GatherError):  # an older version may have let pass what this one doesn't
            return NewCandidate(*json.loads(text))
    return None


_HEADER = (
    "row",
    "line",
    "status",
    "external_id",
    "candidate_id",
    "candidate_interview_id",
    "error",
    "reason",
)


class StopReason(StrEnum):
    """The reason why a job ended before its last row."""

    ASKED = "asked"
    """`BulkInvite.stop` was called."""
    BREAKER = "breaker"
    """Too many failures in a row."""
    LEASE_LOST = "lease_lost"
    """Another machine may run the job by now."""


@frozen(eq=False)
class Outcomes:
    """The outcome of each row, by row number: read from the journal each time it is iterated.

    Only a few hundred are in memory at a time. A later run with the same journal
    shows here too. Iterating reads from the disk, and so blocks for moments.
    """

    _connect: Connect = field(repr=False)
    _run: int
    _is_dry: bool
    _length: int

    def __len__(self) -> int:
        """Return how many rows had been read when the job ended."""
        return self._length

    def __iter__(self) -> Iterator[InviteOutcome]:
        """Yield the outcomes.

        Raises:
            sqlite3.Error: The journal's file is gone or damaged.
        """
        with self._connect() as connection:
            yield from read_outcomes(connection, run=self._run, is_dry=self._is_dry)


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


def instant(clock: Clock, later: timedelta) -> datetime:
    """Return the moment that is so much later than now, as far as a date can say."""
    try:
        return datetime.fromtimestamp(clock.wall(), UTC) + later
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


@frozen(kw_only=True)
class InviteReport:
    """The result of a bulk invite, earlier runs with the same journal included."""

    counts: Mapping[InviteStatus, int]
    """Rows by how they ended."""
    total: int
    """Rows read from the source."""
    outcomes: Outcomes = field(repr=False)
    """Each row's, read back when iterated."""
    requests: int
    """Requests this run has sent, look-ups and retries included."""
    plan: InvitePlan | None = None
    """Dry run: what the job would cost. None otherwise."""
    stopped: StopReason | None = None
    """Why the job ended before its last row; None if it did not."""
    error: GatherError | None = field(default=None, eq=False)
    """The last failure before the breaker stopped the job."""

    @property
    def invited(self) -> int:
        """Rows whose invite was sent."""
        return self.counts.get(InviteStatus.INVITED, 0)

    @property
    def already_invited(self) -> int:
        """Rows whose person had been invited to this interview by other means."""
        return self.counts.get(InviteStatus.ALREADY_INVITED, 0)

    @property
    def skipped(self) -> int:
        """Rows whose person was known, under ``on_existing="skip"``."""
        return self.counts.get(InviteStatus.SKIPPED, 0)

    @property
    def rejected(self) -> int:
        """Rows that are wrong or repeated, and never reached the server."""
        return self.counts.get(InviteStatus.REJECTED, 0)

    @property
    def failed(self) -> int:
        """Rows that the server refused, or that it could not be reached for."""
        return self.counts.get(InviteStatus.FAILED, 0)

    @property
    def ready(self) -> int:
        """Dry run: rows that are good and not done yet."""
        return self.counts.get(InviteStatus.READY, 0)

    @property
    def unfinished(self) -> int:
        """Rows read and not ended when the job stopped."""
        return self.total - sum(self.counts.values())

    @property
    def failures(self) -> Iterator[InviteOutcome]:
        """Yield the rows that were rejected or failed, or changed after they were sent.

        Each has its error.
        """
        bad = {InviteStatus.REJECTED, InviteStatus.FAILED}
        return (each for each in self.outcomes if each.status in bad or each.changed)

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write a CSV file with a header and one line for each row of the source.

        It holds ids and reasons, and no name, address or number: join it to the
        source by its column ``row`` or ``line``. Blocks while it writes; a file that is there
        is replaced once the new one is whole.

        Args:
            path: Where to; UTF-8, lines ended as RFC 4180 has them.

        Raises:
            OSError: The file can't be written.
            sqlite3.Error: The journal's file is gone or damaged.
        """
        with replacing(Path(path)) as file:
            lines = csv.writer(file)
            lines.writerow(_HEADER)
            lines.writerows(map(_line, self.outcomes))


def _line(outcome: InviteOutcome) -> tuple[object, ...]:
    error = "" if outcome.error is None else type(outcome.error).__name__
    return (
        outcome.row,
        outcome.line,
        outcome.status.value,
        outcome.external_id,
        outcome.candidate_id,
        outcome.candidate_interview_id,
        error,
        outcome.reason,
    )
