"""Methods that a user calls: one class for each resource of the API."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from gather_async import endpoint
from gather_async.pager import Page, Pager
from gather_async.resources.candidate_interviews import CandidateInterviews
from gather_async.resources.candidates import Candidates
from gather_async.resources.interviews import Interviews
from gather_async.resources.questions import Questions
from gather_async.resources.resource import Resource
from gather_async.session import Session

if TYPE_CHECKING:
    from gather_async.resources.organization import MessageGroups, Narrators, Teams, Users

__all__ = [
    "CandidateInterviews",
    "Candidates",
    "Interviews",
    "MessageGroups",
    "Narrators",
    "Page",
    "Pager",
    "Questions",
    "Resource",
    "Resources",
    "Teams",
    "Users",
]

if not TYPE_CHECKING:  # a checker that saw `__getattr__` would accept any name

    def __getattr__(name: str) -> object:
        """Return a class of the organization's module, which is imported now (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from gather_async.resources import organization  # noqa: PLC0415 - as `models` does

        value = globals()[name] = getattr(organization, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


class _OfOrganization:
    """Attribute of a client whose class is imported, and the object made, when first used."""

    def __init__(self, kind: str, make_endpoint: Callable[[Session], Any], *options: str) -> None:
        self._kind = kind
        self._make_endpoint = make_endpoint
        self._options = options

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, client: Any, _: type) -> object:
        from gather_async.resources import organization  # noqa: PLC0415 - as `models` does

        kind = getattr(organization, self._kind)
        if client is None:
            return kind
        endpoint = self._make_endpoint(client._session)  # noqa: SLF001 - as is this attribute
        options = [getattr(client, name) for name in self._options]
        made = vars(client)[self._name] = kind(endpoint, *options)
        return made


class Resources:
    """All resources of the API, as attributes of a client, which makes them."""

    # On the class, the class of each resource: a mock made from this one finds their methods.
    questions: Questions = cast("Any", Questions)
    interviews: Interviews = cast("Any", Interviews)
    candidates: Candidates = cast("Any", Candidates)
    candidate_interviews: CandidateInterviews = cast("Any", CandidateInterviews)
    narrators: "Narrators" = cast("Any", _OfOrganization("Narrators", endpoint.narrators_endpoint))
    message_groups: "MessageGroups" = cast(
        "Any", _OfOrganization("MessageGroups", endpoint.message_groups_endpoint)
    )
    teams: "Teams" = cast("Any", _OfOrganization("Teams", endpoint.teams_endpoint))
    users: "Users" = cast(
        "Any",
        _OfOrganization("Users", endpoint.users_endpoint, "phone_policy", "default_region"),
    )
