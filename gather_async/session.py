"""The async session layer: wait for the quota, send, read, then return, retry or raise."""

import json
import logging
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
    RateLimitedError,
    ResponseDecodeError,
)
from gather_async.protocol.api_errors import api_error, seconds_until_reset, server_time
from gather_async.protocol.rate_headers import ServerQuota, read_rate_headers
from gather_async.protocol.reconciliation import Verdict, evaluate
from gather_async.protocol.requests import Lookup, Request
from gather_async.protocol.responses import Response, parse_json, redact
from gather_async.protocol.retry import Failure, Retry, RetryPolicy, decide
from gather_async.quota.limiter import Limiter, Priority, Slot
from gather_async.transport import (
    ClientTimeout,
    SendState,
    Timeout,
    Transport,
    client_timeout,
    request_headers,
)
from gather_async.unset import UNSET, Unset

__all__ = ["Options", "Session"]

_LOG = logging.getLogger("gather_async")
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_LOOKS_AFTER_ERROR = 2  # the server answered, so it isn't still working on it
_LOOKS_AFTER_SILENCE = 4
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


_Reply = tuple[Any, Mapping[str, str]]
"""An answer's JSON, and its headers."""


@define(eq=False, kw_only=True, repr=False)
class Session:
    """Sends requests of one API key. Views of it share everything but their options."""

    transport: Transport
    limiter: Limiter
    clock: Clock
    options: Options
    closing: CancelScope = field(factory=CancelScope)
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
        """Return the JSON of the answer; None if a 2xx had no body.

        A failure is tried again as the retry policy says. A write whose answer
        was lost is looked up before it is sent again, if its request says how.

        Args:
            request: What to send.
            timeout: Seconds for each attempt; UNSET takes the option's.
            idempotent: The caller's word that carrying it out twice does no harm.

        Raises:
            QuotaWaitError: The quota has no room within ``max_wait``.
            GatherConnectionError: The connection failed.
            GatherTimeoutError: A deadline passed.
            GatherAPIError: The server answered with an error.
            ResponseDecodeError: The answer makes no sense.
            ClientClosedError: The client is closed, or busy in another loop.
        """
        limit = self.options.timeout if timeout is UNSET else client_timeout(timeout)
        payload, _ = await self._send(request, limit, idempotent=idempotent)
        return payload

    async def _send(self, request: Request, timeout: ClientTimeout, *, idempotent: bool) -> _Reply:
        body = _encode(request.body)
        repeatable = idempotent or not request.is_write
        attempt, elapsed = 0, 0.0
        error: GatherError | None = None
        while True:
            attempt += 1
            slot = await self._slot(after=error)
            began = self.clock.monotonic()
            try:
                return await self._attempt(request, body, slot, timeout)
            except (
                GatherConnectionError,
                GatherTimeoutError,
                GatherAPIError,
                ResponseDecodeError,
            ) as caught:
                error = caught
            elapsed += self.clock.monotonic() - began
            failure = self._failure(error)
            if failure.is_ambiguous and request.lookup is not None and not repeatable:
                looks = _LOOKS_AFTER_SILENCE if failure.status is None else _LOOKS_AFTER_ERROR
                found = await self._reconcile(
                    request.lookup(), timeout, error, began=began, looks=looks
                )
                if found is not None:
                    return found
                failure = Failure(was_sent=False)  # the looks say that it was not carried out
            retry = decide(
                self.options.retry,
                failure,
                repeatable=repeatable,
                attempt=attempt,
                elapsed=elapsed,
                draw=self._rng.random(),
            )
            if retry is None:
                raise error
            _LOG.info("%s: attempt %d: %s; trying again", request, attempt, type(error).__name__)
            elapsed += await self._pause(retry)

    async def _slot(self, *, after: GatherError | None) -> Slot:
        """Return leave to send; a refusal names the failure that made this a second try."""
        try:
            self.closing.check()
            leave = self.limiter.acquire(
                priority=self.options.priority, max_wait=self.options.max_wait
            )
            return await self.closing.bound(leave)
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
        self.closing.check()
        await self.closing.bound(self.clock.sleep(seconds))

    async def _attempt(
        self, request: Request, body: bytes | None, slot: Slot, timeout: ClientTimeout
    ) -> _Reply:
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

    def _read(self, request: Request, answer: Response) -> _Reply:
        """Return what a 2xx answer holds; raise what any other means."""
        _LOG.debug("%s: %d", request, answer.status)
        if not 200 <= answer.status < 300:
            now = server_time(answer.headers)
            now = self.clock.wall() if now is None else now
            raise api_error(
                answer,
                str(request),
                is_write=request.is_write,
                now=now,
                secret=self._api_key,
            )
        body = answer.body
        if self._key_bytes in body:
            body = redact(body, self._key_bytes)
        payload = parse_json(body, is_write=request.is_write)
        if payload is None and request.needs_answer:
            raise ResponseDecodeError(
                f"{request}: the server said {answer.status}, but there is no body, nothing at $.",
                body="",
                path="$",
                maybe_processed=request.is_write,
            )
        return payload, answer.headers

    async def _reconcile(
        self,
        lookup: Lookup,
        timeout: ClientTimeout,
        lost: GatherError,
        *,
        began: float,
        looks: int,
    ) -> _Reply | None:
        """Return what the lost write made, or None if it is absent after several looks.

        Raises:
            GatherError: ``lost``, if looking fails or proves nothing: then nobody
                may send again.
        """
        for look_number in range(looks):
            pause = min(self.options.retry.cap, self.options.retry.base * 2.0**look_number)
            try:
                await self._sleep(pause)
                payload, headers = await self._send(lookup.request, timeout, idempotent=True)
            except GatherError as error:
                raise lost from error
            seen = evaluate(
                lookup,
                payload,
                server_now=server_time(headers),
                elapsed=self.clock.monotonic() - began,
            )
            if seen.verdict is Verdict.FOUND:
                return {"data": seen.item}, headers
            if seen.verdict is Verdict.UNPROVEN:
                raise lost
        return None

    def _failure(self, error: GatherError) -> Failure:
        """Describe what went wrong as the retry decision wants it."""
        if isinstance(error, GatherAPIError):
            reset_in = None
            if isinstance(error, RateLimitedError):
                now = server_time(error.headers)
                now = self.clock.wall() if now is None else now
                reset_in = seconds_until_reset(error.headers, error.details, now=now)
            return Failure(was_sent=True, status=error.status, reset_in=reset_in)
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
