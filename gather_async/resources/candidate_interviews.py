"""Candidate interviews: invites and their results.

Source: /api-reference/candidate-interviews, /guides/sending-invites
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import define, field

from gather_async.errors import InviteNotDeliverableError, ResponseDecodeError
from gather_async.models.candidate import CandidateInterview, InterviewResults
from gather_async.models.enums import CandidateInterviewStatus, DeliveryType
from gather_async.pager import Pager
from gather_async.protocol.polling import PollPolicy
from gather_async.protocol.requests import Request, path_to, with_extra
from gather_async.protocol.responses import decode_item
from gather_async.resources.resource import Resource, read_after_write
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset
from gather_async.waiting import Waits

__all__ = ["CandidateInterviews", "validate_delivery"]


def validate_delivery(
    delivery_types: Sequence[DeliveryType | str] | None, *, send_invite: bool | None
) -> list[str] | None:
    """Return the JSON array of delivery types, if they and ``send_invite`` agree.

    Raises:
        InviteNotDeliverableError: They don't.

    Source: quickstart, common issues
    """
    if isinstance(delivery_types, str) or not isinstance(delivery_types, Iterable | None):
        raise InviteNotDeliverableError('delivery_types must be a list, such as ["email"].')
    if send_invite and not delivery_types:
        raise InviteNotDeliverableError(
            "send_invite=True reaches no one without delivery_types: "
            'pass ["email"], ["sms"] or both.'
        )
    if delivery_types and not send_invite and send_invite is not None:
        raise InviteNotDeliverableError(
            "delivery_types without an invite do nothing: pass send_invite=True, or leave them out."
        )
    return None if delivery_types is None else [str(word) for word in delivery_types]


@define(eq=False, slots=False)
class CandidateInterviews(Resource[CandidateInterview]):
    """Invite candidates, follow them, and read their results."""

    _waits: Waits = field(repr=False)

    async def create(
        self,
        *,
        candidate_id: str,
        interview_id: str,
        send_invite: bool | None = None,
        delivery_types: Sequence[DeliveryType | str] | None = None,
        expiry_days: int | None = None,
        external_redirect_uri: str | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> CandidateInterview:
        """Link a candidate to an interview, and send the invite if asked. Costs one request.

        A lost response is looked up by candidate and interview, and the request sent
        again only if nothing new is there, so that no one is invited twice.

        Args:
            candidate_id: Whom.
            interview_id: To what.
            send_invite: Whether the server sends the invite now; its default is undocumented.
            delivery_types: ``email``, ``sms`` or both. SMS needs a candidate with
                ``sms_opt_in``.
            expiry_days: Days until the link dies; None: the organization's setting.
            external_redirect_uri: Where the candidate lands after finishing.
            extra: Undocumented fields, merged into the body as they are; the name of
                the field for a webhook of this invite alone is one.
            timeout: Seconds for each attempt, and in all for looking up a lost response;
                UNSET takes the client's for each attempt.
            idempotent: Your word that a second invite does no harm, so that a lost
                response is tried again without looking.

        Raises:
            InviteNotDeliverableError: ``send_invite`` without a delivery type, or the
                reverse; nothing was sent.
            NotFoundError: There is no such candidate or interview.
            BadRequestError: The server refused a field, such as SMS without opt-in.
            GatherConnectionError: The connection failed; see ``maybe_processed``.
            GatherTimeoutError: A deadline passed; see ``maybe_processed``.
            GatherAPIError: The server answered with another error.
            ResponseDecodeError: The response makes no sense.
            QuotaWaitError: The quota has no room within ``max_wait``.
        """
        body = {
            "candidateId": candidate_id,
            "interviewId": interview_id,
            "sendInvite": send_invite,
            "deliveryTypes": validate_delivery(delivery_types, send_invite=send_invite),
            "expiryDays": expiry_days,
            "externalRedirectUri": external_redirect_uri,
        }
        return await self._endpoint.create(
            with_extra(body, extra),
            lookup=partial(
                self._endpoint.lookup,
                {"candidateId": candidate_id, "interviewId": interview_id},
            ),
            key=(candidate_id, interview_id),
            timeout=timeout,
            idempotent=idempotent,
        )

    async def get_or_create(
        self,
        *,
        candidate_id: str,
        interview_id: str,
        send_invite: bool | None = None,
        delivery_types: Sequence[DeliveryType | str] | None = None,
        expiry_days: int | None = None,
        external_redirect_uri: str | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> CandidateInterview:
        """Return the candidate's link to the interview, created and sent if there is none.

        Two calls make one invite. Costs one request if there is a link, in whatever
        status, two if not. Calls of one client take turns, and know what they created even
        before a list shows it; two processes at the same moment may still create two.

        Args:
            candidate_id: Whom.
            interview_id: To what.
            send_invite: As for `create`, and so are the remaining arguments; none of them
                changes a link that exists.
            delivery_types: How.
            expiry_days: Days until the link dies.
            external_redirect_uri: Where the candidate lands after finishing.
            extra: Undocumented fields.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: As for `create`.

        Raises:
            ResponseDecodeError: The list came short of what the server counts, so that a
                link may exist; nothing was sent.
            GatherError: As for `create`.
        """
        pair = {"candidateId": candidate_id, "interviewId": interview_id}
        with_extra(pair, None)  # an id that is none is refused before it is looked for
        key = (candidate_id, interview_id)
        async with self._endpoint.turn(key):
            found = await self._endpoint.get_created(key, timeout=timeout)
            if found is None:
                listed = self.list(
                    candidate_id=candidate_id, interview_id=interview_id, timeout=timeout
                )
                found = await listed.find(
                    lambda item: (item.candidate_id, item.interview_id) == key
                )
            if found is not None:
                return found
            return await self.create(
                candidate_id=candidate_id,
                interview_id=interview_id,
                send_invite=send_invite,
                delivery_types=delivery_types,
                expiry_days=expiry_days,
                external_redirect_uri=external_redirect_uri,
                extra=extra,
                timeout=timeout,
                idempotent=idempotent,
            )

    def list(
        self,
        *,
        candidate_id: str | None = None,
        interview_id: str | None = None,
        status: CandidateInterviewStatus | str | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> Pager[CandidateInterview]:
        """List candidate interviews, 100 a page.

        Args:
            candidate_id: Only this candidate's.
            interview_id: Only this interview's.
            status: Only with this status.
            timeout: Seconds for each attempt; UNSET takes the client's.
        """
        query = {"candidateId": candidate_id, "interviewId": interview_id, "status": status}
        return self._endpoint.list(query, timeout=timeout)

    async def update_status(
        self,
        id: str,
        status: CandidateInterviewStatus | str,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> CandidateInterview:
        """Change the status. Costs one request, two if the server's response has no object.

        Args:
            id: Its id.
            status: The new status; which changes are legal is undocumented.
            extra: Undocumented fields, merged into the body as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: Your word that doing it twice does no harm, so that a lost
                response is tried again.

        Raises:
            BadRequestError: The server refuses this change.
            NotFoundError: There is none with this id.
            ResponseDecodeError: It was changed, but the object couldn't be read.
            GatherError: As for `create`.
        """
        request = Request(
            method="PATCH",
            path=path_to("candidate-interviews", id, "status"),
            body=with_extra({"status": status}, extra),
            needs_body=False,
        )
        # The response's body is undocumented; it stays out of what error reporters print.
        shown = await self._endpoint.session.send(
            request, decode=partial(_shown, id), timeout=timeout, idempotent=idempotent
        )
        if shown is not None:
            return shown
        with read_after_write("the status was changed"):
            return await self.get(id, timeout=timeout)

    async def results(
        self,
        id: str,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> InterviewResults:
        """Read transcriptions, scores, ratings and the summary. Costs one request.

        Parts fill in over time: see `wait_until_summarized`.

        Args:
            id: The candidate interview's id.
            extra: Undocumented query parameters, as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.

        Raises:
            NotFoundError: There is none with this id, or no results yet.
            GatherError: As for `create`.
        """
        return await self._endpoint.get_part(
            id, "results", InterviewResults, query=extra, timeout=timeout
        )

    async def resend_invite(
        self,
        id: str,
        *,
        delivery_types: Sequence[DeliveryType | str] | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> CandidateInterview:
        """Send the invite again, for one that was not received or has expired.

        Costs two requests: the object is read again, as what the server answers and
        whether the expiry moves is undocumented.

        Args:
            id: The candidate interview's id.
            delivery_types: ``email``, ``sms`` or both.
            extra: Undocumented fields, merged into the body as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: Your word that two messages do no harm, so that a lost response
                is tried again.

        Raises:
            InviteNotDeliverableError: ``delivery_types`` is empty; nothing was sent.
            NotFoundError: There is none with this id.
            ResponseDecodeError: It was sent, but the object couldn't be read.
            GatherError: As for `create`.
        """
        types = (
            None if delivery_types is None else validate_delivery(delivery_types, send_invite=True)
        )
        request = Request(
            method="POST",
            path=path_to("candidate-interviews", id, "resend-invite"),
            body=with_extra({"deliveryTypes": types}, extra),
            needs_body=False,
        )
        await self._endpoint.session.send(request, timeout=timeout, idempotent=idempotent)
        with read_after_write("the invite was sent again"):
            return await self.get(id, timeout=timeout)

    async def wait_until_completed(
        self, id: str, *, timeout: float | None = 300.0, poll: PollPolicy | None = None
    ) -> CandidateInterview:
        """Return the candidate interview once the candidate has finished, or it was archived.

        All waits of a client share their polls, which go with bulk priority, and a
        webhook wakes them if the client has ``signals``.

        Args:
            id: The candidate interview's id.
            timeout: Seconds to wait at most; None waits as long as it takes.
            poll: When to poll; None takes the default.

        Raises:
            WaitTimeoutError: The candidate had not finished in time; has the object as last read.
            AuthenticationError: The API key is not accepted.
            NotFoundError: There is none with this id.
            ClientClosedError: The client was closed meanwhile.
        """
        return await self._waits.completion.wait(id, timeout=timeout, poll=poll)

    async def wait_until_summarized(
        self, id: str, *, timeout: float | None = 300.0, poll: PollPolicy | None = None
    ) -> InterviewResults:
        """Return the results once the server has ended its work on the summary.

        Args:
            id: The candidate interview's id.
            timeout: Seconds to wait at most; None waits as long as it takes.
            poll: When to poll; None takes the default.

        Raises:
            WaitTimeoutError: The summary was not over in time; has the results as last read.
            AuthenticationError: The API key is not accepted.
            NotFoundError: There is none with this id.
            ClientClosedError: The client was closed meanwhile.
        """
        return await self._waits.summary.wait(id, timeout=timeout, poll=poll)


def _shown(id: str, payload: Any) -> CandidateInterview | None:
    """Return the object in a response; None if it shows none, or another."""
    with suppress(ResponseDecodeError):
        shown = decode_item(payload, "candidateInterview", CandidateInterview)
        if shown.id == id:
            return shown
    return None
