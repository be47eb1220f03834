"""The async session layer: wait for the quota, send, read, then return, retry or raise."""

import logging
import math
import random
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen

from gather_async.clock import Clock
from gather_async.errors import (
    GatherAPIError,
    GatherConnectionError,
    GatherError,
    GatherTimeoutError,
    QuotaWaitError,
    ResponseDecodeError,
)
from gather_async.loops import CancelScope
from gather_async.observability import CallEvents, CallRecord, log_fields, without_frames
from gather_async.protocol.api_errors import api_error, server_time
from gather_async.protocol.reconciliation import Reconciliation
from gather_async.protocol.requests import Request, encode_body
from gather_async.protocol.responses import Response, is_error_envelope, parse_json, redact
from gather_async.protocol.retry import LONGEST_HOLD, Failure, Retry, RetryPolicy, backoff, decide
from gather_async.protocol.server_quota import ServerQuota, read_rate_headers, read_reset_after
from gather_async.quota.limiter import HoldNotice, Limiter, Slot, log_wait
from gather_async.quota.priority_queue import Priority
from gather_async.reconciler import CreatedObjects, LostWrite, Reconciler, Result
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

_LOG = logging.getLogger("gather_async.session")
_HOLD_SLACK = 60.0  # seconds: skewed clocks
_UNKNOWN_RESET = 5.0  # seconds, doubled by each refusal: four attempts outlast a minute's window
_SHORTEST_RESET = 0.5  # seconds; a reset in the past was rounded, or is of another clock
_FAILURES = (GatherConnectionError, GatherTimeoutError, GatherAPIError, ResponseDecodeError)
_FORGIVEN_SKEW = 2.0  # seconds; a Date header has no fraction
T = TypeVar("T")


def _as_it_is(payload: Any) -> Any:
    return payload


@frozen(kw_only=True)
class Options:
    """Options of a call, or of a view of a client."""

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
    decode: Callable[[Any], Any] = _as_it_is
    lookup_time: float = math.inf
    """Seconds in which a write of unknown fate is looked up at most."""
    attempt: int = 0
    elapsed: float = 0.0
    """Seconds, without waits for the quota."""
    began: float | None = None
    """When the first attempt of unknown fate began, monotonic seconds."""
    error: GatherError | None = None
    """How the last attempt failed."""
    is_held: bool = False
    """Whether it failed because the quota is used up."""
    held: float = 0.0
    """Seconds waited for that reason."""
    record: CallRecord | None = None
    """Publishes its course; None if there is no listener."""

    @property
    def can_be_looked_up(self) -> bool:
        """Whether what a lost attempt made is looked for."""
        return (
            self.request.lookup is not None
            and not self.repeatable
            and self.retry.attempts > 1
            and self.retry.in_flight_timeout is not None
        )


def _log_failure(call: _Call, what: str, **fields: float) -> None:
    """Log why an attempt failed, and what is done about it."""
    error = type(call.error).__name__
    extra = log_fields(call.request, attempt=call.attempt, error=error, **fields)
    _LOG.info("%s: attempt %d: %s; %s", call.request, call.attempt, error, what, extra=extra)


@define(eq=False, kw_only=True, repr=False)
class Session:
    """Sends requests of one API key. Views of it share everything but their options."""

    transport: Transport
    limiter: Limiter
    clock: Clock
    options: Options
    cancel_scope: CancelScope = field(factory=CancelScope)
    created: CreatedObjects = field(factory=CreatedObjects)
    notice: HoldNotice = field(factory=HoldNotice)
    events: CallEvents = field(factory=CallEvents)
    _rng: random.Random = field(alias="rng")
    _api_key: str = field(alias="api_key")
    _user_agent: str = field(alias="user_agent")
    _grant: Callable[[Priority], Slot | None] = field(init=False)
    _key_bytes: bytes = field(init=False)
    _headers: Mapping[str, str] = field(init=False)
    _headers_with_body: Mapping[str, str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Our own limiter has a slot at once where no call waits; not every limiter can say so.
        self._grant = getattr(self.limiter, "grant", lambda _: None)
        self._key_bytes = self._api_key.encode()
        headers = {
            "x-api-key": self._api_key,  # Source: /getting-started/authentication
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",  # what `BodyBuffer` unpacks within bounds
            "User-Agent": self._user_agent,
        }
        self._headers = request_headers(headers)
        self._headers_with_body = request_headers({**headers, "Content-Type": "application/json"})

    def with_options(self, options: Options, limiter: Limiter | None = None) -> "Session":
        """Return a view with other options; ``limiter`` stands in for the client's."""
        return evolve(self, options=options, limiter=limiter or self.limiter)

    def key_digest(self, salt: bytes) -> str:
        """Return a digest of the API key, keyed with ``salt``."""
        return blake2b(self._key_bytes, key=salt, digest_size=16).hexdigest()

    async def send(
        self,
        request: Request,
        *,
        decode: Callable[[Any], T] = _as_it_is,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> T:
        """Return what a response's JSON says; by default the JSON, None if a 2xx has no body.

        A failure is tried again as the retry policy says. A write of unknown fate is
        looked up before it is sent again, if its request says how.

        Args:
            request: What to send.
            decode: Makes the result of the JSON; a `ResponseDecodeError` of it counts as a
                response that makes no sense.
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
            body=encode_body(request.body),
            timeout=self.options.timeout if timeout is UNSET else client_timeout(timeout),
            retry=self.options.retry,
            repeatable=idempotent or not request.is_write,
            decode=decode,
        )
        if timeout is not UNSET:
            call.lookup_time = call.timeout.total or math.inf
        try:
            sending = self._observed(call) if self.events.listeners else self._send(call)
            result: T = (await sending).payload
        except BaseException as error:
            raise without_frames(error)  # noqa: B904 - the same error
        return result

    async def _observed(self, call: "_Call") -> Result:
        """Send a call, and publish its course."""
        call.record = CallRecord(events=self.events, clock=self.clock, request=call.request)
        with call.record:
            return await self._send(call)

    async def _send(self, call: "_Call") -> Result:
        """Send a call until it succeeds, or nothing is left to try."""
        while True:
            call.attempt += 1
            asked = self.clock.monotonic() if call.is_held else 0.0
            self.cancel_scope.raise_if_closed()
            slot = self._grant(self.options.priority) or await self._slot(call)
            began = self.clock.monotonic()
            if call.is_held:
                call.held += began - asked
            try:
                return await self._attempt(call, slot)
            except _FAILURES as caught:
                error = call.error = caught
            call.elapsed += self.clock.monotonic() - began
            failure = Failure.of(error, longest_hold=self._longest_hold)
            call.is_held = failure.status == 429
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
                hold_left=self._longest_hold() - call.held if call.is_held else 0.0,
            )
            if retry is None:
                raise error
            await self._pause(call, retry)

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
        _log_failure(call, "looking it up")
        once = evolve(call.retry, attempts=1)

        async def read(request: Request) -> Result:
            lookup = _Call(request=request, timeout=call.timeout, retry=once, repeatable=True)
            return await (self._observed if call.record else self._send)(lookup)

        reconciler = Reconciler(clock=self.clock, read=read, sleep=self._sleep)
        evidence = Reconciliation(call.request.lookup(), claimed=self.created)
        try:
            found = await reconciler.find(evidence, lost)
        finally:
            self._add_pause(call, self.clock.monotonic() - given_up)
        return None if found is None else Result(call.decode(found.payload), found.headers)

    async def _slot(self, call: "_Call") -> Slot:
        """Return a slot; a refusal names the failure that made this a second try."""
        asked = self.clock.monotonic()
        try:
            waiting = self.limiter.acquire(
                priority=self.options.priority, max_wait=self.options.max_wait
            )
            return await self.cancel_scope.run(waiting)
        except QuotaWaitError as refused:
            raise refused from call.error
        finally:
            log_wait(call.request, seconds := self.clock.monotonic() - asked)
            if call.record is not None:
                call.record.quota_wait += seconds

    async def _pause(self, call: "_Call", retry: Retry) -> None:
        """Wait before the next attempt."""
        _log_failure(call, f"trying again in {retry.wait:.1f} s", wait=retry.wait)
        self.notice.log(call.request, call.error, retry.wait, now=self.clock.wall())
        if call.record is not None:
            call.record.retrying(call.error, retry.wait, is_hold=retry.hold)
        if retry.hold:
            self.limiter.hold(self.clock.wall() + retry.wait)
            return
        await self._sleep(retry.wait)
        self._add_pause(call, retry.wait)

    @staticmethod
    def _add_pause(call: "_Call", seconds: float) -> None:
        call.elapsed += seconds
        if call.record is not None:
            call.record.backoff += seconds

    def _longest_hold(self) -> float:
        """Return the seconds that a call may wait in all because the server refuses it."""
        periods = [window.period for window in self.limiter.status().windows]
        return max(periods, default=LONGEST_HOLD - _HOLD_SLACK) + _HOLD_SLACK

    async def _sleep(self, seconds: float) -> None:
        self.cancel_scope.raise_if_closed()
        await self.cancel_scope.run(self.clock.sleep(seconds))

    async def _attempt(self, call: "_Call", slot: Slot) -> Result:
        """Send once, end the slot whatever happens, and read a 2xx response."""
        state = SendState(slot.resent, may_resend=call.repeatable)
        response: Response | None = None
        if call.record is not None:
            call.record.started(call.attempt)
        try:
            response = received = await self.transport.exchange(
                call.request.method,
                call.request.target,
                headers=self._headers if call.body is None else self._headers_with_body,
                body=call.body,
                timeout=call.timeout,
                state=state,
            )
        finally:
            if response is not None:
                slot.answered(self._quota(call, response))
            elif state.was_sent:
                slot.lost()
            else:
                slot.returned()
            if call.record is not None:
                call.record.answered(response, secret=self._api_key)
        try:
            return self._read(call, received)
        except ResponseDecodeError:
            # What came may belong to another request, and so might all that follows it.
            state.close_connection()
            raise

    def _read(self, call: "_Call", response: Response) -> Result:
        """Return what a 2xx response holds; raise what any other means."""
        request = call.request
        if _LOG.isEnabledFor(logging.DEBUG):
            fields = log_fields(request, attempt=call.attempt, status=response.status)
            _LOG.debug("%s: %d", request, response.status, extra=fields)
        if not 200 <= response.status < 300:
            raise self._api_error(request, response)
        body = response.body
        if self._key_bytes in body:
            body = redact(body, self._key_bytes)
        if request.is_raw:
            return Result(call.decode(evolve(response, body=body)), response.headers)
        payload = parse_json(body, is_write=request.is_write)
        if is_error_envelope(payload):
            raise self._api_error(request, response)
        if payload is None and request.needs_body:
            raise ResponseDecodeError(
                f"{request}: the server said {response.status}, but there is no body, "
                "nothing at $.",
                body="",
                path="$",
                maybe_processed=request.is_write,
            )
        return Result(call.decode(payload), response.headers)

    def _api_error(self, request: Request, response: Response) -> GatherAPIError:
        now = server_time(response.headers)
        now = self.clock.wall() if now is None else now
        return api_error(
            response, str(request), is_write=request.is_write, now=now, secret=self._api_key
        )

    def _quota(self, call: "_Call", response: Response) -> ServerQuota | None:
        """Return what the headers say of the quota, its reset by our own clock."""
        quota = read_rate_headers(response.headers)
        if quota is None:
            return None
        if response.status == 429:
            wait = self._api_error(call.request, response).retry_after
            # Without a hint, a whole window would be a guess, and an hour's a bad one.
            wait = backoff(call.attempt, base=_UNKNOWN_RESET, cap=60.0) if wait is None else wait
            return evolve(quota, reset_at=self.clock.wall() + max(wait, _SHORTEST_RESET))
        if quota.reset_at is None:
            wait = read_reset_after(response.headers)
            return quota if wait is None else evolve(quota, reset_at=self.clock.wall() + wait)
        server_now = server_time(response.headers)
        skew = 0.0 if server_now is None else server_now - self.clock.wall()
        if -_FORGIVEN_SKEW <= skew <= _FORGIVEN_SKEW:
            return quota
        return evolve(quota, reset_at=quota.reset_at - skew)
