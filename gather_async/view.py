"""One view of a client: its resources, and what it knows, under one set of options."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from attrs import define, field

from gather_async.clock import Clock
from gather_async.errors import InvalidRequestError
from gather_async.models.rate_limit import RateLimitStatus
from gather_async.phone import PhonePolicy
from gather_async.protocol.requests import Request, raw_path
from gather_async.quota.limiter import Limiter
from gather_async.resources import (
    CandidateInterviews,
    Candidates,
    Interviews,
    Questions,
    Teams,
    Users,
    message_group_catalog,
    narrator_catalog,
)
from gather_async.session import Session
from gather_async.settings import Defaults
from gather_async.transport import Timeout, Transport
from gather_async.unset import UNSET, Unset
from gather_async.waiting import Waits

__all__ = ["Shared", "View"]


@define(eq=False, kw_only=True)
class Shared:
    """What all views of a client have in common."""

    transport: Transport
    limiter: Limiter
    clock: Clock
    base_url: str
    waits: Waits = field(init=False)


class View:
    """The resources of the API under one set of options."""

    def _show(self, shared: Shared, session: Session, defaults: Defaults) -> None:
        """Make this object the view of one session."""
        self._shared = shared
        self._session = session
        self._defaults = defaults
        policy, region = defaults.phone_policy, defaults.default_region

        def waits() -> Waits:
            return shared.waits

        self.questions = Questions(session, waits, defaults.user_id)
        self.interviews = Interviews(session)
        self.candidates = Candidates(session, policy, region)
        self.candidate_interviews = CandidateInterviews(session, waits)
        self.narrators = narrator_catalog(session)
        self.message_groups = message_group_catalog(session)
        self.teams = Teams(session)
        self.users = Users(session, policy, region)

    @property
    def limiter(self) -> Limiter:
        """Who decides when a request may go."""
        return self._shared.limiter

    @property
    def clock(self) -> Clock:
        """Where this client's time comes from."""
        return self._shared.clock

    @property
    def base_url(self) -> str:
        """The server's address, without a slash at the end."""
        return self._shared.base_url

    @property
    def phone_policy(self) -> PhonePolicy:
        """How much must be true of a phone number."""
        return self._defaults.phone_policy

    @property
    def default_region(self) -> str | None:
        """The region of national phone numbers; None refuses them."""
        return self._defaults.default_region

    @property
    def rate_limit_status(self) -> RateLimitStatus:
        """The latest known quota, immutable."""
        return self._shared.limiter.status()

    def estimate(self, requests: int) -> timedelta:
        """Return how long until that many more requests could be finished.

        It starts from the present state of the quota and its queue, at this view's
        priority, and costs no request.

        Args:
            requests: How many, 0 or more.

        Raises:
            ConfigurationError: ``requests`` is negative.
        """
        return self._shared.limiter.estimate(requests, priority=self._session.options.priority)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> Any:
        """Send any request under the same key, quota, retries and errors.

        Args:
            method: Such as ``GET``.
            path: From the server's root, unencoded, such as ``/qsi/gather/questions``.
            params: Query parameters; those that are None are not sent.
            json: The body; None sends none.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: Your word that doing it twice does no harm, so that a lost
                answer to a write is tried again.

        Returns:
            The decoded JSON, envelope and all; None if the answer has no body.

        Raises:
            InvalidRequestError: The method is no word, the path no path, or the body
                can't be JSON.
            GatherError: The request failed.
        """
        if not (isinstance(method, str) and method.isascii() and method.isalpha()):
            raise InvalidRequestError('A method is a word, such as "GET".')
        request = Request(
            method=method.upper(),
            path=raw_path(path),
            query=params or {},
            body=json,
            needs_answer=False,
        )
        return await self._session.send(request, timeout=timeout, idempotent=idempotent)

    def __repr__(self) -> str:
        state = "closed" if self._shared.transport.is_closed else "open"
        return f"<GatherClient {self._shared.base_url} {state} {self._shared.limiter!r}>"
