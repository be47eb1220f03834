"""Reading the rows of a journal: plain SQL, on any connection to it."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve

from gather_async.bulk.kept_error import load_error
from gather_async.bulk.outcome import InviteOutcome, InviteStatus
from gather_async.bulk.row_state import Record, RowState, status_of
from gather_async.models.candidate import NewCandidate

__all__ = ["load_rows", "outcome_of", "read_outcomes", "values_of"]

_COLUMNS = (
    "row, state, external_id, own_id, candidate_id, candidate_interview_id, reused, run, error"
)
_PAGE = 500


def load_rows(
    connection: sqlite3.Connection, first: int, last: int
) -> Mapping[int, tuple[Record, bytes | None]]:
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
    record: Record,
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


def _record(values: Sequence[Any]) -> Record:
    row, state, external_id, own_id, person, invite, reused, run, error = values
    return Record(
        row=row,
        state=RowState(state),
        external_id=external_id,
        own_id=bool(own_id),
        candidate_id=person,
        candidate_interview_id=invite,
        reused=bool(reused),
        run=run,
        error=None if error is None else load_error(error),
    )


def _candidate(text: str | None, external_id: str | None) -> NewCandidate | None:
    """Return a candidate as it was written out, under the external id that the server was told."""
    if text is None:
        return None
    candidate = NewCandidate(*json.loads(text))
    return evolve(candidate, external_id=external_id)
