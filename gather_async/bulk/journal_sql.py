"""Writing the rows of a journal: plain SQL, run on the journal's thread."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from gather_async.bulk.failures import deserialize_error, serialize_error
from gather_async.bulk.journal_schema import JournalIdentity
from gather_async.bulk.outcome import InviteOutcome, InviteStatus, place_of
from gather_async.bulk.row_state import RowRecord, RowState, reopen, status_of
from gather_async.errors import ConfigurationError, GatherError, InvalidRequestError
from gather_async.models.candidate import NewCandidate

__all__ = [
    "SourceRow",
    "finish_source",
    "load_rows",
    "outcome_of",
    "read_outcomes",
    "save",
    "upsert_rows",
    "values_of",
]

_COLUMNS = (
    "row, line, state, external_id, own_id, candidate_id, candidate_interview_id, reused, run,"
    " error"
)
_PAGE = 500


def load_rows(
    connection: sqlite3.Connection, first: int, last: int
) -> Mapping[int, tuple[RowRecord, bytes | None]]:
    """Return what is known of these rows, and each one's digest, by row number."""
    found = connection.execute(
        f"SELECT {_COLUMNS}, digest FROM rows WHERE row BETWEEN ? AND ?",  # noqa: S608 - a constant
        (first, last),
    )
    return {values[0]: (_record(values[:-1]), values[-1]) for values in found}


def read_outcomes(
    connection: sqlite3.Connection, *, run: int, is_dry: bool, after: int = 0
) -> Iterator[InviteOutcome]:
    """Yield how each row stands, by row number, a few hundred in memory at a time.

    Args:
        connection: The journal's.
        run: The run that asks; what ended in one before it is earlier.
        is_dry: Whether a row that is not done is told as ready.
        after: The row after which to begin.
    """
    query = f"SELECT {_COLUMNS}, candidate FROM rows WHERE row > ? ORDER BY row LIMIT {_PAGE}"  # noqa: S608 - constants
    while page := connection.execute(query, (after,)).fetchall():
        for *values, candidate in page:
            record = _record(values)
            yield outcome_of(
                record,
                _candidate(candidate, record.external_id),
                earlier=record.has_ended and record.run < run,
                is_dry=is_dry,
            )
        after = page[-1][0]


def outcome_of(
    record: RowRecord,
    candidate: NewCandidate | None,
    *,
    earlier: bool = False,
    is_dry: bool = False,
) -> InviteOutcome:
    """Return what to tell the user of a row."""
    status, error = status_of(record), record.error
    if is_dry and not record.has_ended:
        status, error = InviteStatus.READY, None
    return InviteOutcome(
        row=record.row,
        line=record.line,
        status=status,
        candidate=candidate,
        candidate_id=record.candidate_id,
        candidate_interview_id=record.candidate_interview_id,
        external_id=record.external_id,
        error=error,
        earlier=earlier,
    )


def values_of(candidate: NewCandidate) -> tuple[str | bool | None, ...]:
    """Return the candidate's values in the order of its fields; quicker than ``astuple``."""
    return (
        candidate.first_name,
        candidate.last_name,
        candidate.email,
        candidate.phone,
        candidate.external_id,
        candidate.timezone,
        candidate.sms_opt_in,
    )


def _record(values: Sequence[Any]) -> RowRecord:
    row, line, state, external_id, own_id, person, invite, reused, run, error = values
    return RowRecord(
        row=row,
        line=line,
        state=RowState(state),
        external_id=external_id,
        own_id=bool(own_id),
        candidate_id=person,
        candidate_interview_id=invite,
        reused=bool(reused),
        run=run,
        error=None if error is None else deserialize_error(error),
    )


def _candidate(text: str | None, external_id: str | None) -> NewCandidate | None:
    """Return a candidate as it was written out, under the external id that the server was told."""
    if text is None:
        return None
    candidate = NewCandidate(*json.loads(text))
    return evolve(candidate, external_id=external_id)


_UNKNOWN_TO_SERVER = (
    "(state IN ('seen', 'rejected') OR (state = 'failed' AND candidate_id IS NULL))"
)


@frozen
class SourceRow:
    """A row of the source after its check: a candidate, or why there is none."""

    row: int
    checked: NewCandidate | GatherError
    line: int | None = None
    """The line of the file that it begins on; None if it is of no file."""


def upsert_rows(
    connection: sqlite3.Connection, identity: JournalIdentity, entries: Sequence[SourceRow]
) -> list[RowRecord]:
    """Take consecutive rows of the source into the journal, and return where each stands.

    A row that the server may know of is returned as it stands. Any other is
    entered, anew if an earlier run rejected it, or as a duplicate if another row
    has its email address or its external id.

    Raises:
        ConfigurationError: A row that the server may know of has changed.
    """
    known = load_rows(connection, entries[0].row, entries[-1].row)
    return [_upsert_row(connection, identity, entry, known.get(entry.row)) for entry in entries]


def save(connection: sqlite3.Connection, identity: JournalIdentity, record: RowRecord) -> None:
    """Write where a row stands."""
    connection.execute(
        "UPDATE rows SET state = ?, candidate_id = ?, candidate_interview_id = ?, reused = ?,"
        " error = ?, run = ? WHERE row = ?",
        (
            record.state,
            record.candidate_id,
            record.candidate_interview_id,
            record.reused,
            None if record.error is None else serialize_error(record.error),
            identity.run,
            record.row,
        ),
    )


def finish_source(connection: sqlite3.Connection, last_row: int) -> None:
    """Forget the rows of a longer source of old.

    Raises:
        ConfigurationError: The server may know of one of them.
    """
    beyond = connection.execute(
        f"SELECT min(row) FROM rows WHERE row > ? AND NOT {_UNKNOWN_TO_SERVER}",  # noqa: S608 - a constant
        (last_row,),
    ).fetchone()[0]
    if beyond is not None:
        raise ConfigurationError(
            f"The source ends with row {last_row}, but the journal has begun row {beyond}: run"
            " it with the rows it was begun with."
        )
    connection.execute("DELETE FROM rows WHERE row > ?", (last_row,))


def _upsert_row(
    connection: sqlite3.Connection,
    identity: JournalIdentity,
    entry: SourceRow,
    known: tuple[RowRecord, bytes | None] | None,
) -> RowRecord:
    digest = None
    if isinstance(entry.checked, NewCandidate):
        digest = identity.digest(*values_of(entry.checked))
    if known is not None:
        record, old_digest = known
        if record.may_be_known and digest != old_digest:
            raise _changed(entry)
        if record.state is RowState.FAILED and identity.retry_failed and digest == old_digest:
            record = reopen(record)
            save(connection, identity, record)
        if digest is not None and digest == old_digest and record.state is not RowState.REJECTED:
            if record.line != entry.line:
                connection.execute(
                    "UPDATE rows SET line = ? WHERE row = ?", (entry.line, entry.row)
                )
            return evolve(record, line=entry.line)
        connection.execute("DELETE FROM rows WHERE row = ?", (entry.row,))
    if isinstance(entry.checked, GatherError):
        return _reject(connection, identity, entry, entry.checked)
    return _enter(connection, identity, entry, entry.checked, digest)


def _enter(
    connection: sqlite3.Connection,
    identity: JournalIdentity,
    entry: SourceRow,
    candidate: NewCandidate,
    digest: bytes | None,
) -> RowRecord:
    """Write a good row, or reject it if another row is the same person."""
    own_id = candidate.external_id is not None
    record = RowRecord(
        row=entry.row,
        line=entry.line,
        state=RowState.SEEN,
        external_id=candidate.external_id if own_id else identity.external_id(entry.row),
        own_id=own_id,
    )
    email_key = identity.digest("email", candidate.email.casefold())
    id_key = identity.digest("id", candidate.external_id) if own_id else None
    written = connection.execute(
        "INSERT INTO rows (row, line, state, digest, email_key, id_key, external_id, own_id,"
        " candidate, run) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            entry.row,
            entry.line,
            record.state,
            digest,
            email_key,
            id_key,
            record.external_id,
            own_id,
            _written(candidate) if identity.keeps_candidates else None,
            identity.run,
        ),
    )
    if written.rowcount:
        return record
    return _reject(connection, identity, entry, _duplicate(connection, email_key, id_key))


def _reject(
    connection: sqlite3.Connection, identity: JournalIdentity, entry: SourceRow, error: GatherError
) -> RowRecord:
    connection.execute(
        "INSERT INTO rows (row, line, state, error, run) VALUES (?, ?, ?, ?, ?)",
        (entry.row, entry.line, RowState.REJECTED, serialize_error(error), identity.run),
    )
    return RowRecord(row=entry.row, line=entry.line, state=RowState.REJECTED, error=error)


def _duplicate(
    connection: sqlite3.Connection, email_key: bytes, id_key: bytes | None
) -> GatherError:
    """Return the error that names the row that was there first."""
    query = "SELECT row, line FROM rows WHERE {} = ?"
    for what, column, key in (
        ("external id", "id_key", id_key),
        ("email address", "email_key", email_key),
    ):
        owner = connection.execute(query.format(column), (key,)).fetchone()
        if owner is not None:
            return InvalidRequestError(f"The row repeats the {what} of {place_of(*owner)}.")
    raise AssertionError("a row was refused without a duplicate")


def _changed(entry: SourceRow) -> ConfigurationError:
    why = ""
    if isinstance(entry.checked, GatherError):
        why = f" It would be rejected now: {entry.checked}"
    return ConfigurationError(
        f"{place_of(entry.row, entry.line).capitalize()} of the source has changed since the"
        " journal began it, and the server"
        f" may know of it: restore the row, or begin a new journal.{why}"
    )


def _written(candidate: NewCandidate) -> str:
    """Return the candidate as JSON, in the order of its fields."""
    return json.dumps(values_of(candidate), ensure_ascii=False, separators=(",", ":"))
