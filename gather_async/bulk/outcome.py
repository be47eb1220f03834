"""How one row of a bulk invite ended."""

from enum import StrEnum

from attrs import field, frozen

from gather_async.errors import GatherError
from gather_async.models.candidate import NewCandidate

__all__ = ["InviteOutcome", "InviteStatus"]


class InviteStatus(StrEnum):
    """How a row ended, or stands."""

    INVITED = "invited"
    """The server made the candidate interview and was told to send the invite."""

    ALREADY_INVITED = "already_invited"
    """The person had a candidate interview for this interview before; nothing was sent."""

    SKIPPED = "skipped"
    """The person was known to the server, and ``on_existing="skip"`` was asked for."""

    REJECTED = "rejected"
    """The row is wrong, or repeats an earlier one; the server never heard of it."""

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
    candidate: NewCandidate | None = None
    """The row as checked and normalised, with the external id that the server was told.
    None if the row was rejected, or if the journal was told to keep no personal data
    and the outcome was read back from it."""
    candidate_id: str | None = None
    """The server's id of the person; None if there is none yet."""
    candidate_interview_id: str | None = None
    """The server's id of the invite; None if there is none."""
    external_id: str | None = None
    """The row's own external id, or the one made from the journal's id and the row."""
    error: GatherError | None = field(default=None, eq=False)
    """Why the row was rejected or failed. Read back from a journal, an error keeps its
    class, message, status, code and request id, but not the server's words and body."""
    earlier: bool = False
    """Whether the row had ended before this run."""

    @property
    def reason(self) -> str | None:
        """The error in words, safe to publish; None if there is no error."""
        return None if self.error is None else str(self.error)
