"""State of a row, its next step, its outcome, and counts of rows: pure, to try every crash.

::

    seen ──────────► candidate_pending ──► candidate_created ──► invite_pending ──► invited
      │                     │                   ▲     │                │
      │  (the person is known already) ─────────┘     └► already_invited ◄┘
      └► skipped            └──────────► failed ◄──────────────────────┘

A ``pending`` state is committed before the request that it announces. A run that
finds a row in such a state doesn't know whether the request left, and so looks the
row up before sending again. `rejected` rows have no way on: they are read anew by the
next run.
"""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import StrEnum, auto

from attrs import define, evolve, field, frozen

from gather_async.errors import GatherError, InvalidRequestError
from gather_async.models.candidate import NewCandidate

__all__ = [
    "Action",
    "InviteOutcome",
    "InviteStatus",
    "JobStatistics",
    "RowRecord",
    "RowState",
    "defer",
    "next_action",
    "outcome_of",
    "place_of",
    "reopen",
    "requests_left",
    "status_of",
    "to_candidate_created",
    "to_candidate_pending",
    "to_ended",
    "to_invite_pending",
]


class RowState(StrEnum):
    """State of a row, as the journal knows it."""

    SEEN = "seen"
    CANDIDATE_PENDING = "candidate_pending"
    CANDIDATE_CREATED = "candidate_created"
    INVITE_PENDING = "invite_pending"
    INVITED = "invited"
    ALREADY_INVITED = "already_invited"
    SKIPPED = "skipped"
    REJECTED = "rejected"
    FAILED = "failed"


class Action(StrEnum):
    """The next step of a row."""

    CHECK_PERSON = auto()
    """Ask whether a person has the row's external id, before anything is sent."""
    FIND_CANDIDATE = auto()
    """Ask what became of a candidate that may have been sent."""
    CHECK_INVITE = auto()
    """Ask whether a person who was there before is invited to this interview."""
    SEND_INVITE = auto()
    FIND_INVITE = auto()
    """Ask what became of an invite that may have been sent."""
    NONE = auto()
    """The row has ended."""


_S = RowState
ENDED: AbstractSet[RowState] = frozenset(
    {_S.INVITED, _S.ALREADY_INVITED, _S.SKIPPED, _S.REJECTED, _S.FAILED}
)
_ENDS_FROM: dict[RowState, AbstractSet[RowState]] = {
    _S.INVITED: frozenset({_S.INVITE_PENDING}),
    _S.ALREADY_INVITED: frozenset({_S.CANDIDATE_CREATED, _S.INVITE_PENDING}),
    _S.SKIPPED: frozenset({_S.SEEN, _S.CANDIDATE_PENDING}),
    _S.FAILED: frozenset({_S.SEEN, _S.CANDIDATE_PENDING, _S.CANDIDATE_CREATED, _S.INVITE_PENDING}),
}
# What a row still costs if nothing goes wrong: one write for each state to come.
_REQUESTS_LEFT = {
    _S.SEEN: 2,
    _S.CANDIDATE_PENDING: 2,
    _S.CANDIDATE_CREATED: 1,
    _S.INVITE_PENDING: 1,
}


@frozen(kw_only=True)
class RowRecord:
    """Record of one row in the journal."""

    row: int
    """Where it stands in the source, from 1."""
    key: int = 0
    """What the journal knows it by, wherever it stands in the source."""
    state: RowState
    line: int | None = None
    """The line of the file that the row begins on; None if it is of no file."""
    external_id: str | None = None
    own_id: bool = False
    """Whether the external id is the row's own, so that another person may have it already."""
    candidate_id: str | None = None
    candidate_interview_id: str | None = None
    reused: bool = False
    """Whether the person was there before this run came to the row, and so may be invited."""
    changed: tuple[str, ...] = ()
    """Names of the fields that changed after the row was sent."""
    run: int = 0
    """The run that announced the last request or ended the row, when read from the journal."""
    error: GatherError | None = field(default=None, eq=False)
    """Why the row was rejected, refused, or given up for this run."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do for the row."""
        return self.state in ENDED

    @property
    def may_be_known(self) -> bool:
        """Whether the server may know of the row, so that it must not change any more."""
        if self.state is RowState.FAILED:
            return self.candidate_id is not None
        return self.state not in {RowState.SEEN, RowState.REJECTED}


def next_action(record: RowRecord) -> Action:
    """Return what to do next for a row as the journal shows it."""
    match record.state:
        case RowState.SEEN:
            return Action.CHECK_PERSON
        case RowState.CANDIDATE_PENDING:
            return Action.FIND_CANDIDATE
        case RowState.CANDIDATE_CREATED:
            return Action.CHECK_INVITE if record.reused else Action.SEND_INVITE
        case RowState.INVITE_PENDING:
            return Action.FIND_INVITE
        case _:
            return Action.NONE


def to_candidate_pending(record: RowRecord) -> RowRecord:
    """Return the record to commit before a candidate is sent."""
    _require(record, {RowState.SEEN, RowState.CANDIDATE_PENDING})
    return evolve(record, state=RowState.CANDIDATE_PENDING, error=None)


def to_candidate_created(
    record: RowRecord, candidate_id: str, *, reused: bool = False
) -> RowRecord:
    """Return the record once the server's id of the person is known.

    Args:
        record: A row that is seen (then the person was there before), or pending.
        candidate_id: The server's id.
        reused: Whether the person may be invited already.
    """
    _require(record, {RowState.SEEN, RowState.CANDIDATE_PENDING})
    return evolve(
        record,
        state=RowState.CANDIDATE_CREATED,
        candidate_id=candidate_id,
        reused=reused,
        error=None,
    )


def to_invite_pending(record: RowRecord) -> RowRecord:
    """Return the record to commit before an invite is sent."""
    _require(record, {RowState.CANDIDATE_CREATED, RowState.INVITE_PENDING})
    return evolve(record, state=RowState.INVITE_PENDING, error=None)


def to_ended(
    record: RowRecord,
    state: RowState,
    *,
    candidate_interview_id: str | None = None,
    error: GatherError | None = None,
) -> RowRecord:
    """Return the record of a row that has ended; ``error`` says why if it failed."""
    _require(record, _ENDS_FROM[state])
    return evolve(
        record,
        state=state,
        candidate_interview_id=candidate_interview_id,
        error=error,
    )


def defer(record: RowRecord, error: GatherError) -> RowRecord:
    """Return the record of a row that this run could not end; the next one goes on with it."""
    if record.has_ended:
        raise ValueError(f"Row {record.row} has ended; it can't be given up.")
    return evolve(record, error=error)


def reopen(record: RowRecord) -> RowRecord:
    """Return the record of a row that was refused, so that it is tried again."""
    _require(record, {RowState.FAILED})
    state = RowState.SEEN if record.candidate_id is None else RowState.CANDIDATE_CREATED
    return evolve(record, state=state, error=None)


class InviteStatus(StrEnum):
    """The end or the present state of a row."""

    INVITED = "invited"
    """The server made the candidate interview, and was asked to send the invite."""

    ALREADY_INVITED = "already_invited"
    """The person had a candidate interview for this interview before; nothing was sent."""

    SKIPPED = "skipped"
    """The person was known to the server, and ``on_existing="skip"`` was asked for."""

    REJECTED = "rejected"
    """The row is wrong, or repeats another one; nothing of it was sent."""

    FAILED = "failed"
    """The server refused the row, or could not be reached for it; the error says which.
    What could not be reached is tried again by the next run, what was refused is not."""

    READY = "ready"
    """Dry run: the row is good and would be sent."""

    UNFINISHED = "unfinished"
    """The job stopped before the row's end; the next run goes on with it."""


@frozen(kw_only=True)
class InviteOutcome:
    """The end of one row. Its ``repr`` shows no personal data but the external id."""

    row: int
    """The row's number in the source, from 1; a file's header line doesn't count."""
    status: InviteStatus
    line: int | None = None
    """The line of the file that the row begins on, from 1; None if it is of no file."""
    candidate: NewCandidate | None = None
    """The row as checked and normalised, with the external id that the server has.
    None if the row was rejected, or if the journal keeps no personal data
    and the outcome was read back from it."""
    candidate_id: str | None = None
    """The server's id of the person; None if there is none yet."""
    candidate_interview_id: str | None = None
    """The server's id of the invite; None if there is none."""
    external_id: str | None = None
    """The row's own external id, or the one derived from the person."""
    error: GatherError | None = field(default=None, eq=False)
    """Why the row was rejected or failed. Read back from a journal, an error keeps its
    class, message, status, code and request id, but not the server's words and body."""
    earlier: bool = False
    """Whether the row had ended before this run."""
    changed: tuple[str, ...] = ()
    """The fields that are not what they were when the row was sent, by name. The
    server keeps what was sent; ``status`` is that of what was sent."""

    @property
    def reason(self) -> str | None:
        """The error in words, safe to publish; None if there is no error."""
        return None if self.error is None else str(self.error)

    @property
    def place(self) -> str:
        """Where the row stands, in words: its number, and its line if it is of a file."""
        return place_of(self.row, self.line)


def place_of(row: int, line: int | None) -> str:
    """Return where a row stands, in words.

    >>> place_of(40, 42)
    'row 40 (line 42)'
    """
    return f"row {row}" if line is None else f"row {row} (line {line})"


def status_of(record: RowRecord) -> InviteStatus:
    """Return the status of a row in its outcome.

    A row without an end counts as failed if this run gave it up, else as unfinished.
    """
    if record.has_ended:
        return InviteStatus(record.state.value)
    return InviteStatus.UNFINISHED if record.error is None else InviteStatus.FAILED


def requests_left(record: RowRecord) -> int:
    """Return how many requests the row still costs if nothing goes wrong: 0, 1 or 2."""
    return _REQUESTS_LEFT.get(record.state, 0)


def _require(record: RowRecord, allowed: AbstractSet[RowState]) -> None:
    """Refuse a step that the drawing above doesn't show: it would be a mistake of ours."""
    if record.state not in allowed:
        raise ValueError(f"Row {record.row} is {record.state}; that step doesn't lead on from it.")


def outcome_of(
    record: RowRecord,
    candidate: NewCandidate | None,
    *,
    earlier: bool = False,
    is_dry: bool = False,
) -> InviteOutcome:
    """Return what to show the user of a row."""
    status, error = status_of(record), record.error
    if is_dry and not record.has_ended:
        status, error = InviteStatus.READY, None
    if error is None and record.changed:
        error = InvalidRequestError(
            f"The row's {' and '.join(record.changed)} changed after it was sent: the server"
            " has what was sent, and gets nothing of the change."
        )
    if candidate is not None and record.external_id is not None:
        candidate = evolve(candidate, external_id=record.external_id)
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
        changed=record.changed,
    )


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
    own_ids: int = 0
    """Rows read so far whose external id is their own."""
    own_ids_waiting: int = 0
    """Those of them whose person is still to be asked for."""
    derived_waiting: int = 0
    """The other rows whose person is still to be asked for."""

    @property
    def done(self) -> int:
        """Return how many rows have ended."""
        return self.counts.total()

    def enter(self, records: Iterable[RowRecord]) -> None:
        """Count rows as they come from the journal, before anything happens to them."""
        for record in records:
            self.read += 1
            self._requests += requests_left(record)
            self.own_ids += record.own_id
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
        return self._requests + 2 * self.unread

    def _wait(self, record: RowRecord, step: int) -> None:
        """Count a row whose person is still to be asked for in or out."""
        if record.state is RowState.SEEN:
            self.own_ids_waiting += step * record.own_id
            self.derived_waiting += step * (not record.own_id)

    @property
    def unread(self) -> int:
        """How many rows are still to be read, as far as known."""
        return 0 if self.total is None else max(0, self.total - self.read)
