"""One row, taken from where the journal shows it to its end."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from attrs import define, evolve, field, frozen

from gather_async.bulk.existing import ExistingIndex, ExistingRecord
from gather_async.bulk.failures import (
    InterviewNotFound,
    is_rejection,
    names_interview,
    suggests_duplicate,
)
from gather_async.bulk.journal import Journal
from gather_async.bulk.row_check import with_external_id
from gather_async.bulk.row_state import (
    Action,
    RowRecord,
    RowState,
    next_action,
    to_candidate_created,
    to_candidate_pending,
    to_ended,
    to_invite_pending,
)
from gather_async.bulk.settings import InviteOptions
from gather_async.errors import (
    GatherError,
    InvalidRequestError,
    InviteNotDeliverableError,
    NotFoundError,
)
from gather_async.models.candidate import NewCandidate
from gather_async.models.candidate_interview import CandidateInterview
from gather_async.resources import CandidateInterviews, Candidates

__all__ = ["Pause", "RowContext", "RowTask"]


class Pause(Protocol):
    """Waits, unless the job stops."""

    async def __call__(self, seconds: float) -> None:
        """Return after that many seconds, or as soon as the job stops."""


@frozen(kw_only=True)
class RowContext:
    """What taking rows to their end needs; the same for all rows of a job."""

    invitation: InviteOptions
    journal: Journal
    candidates: Candidates
    candidate_interviews: CandidateInterviews
    people: ExistingIndex
    invited: ExistingIndex
    now: Callable[[], float]
    """Unix seconds."""
    settled_at: Mapping[int, float]
    """Unix seconds after which no request of an earlier run can arrive any more, by run;
    a run that isn't there is long settled."""
    pause: Pause
    is_stopping: Callable[[], bool]
    on_change: Callable[[RowRecord, RowRecord], None]
    """Told of the old and the new record of a row, once the new one is committed."""


@define(eq=False)
class RowTask:
    """Where one row stands. `advance` may be called again after it raised."""

    _errand: RowContext
    record: RowRecord
    candidate: NewCandidate
    is_saving: bool = False
    """Whether the row's state is being written, which should not be cut short."""
    _is_new: bool = field(default=False, init=False)
    _settled_at: float = field(default=0.0, init=False)

    async def advance(self) -> None:
        """Take the row to its end, or until the job stops.

        Raises:
            InterviewMissing: The server doesn't know the interview.
            GatherError: A step failed in a way that may pass; the record shows where.
        """
        steps: dict[Action, Callable[[], Awaitable[None]]] = {
            Action.CHECK_PERSON: self._check_person,
            Action.CREATE_CANDIDATE: self._create_candidate,
            Action.FIND_CANDIDATE: self._find_candidate,
            Action.CHECK_INVITE: self._check_invite,
            Action.SEND_INVITE: self._send_invite,
            Action.FIND_INVITE: self._find_invite,
        }
        while not self.record.has_ended and not self._errand.is_stopping():
            await steps[next_action(self.record)]()

    async def save(self, record: RowRecord) -> None:
        """Commit where the row stands now."""
        self.is_saving = True
        try:
            await self._errand.journal.save(record)
        finally:
            self.is_saving = False
        before, self.record = self.record, record
        self._errand.on_change(before, record)

    async def _check_person(self) -> None:
        found = await self._errand.people.find(_known(self.record.external_id))
        if found is None:
            await self._create_candidate()
        else:
            await self._meet(found)

    async def _meet(self, found: ExistingRecord) -> None:
        """Go on with a person who was there before the row."""
        rule = self._errand.invitation.on_existing
        met = evolve(self.record, candidate_id=found.id)
        if rule == "skip":
            await self.save(to_ended(met, RowState.SKIPPED))
        elif rule == "error":
            problem = "Somebody has this external id already, and existing people aren't invited."
            await self.save(to_ended(met, RowState.FAILED, error=InvalidRequestError(problem)))
        elif self._errand.invitation.needs_opt_in and found.opted_in is False:
            problem = "The server's record of this person has no agreement to text messages."
            await self.save(
                to_ended(met, RowState.FAILED, error=InviteNotDeliverableError(problem))
            )
        else:
            await self.save(to_candidate_created(self.record, found.id, reused=True))

    async def _create_candidate(self) -> None:
        errand = self._errand
        await self.save(to_candidate_pending(self.record))
        candidate = with_external_id(self.candidate, _known(self.record.external_id))
        try:
            created = await errand.candidates.create(candidate)
        except GatherError as error:
            if not is_rejection(error):
                self._settled_at = errand.now() + errand.invitation.in_flight_timeout
                raise
            await self._candidate_refused(error)
            return
        self._is_new = True
        known = to_candidate_created(self.record, created.id)
        if errand.is_stopping():
            await self.save(known)
        else:
            # One commit for both: the person is known, and the invite announced.
            await self._send_invite(known)

    async def _candidate_refused(self, error: GatherError) -> None:
        """End the row, unless the server means that it has the person already."""
        found = None
        if suggests_duplicate(error):
            found = await self._errand.people.look(_known(self.record.external_id))
        if found is None:
            await self.save(to_ended(self.record, RowState.FAILED, error=error))
        elif self.record.own_id:
            await self._meet(found)
        else:
            # Only this row can have the id: an earlier request of ours came late.
            await self.save(to_candidate_created(self.record, found.id))

    async def _find_candidate(self) -> None:
        async def look() -> ExistingRecord | None:
            return await self._errand.people.look(_known(self.record.external_id))

        found = await self._settled(look)
        if found is not None:
            await self.save(to_candidate_created(self.record, found.id))
        elif not self._errand.is_stopping():
            await self._create_candidate()

    async def _check_invite(self) -> None:
        found = await self._errand.invited.find(_known(self.record.candidate_id))
        if found is None:
            await self._send_invite()
        else:
            await self.save(
                to_ended(self.record, RowState.ALREADY_INVITED, candidate_interview_id=found.id)
            )

    async def _send_invite(self, record: RowRecord | None = None) -> None:
        errand, invitation = self._errand, self._errand.invitation
        await self.save(to_invite_pending(record or self.record))
        try:
            invite: CandidateInterview = await errand.candidate_interviews.create(
                candidate_id=_known(self.record.candidate_id),
                interview_id=invitation.interview_id,
                send_invite=True,
                delivery_types=invitation.delivery_types,
                expiry_days=invitation.expiry_days,
                external_redirect_uri=invitation.external_redirect_uri,
            )
        except GatherError as error:
            if not is_rejection(error):
                self._settled_at = errand.now() + invitation.in_flight_timeout
                raise
            await self._invite_refused(error)
            return
        await self.save(to_ended(self.record, RowState.INVITED, candidate_interview_id=invite.id))

    async def _invite_refused(self, error: GatherError) -> None:
        """End the row, or the job if it is the interview that the server doesn't know."""
        if isinstance(error, NotFoundError) and names_interview(
            error, self._errand.invitation.interview_id, is_new=self._is_new
        ):
            raise InterviewNotFound(error)
        found = None
        if suggests_duplicate(error):
            found = await self._errand.invited.look(_known(self.record.candidate_id))
        if found is None:
            await self.save(to_ended(self.record, RowState.FAILED, error=error))
        else:
            await self.save(
                to_ended(self.record, RowState.ALREADY_INVITED, candidate_interview_id=found.id)
            )

    async def _find_invite(self) -> None:
        async def look() -> ExistingRecord | None:
            return await self._errand.invited.look(_known(self.record.candidate_id))

        found = await self._settled(look)
        if found is not None:
            await self.save(
                to_ended(self.record, RowState.INVITED, candidate_interview_id=found.id)
            )
        elif not self._errand.is_stopping():
            await self._send_invite()

    async def _settled(
        self, look: Callable[[], Awaitable[ExistingRecord | None]]
    ) -> ExistingRecord | None:
        """Look; and look again if the request may have been too young to be seen.

        A request that left just before a crash may reach the server after the
        restart: absence counts only once its time is over.
        """
        errand = self._errand
        settled_at = max(self._settled_at, errand.settled_at.get(self.record.run, 0.0))
        early = settled_at - errand.now()
        found = await look()
        if found is not None or early <= 0.0:
            return found
        # A clock that was set back meanwhile must not make it wait any longer.
        await errand.pause(min(errand.invitation.in_flight_timeout, early))
        return None if errand.is_stopping() else await look()


def _known(value: str | None) -> str:
    """Return an id that the state of the row vouches for."""
    if value is None:
        raise AssertionError("the row's state promises an id")
    return value
