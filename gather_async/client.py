"""`GatherClient`: everything wired together."""

import os
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from attrs import define, evolve, field, frozen

from gather_async.clock import Clock, SystemClock
from gather_async.errors import ConfigurationError
from gather_async.models.rate_limit import RateLimitStatus
from gather_async.phone import PhonePolicy
from gather_async.protocol.base_url import PRODUCTION, check_base_url
from gather_async.protocol.requests import Request, raw_path
from gather_async.protocol.retry import RetryPolicy
from gather_async.protocol.windows import RateLimit
from gather_async.quota.in_process import InProcessLimiter
from gather_async.quota.limiter import Limiter, Priority
from gather_async.resources import (
    CandidateInterviews,
    Candidates,
    Interviews,
    MessageGroups,
    Narrators,
    Questions,
    Teams,
    Users,
)
from gather_async.session import Options, Session
from gather_async.transport import (
    HTTPSession,
    HTTPTrace,
    Timeout,
    Transport,
    client_timeout,
    user_agent,
)
from gather_async.unset import UNSET, Unset
from gather_async.version import __version__
from gather_async.waiting import Signals, Waits

__all__ = ["GatherClient"]

_LIMITS = (RateLimit(100, per=60), RateLimit(1000, per=3600))  # /getting-started/rate-limits


@frozen(kw_only=True)
class _Defaults:
    """What calls of a client start from."""

    phone_policy: PhonePolicy
    default_region: str | None
    user_id: str | None


@define(eq=False, kw_only=True)
class _Shared:
    """What all views of a client have in common."""

    transport: Transport
    limiter: Limiter
    clock: Clock
    base_url: str
    waits: Waits = field(init=False)


class GatherClient:
    """The Gather API, for one API key.

    It opens its HTTP session on first use, in the running loop, and may outlive
    that loop: the next one gets a session of its own, and the quota's history
    survives. Use it as an async context manager, or call `aclose` at the end.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        session: HTTPSession | None = None,
        timeout: Timeout = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        rate_limits: Sequence[RateLimit] = _LIMITS,
        limiter: Limiter | None = None,
        phone_policy: PhonePolicy = PhonePolicy.E164,
        default_region: str | None = None,
        user_id: str | None = None,
        signals: Signals | None = None,
        max_wait: float | None = None,
        reserve: int = 5,
        trust_env: bool = False,
        allow_insecure: bool = False,
        trace_configs: Sequence[HTTPTrace] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Make a client. Nothing is sent or opened yet.

        Args:
            api_key: The key, sent as it is; None takes ``GATHER_API_KEY``.
            base_url: None takes ``GATHER_BASE_URL``, else the production server.
            session: An aiohttp session to use; it is never closed here.
            timeout: For each attempt: seconds in all, or aiohttp's ``ClientTimeout``.
            retry: How failures are tried again.
            rate_limits: The rolling windows of the key.
            limiter: Replaces the in-process limiter, and with it ``rate_limits`` and
                ``reserve``.
            phone_policy: How much must be true of a phone number.
            default_region: Such as ``"US"``: national numbers of this region are
                normalised instead of refused.
            user_id: The creator of questions whose ``create`` names none.
            signals: A `WebhookReceiver`, or anything that wakes waiting calls.
            max_wait: Seconds to wait for the quota at most; None: as long as it takes.
            reserve: Requests of each window that bulk work never takes.
            trust_env: Whether proxies come from the environment, as in aiohttp.
            allow_insecure: Whether the key may go by plain HTTP to another machine.
            trace_configs: aiohttp traces of your own.
            clock: Where time comes from; None: the machine's clock.
            rng: Where the jitter comes from; None: a generator of its own.

        Raises:
            ConfigurationError: The key is missing or blank, or an argument can't work.
        """
        clock = clock or SystemClock()
        url = base_url or os.environ.get("GATHER_BASE_URL") or PRODUCTION
        url = check_base_url(url, allow_insecure=allow_insecure)
        shared = _Shared(
            transport=Transport(
                base=url,
                borrowed=session,
                trust_env=trust_env,
                trace_configs=trace_configs,
            ),
            limiter=limiter or InProcessLimiter(rate_limits, reserve=reserve, clock=clock),
            clock=clock,
            base_url=url,
        )
        rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        bare = Session(
            transport=shared.transport,
            limiter=shared.limiter,
            clock=clock,
            options=Options(
                timeout=client_timeout(timeout),
                retry=retry,
                priority="interactive",
                max_wait=_checked_wait(max_wait),
            ),
            rng=rng,
            api_key=_checked_key(api_key),
            user_agent=user_agent(__version__),
        )
        defaults = _Defaults(
            phone_policy=phone_policy, default_region=default_region, user_id=user_id
        )
        self._assemble(shared, bare, defaults)
        polls = self.with_options(priority="bulk", retry=RetryPolicy(attempts=1), max_wait=None)
        shared.waits = Waits(
            questions=polls.questions,
            candidate_interviews=polls.candidate_interviews,
            limiter_status=shared.limiter.status,
            rate_limits=rate_limits,
            clock=clock,
            rng=rng,
            signals=signals,
        )

    def _assemble(self, shared: _Shared, session: Session, defaults: _Defaults) -> None:
        """Make this object a view: resources over one session."""
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
        self.narrators = Narrators(session)
        self.message_groups = MessageGroups(session)
        self.teams = Teams(session)
        self.users = Users(session, policy, region)

    def with_options(
        self,
        *,
        timeout: Timeout | Unset = UNSET,
        retry: RetryPolicy | Unset = UNSET,
        priority: Priority | Unset = UNSET,
        max_wait: float | Unset | None = UNSET,
        phone_policy: PhonePolicy | Unset = UNSET,
        default_region: str | Unset | None = UNSET,
        user_id: str | Unset | None = UNSET,
        limiter: Limiter | None = None,
    ) -> "GatherClient":
        """Return a view of this client with other options.

        A view is cheap and shares the session, the limiter and the waits: closing
        one closes all.

        Args:
            timeout: For each attempt, as for the client.
            retry: How failures are tried again.
            priority: ``interactive`` goes ahead of ``bulk`` when the quota is short.
            max_wait: Seconds to wait for the quota at most; None: as long as it takes.
            phone_policy: How much must be true of a phone number.
            default_region: The region of national phone numbers.
            user_id: The default creator of questions.
            limiter: Stands between the view's requests and the quota, to watch them;
                it must pass them on to this client's `limiter`. None: nothing does.

        Raises:
            ConfigurationError: An option can't work.
        """
        options = self._session.options
        if priority is not UNSET and priority not in {"interactive", "bulk"}:
            raise ConfigurationError('priority must be "interactive" or "bulk".')
        changed = {
            "timeout": timeout if timeout is UNSET else client_timeout(timeout),
            "retry": retry,
            "priority": priority,
            "max_wait": max_wait if max_wait is UNSET else _checked_wait(max_wait),
        }
        defaults = {
            "phone_policy": phone_policy,
            "default_region": default_region,
            "user_id": user_id,
        }
        view = object.__new__(type(self))
        view._assemble(
            self._shared,
            self._session.with_options(evolve(options, **_given(changed)), limiter),
            evolve(self._defaults, **_given(defaults)),
        )
        return view

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
            InvalidRequestError: The path is no path, or the body can't be JSON.
            GatherError: The request failed.
        """
        request = Request(
            method=method.upper(),
            path=raw_path(path),
            query=params or {},
            body=json,
            needs_answer=False,
        )
        return await self._session.send(request, timeout=timeout, idempotent=idempotent)

    async def aclose(self) -> None:
        """Close the client and all its views; harmless to repeat.

        Waiting calls end with `ClientClosedError`. A borrowed session stays open.
        """
        await self._shared.waits.close()
        await self._shared.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._shared.transport.is_closed else "open"
        return f"<GatherClient {self._shared.base_url} {state} {self._shared.limiter!r}>"


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not UNSET}


def _checked_key(api_key: str | None) -> str:
    """Return the key unchanged, if it can be sent. Source: /getting-started/authentication."""
    key = os.environ.get("GATHER_API_KEY", "") if api_key is None else api_key
    if not isinstance(key, str) or not key.strip():
        raise ConfigurationError("There is no API key: pass api_key or set GATHER_API_KEY.")
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise ConfigurationError(
            "The API key has spaces around it, a line break or a character that no key has."
        )
    return key


def _checked_wait(max_wait: float | None) -> float | None:
    if max_wait is None:
        return None
    if isinstance(max_wait, bool) or not isinstance(max_wait, int | float) or not max_wait >= 0:
        raise ConfigurationError("max_wait must be seconds, 0 or more, or None.")
    return max_wait
