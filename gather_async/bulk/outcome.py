"""How one row of a bulk invite ended."""

from datetime import datetime, timedelta
from enum import StrEnum

from attrs import field, frozen

from gather_async.bulk.candidate_file import FileDescription
from gather_async.errors import GatherError
from gather_async.models.candidate import NewCandidate

__all__ = [
    "InviteOutcome",
    "InvitePlan",
    "InviteStatus",
    "KeysLeft",
    "LookupCosts",
    "LookupStrategy",
    "choose_strategy",
    "place_of",
]


class LookupStrategy(StrEnum):
    """How people who are there already are found."""

    NONE = "none"
    """No person of the source can be there: the server has none yet, or those who are
    invited to the interview are all in the journal."""
    UNDECIDED = "undecided"
    """It depends on the length of the server's list, which isn't known yet."""
    EACH = "each"
    """One request for each row."""
    LIST = "list"
    """The server's list, read once in pages of 100."""


@frozen
class KeysLeft:
    """How many keys are still to come, as far as known."""

    own: int | None
    """Those that others may have given too; None if unknown."""
    derived: int | None
    """Those that only such a job makes; None if unknown."""

    @property
    def total(self) -> int | None:
        """All of them; None if unknown."""
        return None if self.own is None or self.derived is None else self.own + self.derived


@frozen(kw_only=True)
class LookupCosts:
    """What is known when choosing."""

    looked: int
    """Single look-ups made so far."""
    to_look: int | None
    """Single look-ups still to come; None if unknown."""
    pages_left: int | None
    """Pages of the list still to read; None if the server doesn't say how many."""


def choose_strategy(costs: LookupCosts) -> LookupStrategy:
    """Return the cheaper way from here on.

    With the number of rows unknown, look-ups go on until they have cost as
    much as the rest of the list would; so the sum is never above twice the best.
    """
    if costs.pages_left is None:
        return LookupStrategy.EACH
    if costs.to_look is not None:
        return LookupStrategy.LIST if costs.pages_left < costs.to_look else LookupStrategy.EACH
    return LookupStrategy.LIST if costs.looked >= costs.pages_left else LookupStrategy.EACH


@frozen(kw_only=True)
class InvitePlan:
    """What is still to be sent, as far as known when asked."""

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


class InviteStatus(StrEnum):
    """How a row ended, or stands."""

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
    """How one row ended. Its ``repr`` shows no personal data but the external id."""

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
