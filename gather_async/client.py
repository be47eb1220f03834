"""`GatherClient`: everything wired together."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from datetime import timedelta
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self

from attrs import evolve

from gather_async import endpoint
from gather_async.clock import Clock, SystemClock
from gather_async.errors import InvalidRequestError
from gather_async.models.enums import DeliveryType
from gather_async.models.rate_limit import RateLimitStatus
from gather_async.observability import CallEvents, OnEvent, start_log
from gather_async.phone import PhonePolicy
from gather_async.protocol.requests import Request, raw_path
from gather_async.protocol.retry import RetryPolicy
from gather_async.protocol.rolling_windows import DEFAULT_RATE_LIMITS, RateLimit
from gather_async.quota import InProcessLimiter, Limiter, Pace, Priority
from gather_async.resources import CandidateInterviews, Candidates, Interviews, Questions, Resources
from gather_async.session import Session
from gather_async.settings import (
    DEFAULT_RETRY,
    DEFAULT_TIMEOUT,
    ViewOptions,
    default_base_url,
    default_user_id,
    proxy_for,
    validate_base_url,
    validate_key,
    validate_lent,
    validate_session,
)
from gather_async.transport import HTTPSession, HTTPTrace, Timeout, Transport, user_agent
from gather_async.unset import UNSET, Unset
from gather_async.validators import Number, Secret, hide_arguments
from gather_async.version import __version__
from gather_async.waiting import Signals, Waits

if TYPE_CHECKING:
    from gather_async.bulk import BulkCandidates, BulkInvite, InviteProgress, JobLease

__all__ = ["GatherClient"]


class GatherClient(Resources):
    """The Gather API, for one API key.

    It opens its HTTP session on first use, in the running loop. Other loops, later or at the
    same time in threads, get sessions of their own, and the quota's history survives. Use
    it as an async context manager, or call `aclose` at the end.
    """

    @hide_arguments
    def __init__(
        self,
        api_key: str | bytes | Secret | None = None,
        *,
        base_url: str | None = None,
        session: HTTPSession | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        rate_limits: Sequence[RateLimit] = DEFAULT_RATE_LIMITS,
        limiter: Limiter | None = None,
        phone_policy: PhonePolicy = PhonePolicy.E164,
        default_region: str | None = None,
        user_id: str | None = None,
        signals: Signals | None = None,
        max_wait: float | None = None,
        reserve: int = 5,
        pace: Pace = "burst",
        trust_env: bool = True,
        allow_insecure: bool = False,
        max_response: int = 16 * 2**20,
        trace_configs: Sequence[HTTPTrace] = (),
        on_event: OnEvent | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Make a client. Nothing is sent or opened yet.

        Args:
            api_key: The key, sent as it is; None takes ``GATHER_API_KEY``.
            base_url: None takes ``GATHER_BASE_URL``, else the production server.
            session: An aiohttp session to use; it is never closed here. What it sends by
                default must suit any request: no ``Content-Encoding``, no ``Range``.
            timeout: For each attempt: seconds in all, or aiohttp's ``ClientTimeout``.
            retry: How failures are tried again.
            rate_limits: The rolling windows of the key.
            limiter: Replaces the in-process limiter, and with it ``rate_limits``,
                ``reserve`` and ``pace``.
            phone_policy: How much must be true of a phone number.
            default_region: Such as ``"US"``: national numbers of this region are
                normalised instead of refused.
            user_id: The creator of questions whose ``create`` names none; None takes
                ``GATHER_USER_ID``, if it is set.
            signals: A `WebhookReceiver`, or anything that wakes waiting calls.
            max_wait: Seconds to wait for the quota at most; None: as long as it takes.
            reserve: Requests of each window that bulk work never takes.
            pace: ``"burst"`` lets bulk work use what is free, ``"even"`` spreads it over
                the longest window.
            trust_env: Whether ``HTTPS_PROXY`` and ``NO_PROXY`` are obeyed. Loopback and
                ``http://`` servers are always reached directly.
            allow_insecure: Whether the key may go by plain HTTP to another machine.
            max_response: The most bytes that a response may have, unpacked, from 1.
            trace_configs: aiohttp traces of your own.
            on_event: Called with each `ClientEvent` of each call, at once, in the thread and
                task of the call. It must not block; if it raises, that is logged.
            clock: Where time comes from; None: the machine's clock.
            rng: Where the jitter comes from; None: a generator of its own.

        Raises:
            ConfigurationError: The key is missing or blank, or an argument can't work.
        """
        start_log()
        options = ViewOptions(
            timeout=timeout,
            retry=retry,
            max_wait=max_wait,
            phone_policy=phone_policy,
            default_region=default_region,
            user_id=user_id or default_user_id(),
        )
        validate_lent(limiter, signals)
        clock, rng = clock or SystemClock(), rng or random.Random()  # noqa: S311 - jitter
        base_url = base_url or default_base_url()
        self._base_url = validate_base_url(base_url, allow_insecure=allow_insecure)
        self._call_events = CallEvents.of(on_event)
        self._limiter = limiter or InProcessLimiter(
            rate_limits, reserve=reserve, clock=clock, pace=pace
        )
        wired = Session(
            transport=self._make_transport(
                base=self._base_url,
                borrowed=validate_session(session),
                proxy=proxy_for(self._base_url, trust_env=trust_env, lent=session),
                trace_configs=trace_configs,
                max_response=Number(least=1, whole=True).check("max_response", max_response),
            ),
            limiter=self._limiter,
            clock=clock,
            events=self._call_events,
            options=options,
            rng=rng,
            api_key=validate_key(api_key),
            user_agent=user_agent(__version__),
        )
        self._waits = Waits(session=wired, rate_limits=rate_limits, rng=rng, signals=signals)
        self._wire(wired, options)

    def _make_transport(self, **options: Any) -> Transport:
        return Transport(**options)

    def _wire(self, session: Session, options: ViewOptions) -> None:
        """Build the resources upon one session; views of a client share the waits."""
        self._session, self._options = session, options
        for name in Resources.__annotations__:
            vars(self).pop(name, None)  # a view begins as a copy
        policy, region = options.phone_policy, options.default_region
        invites = endpoint.candidate_interviews_endpoint(session)
        self.questions: Questions = Questions(
            endpoint.questions_endpoint(session), self._waits, options.user_id
        )
        self.interviews: Interviews = Interviews(endpoint.interviews_endpoint(session))
        people = endpoint.candidates_endpoint(session)
        self.candidates: Candidates = Candidates(people, policy, region)
        self.candidate_interviews: CandidateInterviews = CandidateInterviews(invites, self._waits)

    @property
    def limiter(self) -> Limiter:
        """Who decides when a request may go."""
        return self._limiter

    @property
    def call_events(self) -> CallEvents:
        """The listeners to its calls: ``call_events.subscribe(function)`` adds one."""
        return self._call_events

    @property
    def clock(self) -> Clock:
        """Where this client's time comes from."""
        return self._session.clock

    def key_digest(self, salt: bytes) -> str:
        """Return a digest of the API key, keyed with 1 to 64 bytes: the same for the same key."""
        return self._session.key_digest(salt)

    @property
    def base_url(self) -> str:
        """The server's address, without a slash at the end."""
        return self._base_url

    @property
    def retry(self) -> RetryPolicy:
        """How failed requests are tried again."""
        return self._options.retry

    @property
    def phone_policy(self) -> PhonePolicy:
        """How much must be true of a phone number."""
        return self._options.phone_policy

    @property
    def default_region(self) -> str | None:
        """The region of national phone numbers; None refuses them."""
        return self._options.default_region

    @property
    def rate_limit_status(self) -> RateLimitStatus:
        """The latest known quota, immutable."""
        return self._limiter.status()

    def estimate(self, requests: int) -> timedelta:
        """Return how long until that many more requests could be finished.

        It starts from the quota as it stands, at this view's priority; no request is sent.

        Args:
            requests: How many, 0 or more.

        Raises:
            ConfigurationError: ``requests`` is negative.
        """
        return self._limiter.estimate(requests, priority=self._options.priority)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
        raw: bool = False,
    ) -> Any:
        """Send any request under the same key, quota, retries and errors.

        Args:
            method: Such as ``GET``.
            path: From the server's root, unencoded, such as ``/qsi/gather/questions``.
            params: Query parameters; those that are None are not sent.
            json: The body; None sends none.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: Your word that doing it twice does no harm, so that a lost
                response to a write is tried again.
            raw: Return the whole response, whose body need not be JSON.

        Returns:
            The decoded JSON, envelope and all; None if the response has no body. With
            ``raw``, a `Response`: ``status``, ``headers``, ``body``, ``request_id``.

        Raises:
            InvalidRequestError: The method is no word, the path no path, or the body
                can't be JSON.
            GatherError: The request failed.
        """
        if not (isinstance(method, str) and method.isascii() and method.isalpha()):
            raise InvalidRequestError('A method is a word, such as "GET".')
        if not isinstance(params, Mapping | None):
            raise InvalidRequestError("params must map names to values.")
        request = Request(
            method=method.upper(),
            path=raw_path(path),
            query=params or {},
            body=json,
            needs_body=False,
            is_raw=raw,
        )
        del params, json  # error reporters print the locals of frames
        return await self._session.send(request, timeout=timeout, idempotent=idempotent)

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
    ) -> Self:
        """Return a view of this client with other options.

        A view is cheap and shares session, limiter and waits: closing one closes all.

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
        given: dict[str, Any] = {
            "timeout": timeout,
            "retry": retry,
            "priority": priority,
            "max_wait": max_wait,
            "phone_policy": phone_policy,
            "default_region": default_region,
            "user_id": user_id,
        }
        changed = {name: value for name, value in given.items() if value is not UNSET}
        options = evolve(self._options, **changed)
        session = self._session.with_options(options, limiter)
        view = copy(self)  # a subclass keeps what it has of its own
        view._wire(session, options)  # noqa: SLF001 - it is of this class
        return view

    def bulk_invite(
        self,
        candidates: "BulkCandidates",
        *,
        interview_id: str,
        delivery_types: Iterable[DeliveryType | str] = ("email",),
        expiry_days: int | None = None,
        external_redirect_uri: str | None = None,
        journal: str | PathLike[str] | None = None,
        concurrency: int = 16,
        on_progress: "Callable[[InviteProgress], object] | None" = None,
        dry_run: bool = False,
        on_existing: Literal["reuse", "skip", "error"] = "reuse",
        total: int | None = None,
        in_flight_timeout: float = 120.0,
        max_consecutive_failures: int = 10,
        retry_failed: bool = False,
        other_key: bool = False,
        grace: float = 10.0,
        keep_candidates: bool = True,
        lease: "JobLease | None" = None,
    ) -> "BulkInvite":
        """Return a `BulkInvite`, which invites everyone once and describes the arguments.

        Raises:
            ConfigurationError: An argument can't work.
            InviteNotDeliverableError: There is no delivery type.
        """
        from gather_async.bulk import BulkInvite  # noqa: PLC0415 - a seventh of the import

        return BulkInvite(
            self,
            candidates,
            interview_id=interview_id,
            delivery_types=delivery_types,
            expiry_days=expiry_days,
            external_redirect_uri=external_redirect_uri,
            journal=journal,
            concurrency=concurrency,
            on_progress=on_progress,
            dry_run=dry_run,
            on_existing=on_existing,
            total=total,
            in_flight_timeout=in_flight_timeout,
            max_consecutive_failures=max_consecutive_failures,
            retry_failed=retry_failed,
            other_key=other_key,
            grace=grace,
            keep_candidates=keep_candidates,
            lease=lease,
        )

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Self:
        return copy(self)  # a second limiter would spend the key's quota twice

    async def aclose(self) -> None:
        """Close the client and all its views; harmless to repeat.

        Calls that wait end with `ClientClosedError`, requests under way as if their connection
        had broken. A borrowed session stays open.
        """
        await self._waits.close()
        self._session.cancel_scope.close()
        await self._session.transport.aclose()

    async def __aenter__(self) -> Self:
        self._session.cancel_scope.raise_if_closed()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if not hasattr(self, "_session"):  # it was refused, and is shown as a local of `__init__`
            return "<GatherClient refused>"
        state = "closed" if self._session.transport.is_closed else "open"
        return f"<GatherClient {self._base_url} {state} {self._limiter!r}>"
