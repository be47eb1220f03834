"""Teams. Source: /api-reference/teams."""

from collections.abc import Mapping, Sequence
from typing import Any, overload

from attrs import define, field

from gather_async.endpoint import Endpoint
from gather_async.errors import InvalidRequestError
from gather_async.models.organization import NewTeam, Team
from gather_async.pager import Pager
from gather_async.resources.batches import create_batch
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset
from gather_async.validators import make

__all__ = ["Teams"]


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
        created = await create_batch(
            self._endpoint,
            new,
            model=NewTeam,
            body=_body,
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


def _body(new: NewTeam) -> dict[str, Any]:
    return {
        "name": new.name,
        "displayName": new.display_name,
        "description": new.description,
        "userIds": new.user_ids,
    }
