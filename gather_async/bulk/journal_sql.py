"""Writing the rows of a journal: plain SQL, run on the journal's thread."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from gather_async.bulk.journal_schema import JournalIdentity, changed_fields, values_of
from gather_async.bulk.requests import deserialize_error, serialize_error
from gather_async.bulk.row_check import FIELDS
from gather_async.bulk.row_state import RowRecord, RowState, place_of, reopen
from gather_async.errors import GatherError, InvalidRequestError
from gather_async.models.candidate import NewCandidate

__all__ = [
    "COLUMNS",
    "SourceRow",
    "count_invited",
    "finish_source",
    "record_of",
    "save",
    "upsert_rows",
]

COLUMNS = (
    "key, row, line, state, external_id, own_id, candidate_id, candidate_interview_id, reused,"
    " changed, run, error"
)


def record_of(values: Sequence[Any]) -> RowRecord:
    """Return the record of which `COLUMNS` were read."""
    key, row, line, state, external_id, own_id, person, invite, reused, changed, run, error = values
    return RowRecord(
        key=key,
        row=row,
        line=line,
        state=RowState(state),
        external_id=external_id,
        own_id=bool(own_id),
        candidate_id=person,
        candidate_interview_id=invite,
        reused=bool(reused),
        changed=tuple(changed.split()),
        run=run,
        error=None if error is None else deserialize_error(error),
    )


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


@frozen
class _Keys:
    """Digests of what identifies a row's person; each kind has digests of its own."""

    email: bytes
    id: bytes | None
    """Of the row's own external id."""
    person: bytes

    @classmethod
    def of(cls, identity: JournalIdentity, candidate: NewCandidate) -> "_Keys":
        own_id = candidate.external_id
        return cls(
            email=identity.digest("email", candidate.email.casefold()),
            id=None if own_id is None else identity.digest("id", own_id),
            person=identity.person_key(candidate.first_name, candidate.last_name, candidate.phone),
        )


@frozen(kw_only=True)
class _Known:
    """A row that the journal has."""

    record: RowRecord
    seen: int
    """The run that last read it from its source."""
    digest: bytes
    invitation: bytes | None
    keys: tuple[bytes | None, ...]


def save(connection: sqlite3.Connection, identity: JournalIdentity, record: RowRecord) -> None:
    """Write where a row stands.

    The run is the one that announced the row's last request: a row that is deferred
    keeps it, since the request's time goes on.
    """
    is_deferred = record.error is not None and not record.has_ended
    connection.execute(
        "UPDATE rows SET state = ?, candidate_id = ?, candidate_interview_id = ?, reused = ?,"
        " invitation = ?, error = ?, run = CASE WHEN ? THEN run ELSE ? END WHERE key = ?",
        (
            record.state,
            record.candidate_id,
            record.candidate_interview_id,
            record.reused,
            identity.invitation if record.state is RowState.FAILED else None,
            None if record.error is None else serialize_error(record.error),
            is_deferred,
            identity.run,
            record.key,
        ),
    )


def count_invited(connection: sqlite3.Connection) -> int:
    """Return how many invites of the server are surely those of this journal's rows."""
    counted = connection.execute(
        "SELECT count(*) FROM rows WHERE state IN ('invited', 'already_invited')"
    )
    return int(counted.fetchone()[0])


def finish_source(connection: sqlite3.Connection, identity: JournalIdentity) -> None:
    """Forget rows that are no longer in the source and that the server doesn't know.

    What the server may know stays, should it come back into the source.
    """
    connection.execute(
        f"DELETE FROM rows WHERE seen < ? AND {_UNKNOWN_TO_SERVER}",  # noqa: S608 - a constant
        (identity.run,),
    )


def upsert_rows(
    connection: sqlite3.Connection, identity: JournalIdentity, entries: Sequence[SourceRow]
) -> list[RowRecord]:
    """Take consecutive rows of the source into the journal, and return where each stands.

    A row is found again by who the person is, wherever it stands: by its own external
    id, its email address, or name and phone together. What the server may know keeps
    its state, and is marked with the fields that changed. Any other row is entered, anew
    if it was rejected, or as a duplicate if another row has its address or external id.
    """
    return _Upsert(connection, identity, entries).run()


class _Upsert:
    """One chunk of the source on its way into the journal."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        identity: JournalIdentity,
        entries: Sequence[SourceRow],
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._entries = entries
        self._keys = [
            _Keys.of(identity, entry.checked) if isinstance(entry.checked, NewCandidate) else None
            for entry in entries
        ]
        self._known: dict[bytes, _Known] = {}
        """By email address and by own external id."""
        self._persons: dict[bytes, list[_Known]] = {}
        """Rows of earlier runs that the server may know, by name and phone."""

    def run(self) -> list[RowRecord]:
        """Return where each row stands."""
        self._load()
        # A rejected row has nothing to be found again by.
        self._connection.execute(
            "DELETE FROM rows WHERE state = 'rejected' AND seen < ? AND row BETWEEN ? AND ?",
            (self._identity.run, self._entries[0].row, self._entries[-1].row),
        )
        return [
            self._upsert(entry, keys) for entry, keys in zip(self._entries, self._keys, strict=True)
        ]

    def _load(self) -> None:
        """Read the rows that any of the chunk's keys belongs to."""
        keys = [key for key in self._keys if key is not None]
        wanted = {
            "email_key": [key.email for key in keys],
            "id_key": [key.id for key in keys if key.id is not None],
            "person_key": [key.person for key in keys] if self._identity.has_earlier_rows else [],
        }
        for column, values in wanted.items():
            marks = ", ".join("?" * len(values))
            for found in self._connection.execute(
                f"SELECT {COLUMNS}, seen, digest, invitation, email_key, id_key, person_key"  # noqa: S608 - constants
                f" FROM rows WHERE {column} IN ({marks})",
                values,
            ):
                *record, seen, digest, invitation, email, own_id, person = found
                self._add(
                    _Known(
                        record=record_of(record),
                        seen=seen,
                        digest=digest,
                        invitation=invitation,
                        keys=(email, own_id, person),
                    )
                )

    def _add(self, known: _Known) -> None:
        email, own_id, person = known.keys
        for key in (email, own_id):
            if key is not None:
                self._known[key] = known
        if person is not None and known.record.may_be_known and known.seen < self._identity.run:
            of_person = self._persons.setdefault(person, [])
            if all(other.record.key != known.record.key for other in of_person):
                of_person.append(known)

    def _upsert(self, entry: SourceRow, keys: _Keys | None) -> RowRecord:
        candidate = entry.checked
        if keys is None or not isinstance(candidate, NewCandidate):
            assert isinstance(candidate, GatherError)  # noqa: S101 - a row is one or the other
            return self._reject(entry, candidate)
        known = self._find(keys)
        duplicate = self._duplicate(keys, known)
        if duplicate is not None:
            return self._reject(entry, duplicate)
        digest = self._identity.field_digests(values_of(candidate))
        if known is None:
            return self._enter(entry, candidate, keys, digest)
        return self._claim(entry, candidate, keys, digest, known)

    def _duplicate(self, keys: _Keys, known: _Known | None) -> GatherError | None:
        """Return why the row can't be taken beside the others; make room if they can wait."""
        for key, what in ((keys.id, "external id"), (keys.email, "email address")):
            other = None if key is None else self._known.get(key)
            if other is None:
                continue
            if other.seen == self._identity.run:
                place = place_of(other.record.row, other.record.line)
                return InvalidRequestError(f"The row repeats the {what} of {place}.")
            if known is not None and known.record.key == other.record.key:
                continue
            if not other.record.may_be_known:
                self._forget(other)
            elif known is None or not known.record.may_be_known:
                return InvalidRequestError(
                    f"The row has the {what} of another row, which was sent before."
                )
        return None

    def _find(self, keys: _Keys) -> _Known | None:
        """Return the row that is the same person."""
        by_id = None if keys.id is None else self._known.get(keys.id)
        found = by_id or self._known.get(keys.email)
        if found is not None:
            return found
        for known in self._persons.get(keys.person, ()):
            has_other_id = keys.id is not None and known.record.own_id
            if known.seen < self._identity.run and not has_other_id:
                return known
        return None

    def _claim(
        self,
        entry: SourceRow,
        candidate: NewCandidate,
        keys: _Keys,
        digest: bytes,
        known: _Known,
    ) -> RowRecord:
        """Take a row that is there already, where it stands in the source now."""
        record = evolve(known.record, row=entry.row, line=entry.line)
        changed = self._changed(known, candidate, digest)
        is_open = record.state is RowState.FAILED and self._is_open(known)
        # Version 1 derived external ids from the journal, which another one can't find again.
        is_old = record.state is RowState.SEEN and record.external_id != self._external_id(
            candidate
        )
        if not record.may_be_known and (changed or is_open or is_old):
            self._forget(known)
            return self._enter(entry, candidate, keys, digest)
        record = evolve(record, changed=changed)
        if is_open:
            record = reopen(record)
            save(self._connection, self._identity, record)
        self._connection.execute(
            "UPDATE rows SET row = ?, line = ?, seen = ?, changed = ? WHERE key = ?",
            (entry.row, entry.line, self._identity.run, " ".join(changed), record.key),
        )
        self._claimed(known, record)
        return record

    def _changed(self, known: _Known, candidate: NewCandidate, digest: bytes) -> tuple[str, ...]:
        """Return the names of the fields whose values aren't those that the journal had."""
        if len(known.digest) == len(digest):
            return changed_fields(known.digest, digest, FIELDS)
        # Version 1 had one digest for all fields.
        is_same = known.digest == self._identity.digest(*values_of(candidate))
        return () if is_same else ("values",)

    def _external_id(self, candidate: NewCandidate) -> str:
        return candidate.external_id or self._identity.external_id(candidate)

    def _is_open(self, known: _Known) -> bool:
        """Return whether a refused row is tried again: it is asked for, or something else is sent.

        What version 1 refused is not: it kept nothing to compare with.
        """
        refused = known.invitation
        is_other = refused is not None and refused != self._identity.invitation
        return self._identity.retry_failed or is_other

    def _claimed(self, known: _Known, record: RowRecord) -> None:
        """Note that a row of this run has the journal's row."""
        claimed = evolve(known, record=record, seen=self._identity.run)
        email, own_id, person = known.keys
        for key in (email, own_id):
            if key is not None:
                self._known[key] = claimed
        if person is not None:
            others = self._persons.get(person, [])
            self._persons[person] = [each for each in others if each.record.key != record.key]

    def _forget(self, known: _Known) -> None:
        self._connection.execute("DELETE FROM rows WHERE key = ?", (known.record.key,))
        for key in known.keys:
            if key is not None:
                self._known.pop(key, None)

    def _enter(
        self, entry: SourceRow, candidate: NewCandidate, keys: _Keys, digest: bytes
    ) -> RowRecord:
        """Write a good row that the server doesn't know."""
        identity = self._identity
        own_id = candidate.external_id
        record = RowRecord(
            row=entry.row,
            line=entry.line,
            state=RowState.SEEN,
            external_id=self._external_id(candidate),
            own_id=own_id is not None,
        )
        values = {
            "row": entry.row,
            "line": entry.line,
            "seen": identity.run,
            "state": record.state,
            "digest": digest,
            "email_key": keys.email,
            "id_key": keys.id,
            "person_key": keys.person,
            "external_id": record.external_id,
            "own_id": record.own_id,
            "candidate": _written(candidate) if identity.keeps_candidates else None,
            "run": identity.run,
        }
        record = evolve(record, key=self._insert(values))
        self._add(
            _Known(
                record=record,
                seen=identity.run,
                digest=digest,
                invitation=None,
                keys=(keys.email, keys.id, keys.person),
            )
        )
        return record

    def _reject(self, entry: SourceRow, error: GatherError) -> RowRecord:
        record = RowRecord(row=entry.row, line=entry.line, state=RowState.REJECTED, error=error)
        values = {
            "row": entry.row,
            "line": entry.line,
            "seen": self._identity.run,
            "state": record.state,
            "error": serialize_error(error),
            "run": self._identity.run,
        }
        return evolve(record, key=self._insert(values))

    def _insert(self, values: Mapping[str, Any]) -> int:
        marks = ", ".join("?" * len(values))
        written = self._connection.execute(
            f"INSERT INTO rows ({', '.join(values)}) VALUES ({marks})",  # noqa: S608 - constants
            tuple(values.values()),
        )
        return int(written.lastrowid or 0)


def _written(candidate: NewCandidate) -> str:
    """Return the candidate as JSON, in the order of its fields."""
    return json.dumps(values_of(candidate), ensure_ascii=False, separators=(",", ":"))
