"""One row, taken from where the journal shows it to its end."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen
from attrs.validators import optional

from gather_async.bulk.existing import ExistingIndex, ExistingRecord
from gather_async.bulk.journal import Journal
from gather_async.bulk.requests import (
    InterviewNotFound,
    is_rejection,
    may_be_processed,
    names_interview,
    suggests_duplicate,
)
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
from gather_async.errors import (
    ConfigurationError,
    GatherError,
    InvalidRequestError,
    InviteNotDeliverableError,
    NotFoundError,
)
from gather_async.models.candidate import CandidateInterview, NewCandidate
from gather_async.models.enums import DeliveryType
from gather_async.resources import CandidateInterviews, Candidates
from gather_async.validators import Choice, Number

__all__ = ["InviteOptions", "RowContext", "RowTask"]

T = TypeVar("T")
# The part of the time after which most of what is carried out is listed: the first of two
# look-ups for a lost request. `benchmarks.bulk` has what they cost.
_FIRST_LOOK = 0.1


def _text(_: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigurationError(f"{attribute.name} must be text that isn't empty.")


_DELIVERY = frozenset(map(str, DeliveryType))


def _delivery(types: Iterable[str]) -> tuple[str, ...]:
    if isinstance(types, str) or not isinstance(types, Iterable):
        raise ConfigurationError('delivery_types must be a list, such as ["email"].')
    words = tuple(str(word) for word in types)
    if not words:
        raise InviteNotDeliverableError(
            'An invite must go somewhere: delivery_types needs "email" or "sms".'
        )
    if not _DELIVERY.issuperset(words):
        # The server would refuse each row's invite, after its candidate was created.
        raise InviteNotDeliverableError('delivery_types takes "email" and "sms", in small letters.')
    return words


@frozen(kw_only=True)
class InviteOptions:
    """The invitation that every row of a job gets."""

    interview_id: str = field(validator=_text)
    delivery_types: tuple[str, ...] = field(converter=_delivery)
    expiry_days: int | None = field(validator=optional(Number(least=1, whole=True)))
    external_redirect_uri: str | None = field(validator=optional(_text))
    on_existing: str = field(validator=Choice(("reuse", "skip", "error")))
    in_flight_timeout: float = field(validator=Number(least=0, unit="seconds"))
    """Seconds, after it was given up, in which a lost request may still be carried out."""

    @property
    def terms(self) -> tuple[object, ...]:
        """What the server may refuse a row for, or this job by its rule for existing people."""
        types = tuple(sorted(self.delivery_types))
        return types, self.expiry_days, self.external_redirect_uri, self.on_existing

    @property
    def needs_opt_in(self) -> bool:
        """Whether only people who agreed to text messages can be invited.

        Source: /guides/sending-invites
        """
        return "sms" in self.delivery_types


@frozen(kw_only=True)
class RowContext:
    """Dependencies of row tasks; the same for all rows of a job."""

    invitation: InviteOptions
    journal: Journal
    candidates: Candidates
    candidate_interviews: CandidateInterviews
    people: ExistingIndex
    invited: ExistingIndex
    monotonic: Callable[[], float]
    in_flight_until: Mapping[int, float]
    """Until when, by `monotonic`, requests of an earlier run may still be carried out, by
    run; a run that isn't there has none."""
    is_stopping: Callable[[], bool]
    requests_sent: Callable[[], int]
    """How many requests the running task has sent so far, or is sending."""
    on_change: Callable[[RowRecord, RowRecord], None]
    """Called with the old and the new record of a row, once the new one is committed."""


@define(eq=False)
class RowTask:
    """One row on its way. `advance` may be called again after it raised or was postponed."""

    _context: RowContext
    record: RowRecord
    candidate: NewCandidate
    is_saving: bool = False
    """Whether the row's state is being written, which should not be cut short."""
    resume_at: float | None = None
    """When to go on, by `RowContext.monotonic`, with a row whose request may be in flight;
    None if nothing is to be waited for."""
    refusal: GatherError | None = None
    """What the server refused the row with, if this run ended it so."""
    failures: int = 0
    """Failures in a row at the step that the row has come to."""
    _is_new: bool = field(default=False, init=False)
    _is_resumed: bool = field(init=False)
    _is_looked_early: bool = field(default=False, init=False)
    """Whether what may be in flight was looked for early, or will be."""
    _is_late: bool = field(default=False, init=False)
    """Whether the server has refused a duplicate that its list didn't show."""
    _in_flight_until: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        # What an earlier run came to may be an old copy of the journal: another job may
        # have invited the person since.
        self._is_resumed = self.record.state is not RowState.SEEN
        if self.record.state is RowState.CANDIDATE_CREATED:
            self.record = evolve(self.record, reused=True)
        self._in_flight_until = self._context.in_flight_until.get(self.record.run, -math.inf)

    async def advance(self) -> None:
        """Take the row to its end, until it has to be resumed later, or until the job stops.

        Raises:
            InterviewNotFound: The server doesn't know the interview.
            GatherError: A step failed in a way that may pass; the record shows where, and
                ``resume_at`` when to look for what the request may have made.
        """
        steps: dict[Action, Callable[[], Awaitable[None]]] = {
            Action.CHECK_PERSON: self._check_person,
            Action.FIND_CANDIDATE: self._find_candidate,
            Action.CHECK_INVITE: self._check_invite,
            Action.SEND_INVITE: self._send_invite,
            Action.FIND_INVITE: self._find_invite,
        }
        self.resume_at = None
        while self._goes_on:
            await steps[next_action(self.record)]()

    @property
    def _goes_on(self) -> bool:
        return (
            not self.record.has_ended and self.resume_at is None and not self._context.is_stopping()
        )

    async def save(self, record: RowRecord) -> None:
        """Commit where the row stands now."""
        self.is_saving = True
        try:
            await self._context.journal.save(record)
        finally:
            self.is_saving = False
        before, self.record = self.record, record
        if before.state is not record.state:
            self.failures = 0
        self._context.on_change(before, record)

    async def _has_invite(self, invite_id: str, state: RowState = RowState.INVITED) -> None:
        """End the row with the person's invite."""
        await self.save(to_ended(self.record, state, candidate_interview_id=invite_id))

    async def _check_person(self) -> None:
        key, is_derived = _known(self.record.external_id), not self.record.own_id
        found = await self._context.people.find(key, is_derived=is_derived)
        if found is not None:
            await self._apply_on_existing(found)
        elif self._goes_on:
            await self._create_candidate()

    async def _apply_on_existing(self, found: ExistingRecord) -> None:
        """Go on with a person who was there before the row.

        A derived external id is this job's own, whichever journal it was kept in: the
        caller's rule is for people who came to be by other means.
        """
        rule = self._context.invitation.on_existing if self.record.own_id else "reuse"
        met = evolve(self.record, candidate_id=found.id)
        if rule == "skip":
            await self.save(to_ended(met, RowState.SKIPPED))
        elif rule == "error":
            problem = "A person has this external id already, and existing people aren't invited."
            await self.save(to_ended(met, RowState.FAILED, error=InvalidRequestError(problem)))
        elif self._context.invitation.needs_opt_in and found.opted_in is False:
            problem = "The server's record of this person has no agreement to text messages."
            await self.save(
                to_ended(met, RowState.FAILED, error=InviteNotDeliverableError(problem))
            )
        else:
            await self.save(to_candidate_created(self.record, found.id, reused=True))

    async def _announce(self, pending: RowRecord, before: RowRecord) -> bool:
        """Commit that a request is about to be sent; take it back if the job has stopped.

        A request that was announced is looked for by the next run, after all the time in
        which it may still arrive.
        """
        await self.save(pending)
        if self._context.is_stopping():
            await self.save(before)
            return False
        return True

    async def _write(self, request: Awaitable[T], before: RowRecord) -> T:
        """Send what was announced; take that back if the job stops before anything is sent."""
        sent = self._context.requests_sent()
        try:
            return await request
        except asyncio.CancelledError:
            # It waited for the quota. The next run would look for it until its time is over.
            if self._context.is_stopping() and self._context.requests_sent() == sent:
                await self.save(before)
            raise

    async def _create_candidate(self) -> None:
        context, before = self._context, self.record
        if not await self._announce(to_candidate_pending(before), before):
            return
        candidate = evolve(self.candidate, external_id=_known(self.record.external_id))
        try:
            created = await self._write(context.candidates.create(candidate), before)
        except GatherError as error:
            if not is_rejection(error):
                self._postpone(error)
                raise
            await self._candidate_refused(error)
            return
        self._is_new = True
        known = to_candidate_created(self.record, created.id)
        if context.is_stopping():
            await self.save(known)
        else:
            # One commit for both: the person is known, and the invite announced.
            await self._send_invite(known)

    async def _candidate_refused(self, error: GatherError) -> None:
        """End the row, unless the server means that it has the person already."""
        found = None
        if suggests_duplicate(error):
            found = await self._context.people.look(_known(self.record.external_id))
        if found is not None:
            await self._take_found(found, is_ours=not self.record.own_id)
        elif not self._is_listed_late(error):
            self.refusal = error
            await self.save(to_ended(self.record, RowState.FAILED, error=error))

    async def _find_candidate(self) -> None:
        found = await self._find_after_in_flight(self._context.people, self.record.external_id)
        if found is not None:
            await self._take_found(found, is_ours=self._is_same_person(found))
        elif self._goes_on:
            await self._create_candidate()

    async def _take_found(self, found: ExistingRecord, *, is_ours: bool) -> None:
        """Go on with a person whom an earlier request made, or another client did."""
        if is_ours:
            await self.save(to_candidate_created(self.record, found.id, reused=self._is_resumed))
        else:
            await self._apply_on_existing(found)

    def _is_same_person(self, found: ExistingRecord) -> bool:
        """Return whether nothing shows that another one has the row's own external id."""
        email = self.candidate.email
        return found.email is None or found.email.casefold() == email.casefold()

    async def _check_invite(self) -> None:
        found = await self._context.invited.find(_known(self.record.candidate_id))
        if found is not None:
            await self._has_invite(found.id, RowState.ALREADY_INVITED)
        elif self._goes_on:
            await self._send_invite()

    async def _send_invite(self, record: RowRecord | None = None) -> None:
        context, invitation = self._context, self._context.invitation
        before = record or self.record
        if not await self._announce(to_invite_pending(before), before):
            return
        try:
            request = context.candidate_interviews.create(
                candidate_id=_known(self.record.candidate_id),
                interview_id=invitation.interview_id,
                send_invite=True,
                delivery_types=invitation.delivery_types,
                expiry_days=invitation.expiry_days,
                external_redirect_uri=invitation.external_redirect_uri,
            )
            invite: CandidateInterview = await self._write(request, before)
        except GatherError as error:
            if not is_rejection(error):
                self._postpone(error)
                raise
            await self._invite_refused(error)
            return
        await self._has_invite(invite.id)

    async def _invite_refused(self, error: GatherError) -> None:
        """End the row, or the job if it is the interview that the server doesn't know."""
        if isinstance(error, NotFoundError) and names_interview(
            error, self._context.invitation.interview_id, is_new=self._is_new
        ):
            raise InterviewNotFound(error)
        found = None
        if suggests_duplicate(error):
            found = await self._context.invited.look(_known(self.record.candidate_id))
        if found is not None:
            await self._has_invite(found.id, RowState.ALREADY_INVITED)
        elif not self._is_listed_late(error):
            self.refusal = error
            await self.save(to_ended(self.record, RowState.FAILED, error=error))

    def _is_listed_late(self, error: GatherError) -> bool:
        """Return whether what is refused may be what an earlier request of the row made.

        Then the list shows it late, and the row is to be resumed once it has to.
        """
        if not suggests_duplicate(error) or self._in_flight_until == -math.inf or self._is_late:
            return False
        self._is_late = True
        self._await_in_flight()
        return True

    async def _find_invite(self) -> None:
        found = await self._find_after_in_flight(self._context.invited, self.record.candidate_id)
        if found is not None:
            await self._has_invite(found.id)
        elif self._goes_on:
            await self._send_invite()

    def _postpone(self, error: GatherError) -> None:
        """Note how long the request that failed may still be carried out, if it may."""
        if may_be_processed(error):
            self._await_in_flight()

    def _await_in_flight(self) -> None:
        now = self._context.monotonic()
        self._in_flight_until = now + self._context.invitation.in_flight_timeout
        self._look_early(now)

    def _look_early(self, now: float) -> None:
        """Let the row be looked up once before the end of the time."""
        early = now + _FIRST_LOOK * self._context.invitation.in_flight_timeout
        self.resume_at = min(early, self._in_flight_until)
        self._is_looked_early = True

    async def _find_after_in_flight(
        self, index: ExistingIndex, key: str | None
    ) -> ExistingRecord | None:
        """Look once; absence counts only if the look began when nothing was in flight.

        Until then the row is to be resumed later.
        """
        began = self._context.monotonic()
        found = await index.look(_known(key))
        if found is None and began < self._in_flight_until:
            if self._is_looked_early:
                self.resume_at = self._in_flight_until
            else:
                self._look_early(began)  # an earlier run's request may be on its way still
        return found


def _known(value: str | None) -> str:
    """Return an id that the state of the row vouches for."""
    if value is None:
        raise AssertionError("the row's state promises an id")
    return value
