"""Users. Source: /api-reference/users."""

from collections.abc import Mapping, Sequence
from typing import Any, overload

from attrs import define, field

from gather_async.endpoint import Endpoint
from gather_async.errors import InvalidRequestError
from gather_async.models.organization import NewUser, User
from gather_async.pager import Pager
from gather_async.phone import PhonePolicy, to_e164
from gather_async.protocol.requests import Private
from gather_async.resources.batches import create_batch
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset
from gather_async.validators import make

__all__ = ["Users"]


@define(eq=False, slots=False)
class Users:
    """Create and list users."""

    _endpoint: Endpoint[User] = field(repr=False)
    _phone_policy: PhonePolicy = PhonePolicy.E164
    _default_region: str | None = None

    @overload
    async def create(
        self,
        users: Sequence[NewUser],
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> tuple[User, ...]: ...

    @overload
    async def create(
        self,
        users: None = None,
        *,
        first_name: str,
        last_name: str,
        email: str,
        team_ids: Sequence[str],
        phone: str | None = None,
        create_auth0_account: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> User: ...

    async def create(
        self,
        users: Sequence[NewUser] | None = None,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
        **fields: Any,
    ) -> User | tuple[User, ...]:
        """Create one user from its fields, or several from `NewUser` objects.

        Costs one request, two if the server's response doesn't show the users. A
        lost response raises with ``maybe_processed=True``.

        Args:
            users: Several users; keep batches small, as their limit is undocumented.
            extra: Undocumented fields, merged into the body as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: Your word that creating them twice does no harm, so that a
                lost response is tried again.
            **fields: The one user's ``first_name``, ``last_name``, ``email`` and
                ``team_ids``, and maybe ``phone`` and ``create_auth0_account``, as for
                `NewUser`. The phone number may be in any form that the client's
                ``phone_policy`` and ``default_region`` allow.

        Returns:
            The user, or the users in the order given.

        Raises:
            InvalidRequestError: There is no user to create, both were passed, or a field is
                unknown, missing or of the wrong type; nothing was sent.
            InvalidPhoneNumberError: The phone number is refused; nothing was sent.
            InvalidEmailError: The email address is refused; nothing was sent.
            BadRequestError: The server refused a field, such as a foreign team.
            ResponseDecodeError: The server doesn't show what it created.
            GatherError: The request failed.
        """
        given = Private(fields)
        del fields  # error reporters print the locals of frames
        if users is not None and given:
            raise InvalidRequestError("Pass users or the fields of one, not both.")
        new = make(lambda: [self._new(given)] if users is None else [*users])
        created = await create_batch(
            self._endpoint,
            new,
            model=NewUser,
            body=_body,
            key="email",
            extra=extra,
            timeout=timeout,
            idempotent=idempotent,
        )
        return created[0] if users is None else created

    def list(
        self,
        *,
        team_id: str | None = None,
        include_teams: bool | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> Pager[User]:
        """List the organization's users, in one page: no paging is documented.

        Args:
            team_id: Only this team's.
            include_teams: Whether team details come along; the server's default is True.
            timeout: Seconds for each attempt; UNSET takes the client's.
        """
        query = {"teamId": team_id, "includeTeams": include_teams}
        return self._endpoint.list(query, timeout=timeout)

    def _new(self, fields: Private) -> NewUser:
        if fields.get("phone") is not None:
            phone = to_e164(fields["phone"], self._default_region, self._phone_policy)
            fields = Private(fields, phone=phone)
        return NewUser(**fields)


def _body(new: NewUser) -> dict[str, Any]:
    return {
        "firstName": new.first_name,
        "lastName": new.last_name,
        "email": new.email,
        "phone": new.phone,
        "teamIds": new.team_ids,
        "createAuth0Account": new.create_auth0_account,
    }
