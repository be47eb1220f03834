"""The organization and what it shares: teams, users, narrators and message groups.

Teams and users are created several at once, where the API's response is undocumented.

Source: /api-reference/teams, /api-reference/users, /api-reference/narrators,
/api-reference/message-groups
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, overload

from attrs import define, field

from gather_async.endpoint import Endpoint, Identified
from gather_async.errors import InvalidRequestError, ResponseDecodeError
from gather_async.models.organization import (
    MessageGroup,
    Narrator,
    NewTeam,
    NewUser,
    Team,
    User,
)
from gather_async.pager import Pager
from gather_async.phone import PhonePolicy, to_e164
from gather_async.protocol.requests import Private, Request, path_to, with_extra
from gather_async.protocol.responses import decode_item, decode_items
from gather_async.resources.resource import Resource, read_after_write
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset
from gather_async.validators import make

__all__ = ["MessageGroups", "Narrators", "Teams", "Users"]

T = TypeVar("T", bound=Identified)
New = TypeVar("New")


@define(eq=False, slots=False)
class Narrators(Resource[Narrator]):
    """Read narrators and their voices."""


@define(eq=False, slots=False)
class MessageGroups(Resource[MessageGroup]):
    """Read message groups; only single reads show their messages."""


@define(eq=False, slots=False)
class Teams:
    """Create and list teams."""

    _endpoint: Endpoint[Team] = field(repr=False)

    @overload
    async def create(
        self,
        teams: Sequence[NewTeam],
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> tuple[Team, ...]: ...

    @overload
    async def create(
        self,
        teams: None = None,
        *,
        name: str,
        display_name: str | None = None,
        description: str | None = None,
        user_ids: Sequence[str] | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> Team: ...

    async def create(
        self,
        teams: Sequence[NewTeam] | None = None,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
        **fields: Any,
    ) -> Team | tuple[Team, ...]:
        """Create one team from its fields, or several from `NewTeam` objects.

        Costs one request, two if the server's response doesn't show the teams. A team
        can't be looked up, so a lost response raises with ``maybe_processed=True``.

        Args:
            teams: Several teams; keep batches small, as their limit is undocumented.
            extra: Undocumented fields, merged into the body as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: Your word that creating them twice does no harm, so that a
                lost response is tried again.
            **fields: The one team's ``name``, and maybe ``display_name``,
                ``description`` and ``user_ids``, as for `NewTeam`.

        Returns:
            The team, or the teams in the order given.

        Raises:
            InvalidRequestError: There is no team to create, both were passed, or a field is
                unknown, missing or of the wrong type; nothing was sent.
            BadRequestError: The server refused a field.
            ResponseDecodeError: The server doesn't show what it created.
            GatherError: The request failed.
        """
        if teams is not None and fields:
            raise InvalidRequestError("Pass teams or the fields of one, not both.")
        new = make(lambda: [NewTeam(**fields)] if teams is None else [*teams])
        created = await _create_batch(
            self._endpoint,
            new,
            model=NewTeam,
            body=_team_body,
            key="name",
            extra=extra,
            timeout=timeout,
            idempotent=idempotent,
        )
        return created[0] if teams is None else created

    def list(self, *, user_id: str | None = None, timeout: Timeout | Unset = UNSET) -> Pager[Team]:
        """List the organization's teams, in one page: no paging is documented.

        Args:
            user_id: Only teams that this user belongs to.
            timeout: Seconds for each attempt; UNSET takes the client's.
        """
        return self._endpoint.list({"userId": user_id}, timeout=timeout)


def _team_body(new: NewTeam) -> dict[str, Any]:
    return {
        "name": new.name,
        "displayName": new.display_name,
        "description": new.description,
        "userIds": new.user_ids,
    }


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
        created = await _create_batch(
            self._endpoint,
            new,
            model=NewUser,
            body=_user_body,
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


def _user_body(new: NewUser) -> dict[str, Any]:
    return {
        "firstName": new.first_name,
        "lastName": new.last_name,
        "email": new.email,
        "phone": new.phone,
        "teamIds": new.team_ids,
        "createAuth0Account": new.create_auth0_account,
    }


async def _create_batch(
    endpoint: Endpoint[T],
    new: Sequence[New],
    *,
    model: type[New],
    body: Callable[[New], Mapping[str, Any]],
    key: str,
    extra: Mapping[str, Any] | None,
    timeout: Timeout | Unset,
    idempotent: bool,
) -> tuple[T, ...]:
    """Create objects in one request and return them in the order given.

    The server's response is documented nowhere. Where it doesn't hold the objects,
    they are looked for in the list, by ``key``, at the cost of one request more.

    Args:
        endpoint: The collection.
        new: What to create, as models.
        model: Their class.
        body: Returns one of them as the wire has it; entries that are None are not sent.
        key: The attribute by which a created object is recognised.
        extra: Undocumented fields of the request's body.
        timeout: Seconds for each attempt.
        idempotent: The caller's word that creating them twice does no harm.

    Raises:
        InvalidRequestError: There is nothing to create.
        ResponseDecodeError: Neither the response nor the list shows all of them, or the
            list couldn't be read.
    """
    if not new:
        raise InvalidRequestError(f"There are no {endpoint.plural} to create.")
    if not all(isinstance(item, model) for item in new):
        raise InvalidRequestError(f"Each of the {endpoint.plural} must be a {model.__name__}.")
    request = Request(
        method="POST",
        path=path_to(endpoint.path),
        body=with_extra({endpoint.plural: [with_extra(body(item), None) for item in new]}, extra),
        needs_body=False,
    )
    shown = await endpoint.session.send(
        request,
        decode=partial(_from_response, endpoint),
        timeout=timeout,
        idempotent=idempotent,
    )
    if len(shown) != len(new):
        with read_after_write(f"the {endpoint.plural} were created"):
            shown = tuple([item async for item in endpoint.list(timeout=timeout)])
    return _in_order(new, shown, key, endpoint.plural)


def _from_response(endpoint: Endpoint[T], payload: Any) -> tuple[T, ...]:
    """Return the objects in the response, whatever its form; none if it has none."""
    try:
        return decode_items(payload, endpoint.plural, endpoint.model)
    except ResponseDecodeError:
        pass
    try:
        return (decode_item(payload, endpoint.singular, endpoint.model),)
    except ResponseDecodeError:
        return ()


def _in_order(new: Sequence[Any], shown: Sequence[T], key: str, plural: str) -> tuple[T, ...]:
    """Match what was created with what was asked for; of namesakes, the last one listed."""
    by_key = {getattr(item, key): item for item in shown}
    try:
        return tuple(by_key[getattr(item, key)] for item in new)
    except KeyError:
        raise ResponseDecodeError(
            f"The server said that the {plural} were created, but doesn't show all of them: "
            f"list {plural} before you create them again.",
            body="",
            path=f"$.data.{plural}",
            maybe_processed=True,
        ) from None
