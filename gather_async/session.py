"""The async session layer: wait for the quota, send, read, then return, retry or raise."""

import json
import logging
import math
import random
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import attrs
from attrs import define, field, frozen

from gather_async.cancel_scope import CancelScope
from gather_async.clock import Clock
from gather_async.errors import (
    GatherAPIError,
    GatherConnectionError,
    GatherError,
    GatherTimeoutError,
    InvalidRequestError,
    QuotaWaitError,
    ResponseDecodeError,
)
from gather_async.protocol.api_errors import api_error, server_time
from gather_async.protocol.rate_headers import ServerQuota, read_rate_headers
from gather_async.protocol.reconciliation import Reconciliation
from gather_async.protocol.requests import Request
from gather_async.protocol.responses import Response, is_error_envelope, parse_json, redact
from gather_async.protocol.retry import Failure, Retry, RetryPolicy, decide
from gather_async.quota.limiter import Limiter, Priority, Slot
from gather_async.reconciler import LostWrite, Reconciler, Result
from gather_async.transport import (
    ClientTimeout,
    SendState,
    Timeout,
    Transport,
    client_timeout,
    request_headers,
)
from gather_async.unset import UNSET, Unset

__all__ = ["CreatedIds", "Options", "Session"]

_LOG = logging.getLogger("gather_async")
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_MOST_CREATED = 1024  # more than the longest window lets a client create
_FORGIVEN_SKEW = 2.0  # seconds; a Date header has no fraction


@frozen(kw_only=True)
class Options:
    """What a caller can choose per call or per view of a client."""

    timeout: ClientTimeout
    """For each attempt."""
    retry: RetryPolicy
    priority: Priority
    max_wait: float | None
    """Seconds; None waits for the quota as long as it takes."""


@define(eq=False, kw_only=True)
class _Call:
    """One call of the caller's, and how far it has got. Its ``repr`` shows no body."""

    request: Request
    timeout: ClientTimeout
    """For each attempt."""
    retry: RetryPolicy
    repeatable: bool
    """Whether carrying it out twice does no harm."""
    body: bytes | None = field(default=None, repr=False)
    lookup_time: float = math.inf
    """Seconds in which a write of unknown fate is looked up at most."""
    attempt: int = 0
    elapsed: float = 0.0
    """Seconds, without waits for the quota."""
    began: float | None = None
    """When the first attempt of unknown fate began, monotonic seconds."""
    error: GatherError | None = None
    """How the last attempt failed."""

    @property
    def can_be_looked_up(self) -> bool:
        """Whether what a lost attempt made is looked for."""
        return (
            self.request.lookup is not None
            and not self.repeatable
            and self.retry.attempts > 1
            and self.retry.in_flight_timeout is not None
        )


class CreatedIds:
    """Ids of the last objects that this client's writes returned."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}  # in order of entry

    def add(self, id: str) -> None:
        """Record an id, and forget the oldest beyond 1024."""
        self._ids[id] = None
        if len(self._ids) > _MOST_CREATED:
            del self._ids[next(iter(self._ids))]

    def __contains__(self, id: object) -> bool:
        return id in self._ids


@define(eq=False, kw_only=True, repr=False)
class Session:
    """Sends requests of one API key. Views of it share everything but their options."""

    transport: Transport
    limiter: Limiter
    clock: Clock
    options: Options
    cancel_scope: CancelScope = field(factory=CancelScope)
    created: CreatedIds = field(factory=CreatedIds)
    _rng: random.Random = field(alias="rng")
    _api_key: str = field(alias="api_key")
    _user_agent: str = field(alias="user_agent")
    _key_bytes: bytes = field(init=False)
    _headers: Mapping[str, str] = field(init=False)
    _headers_with_body: Mapping[str, str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._key_bytes = self._api_key.encode()
        headers = {
            "x-api-key": self._api_key,  # Source: /getting-started/authentication
            "Accept": "application/json",
            "User-Agent": self._user_agent,
        }
        self._headers = request_headers(headers)
        self._headers_with_body = request_headers({**headers, "Content-Type": "application/json"})

    def with_options(self, options: Options, limiter: Limiter | None = None) -> "Session":
        """Return a view with other options; ``limiter`` stands in for the client's."""
        return attrs.evolve(self, options=options, limiter=limiter or self.limiter)

    def key_digest(self, salt: bytes) -> str:
        """Return what tells the API key from others without being it; ``salt`` keys it."""
        return blake2b(self._key_bytes, key=salt, digest_size=16).hexdigest()

    async def send(
        self, request: Request, *, timeout: Timeout | Unset = UNSET, idempotent: bool = False
    ) -> Any:
        """Return the JSON of the response; None if a 2xx had no body. A raw request's is whole.

        A failure is tried again as the retry policy says. A write of unknown fate is
        looked up before it is sent again, if its request says how.

        Args:
            request: What to send.
            timeout: Seconds for each attempt, and in all for looking up a write of unknown
                fate; UNSET takes the option's, which bounds each attempt alone.
            idempotent: The caller's word that carrying it out twice does no harm.

        Raises:
            QuotaWaitError: The quota has no room within ``max_wait``.
            GatherConnectionError: The connection failed.
            GatherTimeoutError: A deadline passed.
            GatherAPIError: The server answered with an error.
            ResponseDecodeError: The response makes no sense.
            ClientClosedError: The client is closed, or busy in another loop.
        """
        call = _Call(
            request=request,
            body=_encode(request.body),
            timeout=self.options.timeout if timeout is UNSET else client_timeout(timeout),
            retry=self.options.retry,
            repeatable=idempotent or not request.is_write,
        )
        if timeout is not UNSET:
            call.lookup_time = call.timeout.total or math.inf
        return (await self._send(call)).payload

    async def _send(self, call: "_Call") -> Result:
        """Send a call until it succeeds, or nothing is left to try."""
        while True:
            call.attempt += 1
            slot = await self._slot(after=call.error)
            began = self.clock.monotonic()
            try:
                return await self._attempt(call.request, call.body, slot, call.timeout)
            except (
                GatherConnectionError,
                GatherTimeoutError,
                GatherAPIError,
                ResponseDecodeError,
            ) as caught:
                error = call.error = caught
            call.elapsed += self.clock.monotonic() - began
            failure = self._failure(error)
            if failure.is_ambiguous and call.can_be_looked_up:
                # What an earlier attempt made late counts as well: so the first one's time.
                call.began = began if call.began is None else call.began
                found = await self._reconcile(call, call.began, failure)
                if found is not None:
                    return found
                failure = Failure(was_sent=False)  # proven: it was not carried out
            retry = decide(
                call.retry,
                failure,
                repeatable=call.repeatable,
                attempt=call.attempt,
                elapsed=call.elapsed,
                draw=self._rng.random(),
            )
            if retry is None:
                raise error
            _LOG.info(
                "%s: attempt %d: %s; trying again", call.request, call.attempt, type(error).__name__
            )
            call.elapsed += await self._pause(retry)

    async def _reconcile(self, call: "_Call", began: float, failure: Failure) -> Result | None:
        """Return what a write of unknown fate made; None if it is proven absent.

        Raises:
            GatherError: The write's own failure: nothing was proven, so it can't go again.
        """
        assert call.request.lookup is not None  # noqa: S101 - the caller checked it
        assert call.error is not None  # noqa: S101
        given_up = self.clock.monotonic()
        lost = LostWrite(
            error=call.error,
            began=began,
            given_up=given_up,
            in_flight_timeout=call.retry.in_flight_timeout or 0.0,
            time_left=min(call.retry.total - call.elapsed, call.lookup_time),
            not_before=failure.reset_in or 0.0,
        )
        _LOG.info("%s: %s; looking it up", call.request, type(call.error).__name__)
        once = attrs.evolve(call.retry, attempts=1)

        async def read(request: Request) -> Result:
            return await self._send(
                _Call(request=request, timeout=call.timeout, retry=once, repeatable=True)
            )

        reconciler = Reconciler(clock=self.clock, read=read, sleep=self._sleep)
        evidence = Reconciliation(call.request.lookup(), claimed=self.created)
        try:
            return await reconciler.find(evidence, lost)
        finally:
            call.elapsed += self.clock.monotonic() - given_up

    async def _slot(self, *, after: GatherError | None) -> Slot:
        """Return leave to send; a refusal names the failure that made this a second try."""
        try:
            self.cancel_scope.raise_if_closed()
            leave = self.limiter.acquire(
                priority=self.options.priority, max_wait=self.options.max_wait
            )
            return await self.cancel_scope.run(leave)
        except QuotaWaitError as refused:
            raise refused from after

    async def _pause(self, retry: Retry) -> float:
        """Wait before the next attempt; return the seconds that count as elapsed."""
        if retry.hold:
            self.limiter.hold(self.clock.wall() + retry.wait)
            return 0.0
        await self._sleep(retry.wait)
        return retry.wait

    async def _sleep(self, seconds: float) -> None:
        self.cancel_scope.raise_if_closed()
        await self.cancel_scope.run(self.clock.sleep(seconds))

    async def _attempt(
        self, request: Request, body: bytes | None, slot: Slot, timeout: ClientTimeout
    ) -> Result:
        """Send once, settle the slot whatever happens, and read a 2xx answer's JSON."""
        sending = SendState(slot.resent)
        answer: Response | None = None
        try:
            answer = received = await self.transport.exchange(
                request.method,
                request.target,
                headers=self._headers if body is None else self._headers_with_body,
                body=body,
                timeout=timeout,
                sending=sending,
            )
        finally:
            if answer is not None:
                slot.answered(self._quota(answer))
            elif sending.was_sent:
                slot.lost()
            else:
                slot.returned()
        return self._read(request, received)

    def _read(self, request: Request, answer: Response) -> Result:
        """Return what a 2xx answer holds; raise what any other means."""
        _LOG.debug("%s: %d", request, answer.status)
        if not 200 <= answer.status < 300:
            raise self._api_error(request, answer)
        body = answer.body
        if self._key_bytes in body:
            body = redact(body, self._key_bytes)
        if request.is_raw:
            return Result(attrs.evolve(answer, body=body), answer.headers)
        payload = parse_json(body, is_write=request.is_write)
        if is_error_envelope(payload):
            raise self._api_error(request, answer)
        if payload is None and request.needs_body:
            raise ResponseDecodeError(
                f"{request}: the server said {answer.status}, but there is no body, nothing at $.",
                body="",
                path="$",
                maybe_processed=request.is_write,
            )
        return Result(payload, answer.headers)

    def _api_error(self, request: Request, answer: Response) -> GatherAPIError:
        now = server_time(answer.headers)
        now = self.clock.wall() if now is None else now
        return api_error(
            answer, str(request), is_write=request.is_write, now=now, secret=self._api_key
        )

    def _failure(self, error: GatherError) -> Failure:
        """Describe what went wrong as the retry decision wants it."""
        if isinstance(error, GatherAPIError):
            return Failure(was_sent=True, status=error.status, reset_in=error.retry_after)
        if isinstance(error, ResponseDecodeError):
            return Failure(was_sent=True, status=200)
        return Failure(was_sent=bool(getattr(error, "maybe_processed", False)))

    def _quota(self, answer: Response) -> ServerQuota | None:
        """Return what the headers say of the quota, its reset by our own clock."""
        quota = read_rate_headers(answer.headers)
        if quota is None or quota.reset_at is None:
            return quota
        server_now = server_time(answer.headers)
        skew = 0.0 if server_now is None else server_now - self.clock.wall()
        if -_FORGIVEN_SKEW <= skew <= _FORGIVEN_SKEW:
            return quota
        return attrs.evolve(quota, reset_at=quota.reset_at - skew)


def _encode(body: Any) -> bytes | None:
    if body is None:
        return None
    try:
        return _JSON.encode(body).encode()
    except (ValueError, RecursionError):
        raise InvalidRequestError(
            "The body can't be JSON: it holds NaN, an infinity, a lone surrogate or a cycle."
        ) from None
