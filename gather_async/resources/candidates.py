"""Candidates. Source: /api-reference/candidates."""

from collections.abc import Mapping
from functools import partial
from typing import Any, overload

from attrs import define, evolve

from gather_async.errors import BadRequestError, ConflictError, InvalidRequestError
from gather_async.models.candidate import Candidate, NewCandidate
from gather_async.pager import Pager
from gather_async.phone import PhonePolicy, to_e164
from gather_async.protocol.requests import Private, validate_id, with_extra
from gather_async.resources.resource import Resource
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset
from gather_async.validators import make

__all__ = ["Candidates"]


@define(eq=False, slots=False)
class Candidates(Resource[Candidate]):
    """Create, find and read candidates."""

    _phone_policy: PhonePolicy = PhonePolicy.E164
    _default_region: str | None = None

    @overload
    async def create(
        self,
        candidate: NewCandidate,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> Candidate: ...

    @overload
    async def create(
        self,
        candidate: None = None,
        *,
        first_name: str,
        last_name: str,
        email: str,
        phone: str,
        external_id: str | None = None,
        timezone: str | None = None,
        sms_opt_in: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> Candidate: ...

    async def create(
        self,
        candidate: NewCandidate | None = None,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
        **fields: Any,
    ) -> Candidate:
        """Create a candidate, from its fields or from a `NewCandidate`. Costs one request.

        With an ``external_id``, a lost response is looked up, and the request sent
        again only if no such candidate is there. Without one, it raises with
        ``maybe_processed=True``.

        Args:
            candidate: The candidate, instead of the fields.
            extra: Undocumented fields, merged into the body as they are.
            timeout: Seconds for each attempt, and in all for looking up a lost response;
                UNSET takes the client's for each attempt.
            idempotent: Your word that creating them twice does no harm, so that a
                lost response is tried again without looking.
            **fields: ``first_name``, ``last_name``, ``email`` and ``phone``, and maybe
                ``external_id``, ``timezone`` and ``sms_opt_in``, as for `NewCandidate`.
                The phone number may be in any form that the client's
                ``phone_policy`` and ``default_region`` allow.

        Raises:
            InvalidRequestError: Both were passed, or a field is unknown, missing or of the
                wrong type; nothing was sent.
            InvalidPhoneNumberError: The phone number is refused; nothing was sent.
            InvalidEmailError: The email address is refused; nothing was sent.
            ConflictError: The server knows this candidate already.
            BadRequestError: The server refused a field.
            GatherConnectionError: The connection failed; see ``maybe_processed``.
            GatherTimeoutError: A deadline passed; see ``maybe_processed``.
            GatherAPIError: The server answered with another error.
            ResponseDecodeError: The response makes no sense.
            QuotaWaitError: The quota has no room within ``max_wait``.
        """
        given = Private(fields)
        del fields  # error reporters print the locals of frames
        new = self._validated(candidate, given)
        sent = with_extra(_body(new), None)
        wanted = {"externalId": new.external_id}
        return await self._endpoint.create(
            with_extra(sent, extra) if extra else sent,
            lookup=partial(self._endpoint.lookup, wanted, sent=sent) if new.external_id else None,
            key=new.external_id,
            timeout=timeout,
            idempotent=idempotent,
        )

    def list(
        self,
        *,
        external_id: str | None = None,
        archived: bool | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> Pager[Candidate]:
        """List candidates, 100 a page.

        Args:
            external_id: Only those with this reference.
            archived: Whether archived ones are listed too; the server's default is False.
            timeout: Seconds for each attempt; UNSET takes the client's.
        """
        query = {"externalId": external_id, "archived": archived}
        return self._endpoint.list(query, timeout=timeout)

    async def find_by_external_id(
        self, external_id: str, *, timeout: Timeout | Unset = UNSET
    ) -> Candidate | None:
        """Return the candidate with your reference, or None. Costs one request.

        A server that ignores the filter is read to its last page.

        Raises:
            InvalidRequestError: The reference is empty or no text; nothing was sent.
            ResponseDecodeError: They weren't listed, but neither was everything that the
                server counts, so that they may exist.
            GatherError: As for `get`.
        """
        if not isinstance(external_id, str) or not external_id.strip():
            # Nothing that is listed would equal it: everyone would seem absent.
            raise InvalidRequestError("external_id must be text that isn't empty.")
        wanted = Private(externalId=external_id)
        del external_id  # it may be an address, and error reporters print the locals of frames
        pager = self._endpoint.list(wanted, timeout=timeout)
        return await pager.find(lambda person: person.external_id == wanted["externalId"])

    @overload
    async def get_or_create(
        self,
        candidate: NewCandidate,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> Candidate: ...

    @overload
    async def get_or_create(
        self,
        candidate: None = None,
        *,
        first_name: str,
        last_name: str,
        email: str,
        phone: str,
        external_id: str,
        timezone: str | None = None,
        sms_opt_in: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> Candidate: ...

    async def get_or_create(
        self,
        candidate: NewCandidate | None = None,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
        **fields: Any,
    ) -> Candidate:
        """Return the candidate with this ``external_id``, created if need be.

        Costs one request if they exist, two if not. What the server answers to a
        duplicate is undocumented: 409, or a 400, is looked up once more. Calls of one
        client take turns, and know what they created even before a list shows it; two
        processes at the same moment may still create two.

        Args:
            candidate: The candidate, instead of the fields of `create`.
            extra: Undocumented fields, merged into the body as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: As for `create`.
            **fields: As for `create`; ``external_id`` is required.

        Raises:
            InvalidRequestError: There is no ``external_id`` to look for; nothing was sent.
            GatherError: As for `create`.
        """
        given = Private(fields)
        del fields
        new = self._validated(candidate, given)
        external_id = new.external_id
        if not external_id:
            raise InvalidRequestError("get_or_create looks for an external_id: pass one.")
        validate_id("external_id", external_id)
        async with self._endpoint.turn(external_id):
            found = await self._endpoint.get_created(external_id, timeout=timeout)
            found = found or await self.find_by_external_id(external_id, timeout=timeout)
            if found is not None:
                return found
            try:
                return await self.create(new, extra=extra, timeout=timeout, idempotent=idempotent)
            except (ConflictError, BadRequestError):
                found = await self.find_by_external_id(external_id, timeout=timeout)
                if found is None:
                    raise
                return found

    def _validated(self, candidate: NewCandidate | None, fields: Private) -> NewCandidate:
        """Return the candidate with its phone as the client's policy has it."""
        return make(lambda: self._new(candidate, fields))

    def _new(self, candidate: NewCandidate | None, fields: Private) -> NewCandidate:
        if candidate is None:
            if fields.get("phone") is not None:
                fields = Private(fields, phone=self._e164(fields["phone"]))
            return NewCandidate(**fields)
        if fields or not isinstance(candidate, NewCandidate):
            raise InvalidRequestError("Pass a NewCandidate or its fields, not both.")
        phone = self._e164(candidate.phone)
        return candidate if phone == candidate.phone else evolve(candidate, phone=phone)

    def _e164(self, phone: str) -> str:
        if self._phone_policy is PhonePolicy.E164 and self._default_region is None:
            return phone  # `NewCandidate` checks just that by itself
        return to_e164(phone, self._default_region, self._phone_policy)


def _body(new: NewCandidate) -> dict[str, Any]:
    return {
        "firstName": new.first_name,
        "lastName": new.last_name,
        "email": new.email,
        "phone": new.phone,
        "externalId": new.external_id,
        "timezone": new.timezone,
        "smsOptIn": new.sms_opt_in,
    }
