"""The end of one row of a bulk invite."""

from enum import StrEnum

from attrs import field, frozen

from gather_async.errors import GatherError
from gather_async.models.candidate import NewCandidate

__all__ = [
    "InviteOutcome",
    "InviteStatus",
    "place_of",
]


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
