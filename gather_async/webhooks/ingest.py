"""From bytes to a stored event: verify, deduplicate, store, notify."""

import asyncio
import hmac
import itertools
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from attrs import define, field, frozen

from gather_async.clock import Clock, finish_by
from gather_async.errors import ConfigurationError, WebhookFailure, WebhookVerificationError
from gather_async.loops import outside_work
from gather_async.observability import log_fields
from gather_async.protocol import signatures
from gather_async.protocol.signatures import Headers, SignatureHeader, VerifiedPayload
from gather_async.webhooks.events import (
    CandidateInterviewCompleted,
    WebhookEvent,
    decode_event,
    is_wanted,
)
from gather_async.webhooks.handlers import Handlers
from gather_async.webhooks.inbox import Inbox, PutResult, StoredEvent
from gather_async.webhooks.signing import Finish, Secrets, TenantSecret, UnknownTenantError

__all__ = ["Ingest", "Listener", "Listeners", "WebhookReply"]

T = TypeVar("T")
_JSON: Final = {"content-type": "application/json"}


@frozen
class WebhookReply:
    """The answer to one delivery; any framework can send it.

    200 taken, also a duplicate; 400 the body is no event; 401 the signature;
    405; 408 the body did not come in time; 413 the body is too large; 503 the
    inbox is full, can't be written or takes too long, so that the sender tries again.
    """

    status: int
    body: str
    """JSON text: ``{"status": ...}`` and, for a refusal, its ``reason``."""
    headers: Mapping[str, str] = field(factory=_JSON.copy, hash=False)
    """Header fields to send, names in lower case."""

    @classmethod
    def taken(cls, *, is_duplicate: bool) -> "WebhookReply":
        """Return the answer to a trusted delivery."""
        word = "duplicate" if is_duplicate else "taken"
        return cls(200, json.dumps({"status": word}))

    @classmethod
    def refused(cls, status: int, reason: str, **headers: str) -> "WebhookReply":
        """Return the answer to a delivery that was not taken."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps({"status": "refused", "reason": reason}), _JSON | named)

    @classmethod
    def wrong_method(cls) -> "WebhookReply":
        """Return the answer to anything but POST."""
        return cls.refused(405, "method_not_allowed", allow="POST")

    @classmethod
    def too_large(cls) -> "WebhookReply":
        """Return the answer to a body beyond the limit; the rest of it isn't read."""
        return cls.refused(413, "body_too_large", connection="close")

    @classmethod
    def too_slow(cls) -> "WebhookReply":
        """Return the answer to a body that doesn't come."""
        return cls.refused(408, "body_too_slow", connection="close")

    @classmethod
    def unavailable(cls, reason: str) -> "WebhookReply":
        """Return the answer that makes the sender try again."""
        return cls.refused(503, reason, retry_after="60")


_log = logging.getLogger("gather_async.webhooks")

# The sender waits for 5 seconds. Source: /api-reference/webhooks
_LONGEST_ANSWER: Final = 4.0
# Verifying a larger body may take longer than a loop should be kept.
_LARGEST_INLINE: Final = 32_768
# Own events whose publication to this process is passed over; more come in no 0.2 s.
_OWN_KEYS: Final = 10_000
# A webhook of one candidate interview comes when it is completed. Source: /guides/sending-invites
_DEFAULT_EVENT: Final = CandidateInterviewCompleted.NAME


Listener = Callable[[str, frozenset[str]], None]
"""Gets an event's name and the ids found in its data; must neither block nor raise."""


class Listeners:
    """Any number of listeners; each subscription ends by itself."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._listeners: dict[int, Listener] = {}

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call a listener for each event from now on; the returned function ends it."""
        number = next(self._numbers)
        self._listeners[number] = listener

        def unsubscribe() -> None:
            self._listeners.pop(number, None)

        return unsubscribe

    @property
    def is_empty(self) -> bool:
        """Whether there is no listener."""
        return not self._listeners

    def notify(self, event: str, ids: frozenset[str]) -> None:
        """Call all listeners; one that raises keeps no other from its call."""
        for listener in tuple(self._listeners.values()):
            try:
                listener(event, ids)
            except (Exception, SystemExit) as error:  # the latter would stop the whole server
                extra = log_fields(event=event, error=error)
                _log.exception("A listener to webhooks failed", extra=extra)


@define(eq=False)
class Ingest:
    """The way of events from the network into the inbox."""

    secrets: Secrets
    unsigned_token: str | None = field(repr=False)
    tolerance: float
    max_body: int
    inbox: Inbox
    handlers: Handlers
    receivers: Sequence[str]
    """The receiver's name, then those under which it stored events before."""
    clock: Clock
    wall: Callable[[], float]
    """Returns Unix seconds."""
    on_new: Callable[[], None]
    listeners: Listeners = field(factory=Listeners)
    last_event_at: datetime | None = None
    _own: "OrderedDict[str, None]" = field(factory=OrderedDict)
    _lanes: "dict[str, asyncio.Semaphore]" = field(factory=dict)
    _loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> Finish:
        """Return what awaits a part of the answer to a delivery for as long as the sender does."""
        return partial(finish_by, self.clock, self.clock.monotonic() + _LONGEST_ANSWER)

    async def handle(
        self,
        body: bytes,
        headers: Headers,
        *,
        path: str | None,
        tenant: str | None,
        finish: Finish,
    ) -> WebhookReply:
        """Return the answer to a delivery, in time; a trusted one is stored by then."""
        try:
            body = signatures.bytes_of(body)
            if len(body) > self.max_body:
                return WebhookReply.too_large()
            verifying = self._verified(body, headers, path, tenant, finish)
            # A small one waits for nothing but a look-up, which has a timer of its own.
            is_large = len(body) > _LARGEST_INLINE
            event, text = await (finish(verifying) if is_large else verifying)
        except UnknownTenantError:
            return WebhookReply.refused(404, "unknown_tenant")
        except WebhookVerificationError as error:
            status = 400 if error.reason is WebhookFailure.MALFORMED_BODY else 401
            extra = log_fields(reason=error.reason.value, status=status)
            _log.info("A webhook delivery was refused: %s", error.reason, extra=extra)
            return WebhookReply.refused(status, error.reason)
        except _SecretsError as error:
            extra = log_fields(error=error.__cause__, status=503)
            _log.error("The secrets of webhooks failed (%s): answered 503", error, extra=extra)
            return WebhookReply.unavailable("secrets_unavailable")
        except TimeoutError:
            extra = log_fields(error="TimeoutError", status=503)
            _log.warning("A large webhook waited for others too long: answered 503", extra=extra)
            return WebhookReply.unavailable("too_busy")
        self.last_event_at = datetime.fromtimestamp(self.wall(), UTC)
        return await self._store_and_reply(event, text, finish)

    async def store(self, event: WebhookEvent, text: str) -> PutResult:
        """Store an event; if it is new, notify the listeners and wake the worker."""
        entry = await self._in_place(text, lambda: self._entry(event, text))
        try:
            result = await self.inbox.put(entry)
        finally:
            # Cancelled, it may be stored all the same.
            self.on_new()
        if result is PutResult.NEW and not self.listeners.is_empty:
            self._own[entry.key] = None
            if len(self._own) > _OWN_KEYS:
                self._own.popitem(last=False)
            self.listeners.notify(event.event, event.ids)
        return result

    def on_published(self, event: StoredEvent) -> None:
        """Notify the listeners of an event that another process stored."""
        if event.key in self._own:
            del self._own[event.key]
            return
        self.last_event_at = datetime.fromtimestamp(self.wall(), UTC)
        self.listeners.notify(event.name, event.decode().ids)

    async def wanted(self) -> Callable[[str], bool]:
        """Return what says whether a handler, of any process, or a listener wants an event."""
        found = await self.inbox.claim(self.receivers[0], (), limit=0, lease=1.0)
        here = [handler.events for handler in self.handlers.handlers.values()]
        everywhere = [*here, *found.handlers.values()]
        has_listeners = not self.listeners.is_empty
        return lambda event: has_listeners or any(is_wanted(event, each) for each in everywhere)

    async def contains(self, event: WebhookEvent, text: str) -> bool:
        """Return whether `store` would call it a duplicate."""
        return await self.inbox.contains(self._entry(event, text))

    def _entry(self, event: WebhookEvent, text: str) -> StoredEvent:
        return StoredEvent.of(
            event,
            text,
            received_at=self.wall(),
            receivers=self.receivers,
            default_event=None if event.signed else _DEFAULT_EVENT,
        )

    async def _verified(
        self, body: bytes, headers: Headers, path: str | None, tenant: str | None, finish: Finish
    ) -> tuple[WebhookEvent, str]:
        """Return the event and the text it was read from, if they can be trusted."""
        if self._is_unsigned(path):
            text = body.decode("utf-8", "replace")
            return decode_event(text, signed=False, default_event=_DEFAULT_EVENT), text
        candidates = self.secrets.own or await self._secrets_of(tenant, path, finish)
        secrets = [each.secret for each in candidates]
        header = signatures.read_header(
            signatures.signature_in(headers), tolerance=self.tolerance, now=self.wall()
        )
        try:
            signed = await self._payload(body, header, secrets)
        except WebhookVerificationError:
            if candidates[0].is_known:
                raise
            raise UnknownTenantError from None
        owner = candidates[signed.position].tenant
        return await self._in_place(
            signed.text, lambda: decode_event(signed.text, tenant=owner)
        ), signed.text

    async def _secrets_of(
        self, tenant: str | None, path: str | None, finish: Finish
    ) -> Sequence[TenantSecret]:
        """Return the secrets of tenants, which a function of the user's may look up."""
        try:
            return await self.secrets.find(tenant, path, finish)
        except UnknownTenantError:
            raise
        except ConfigurationError as error:  # it names the tenant and repeats no secret
            raise _SecretsError(str(error).rstrip(".")) from error
        except (Exception, SystemExit) as error:
            raise _SecretsError(type(error).__name__) from error

    async def _payload(
        self, body: bytes, header: SignatureHeader, secrets: Sequence[str]
    ) -> VerifiedPayload:
        """Return what was signed; a large body is verified beside the loop.

        What was signed as it came needs a hash and no turn. To write a body anew takes long
        and the interpreter from the loop, and anyone can send large ones with a wrong
        signature: one at a time, and the slowest kind in a lane of its own.
        """
        if len(body) <= _LARGEST_INLINE:
            return self._payload_of(body, header, secrets)
        found = await _beside_loop(signatures.verify_sent, body, header, secrets)
        if found is None:
            quick = partial(signatures.verify_stringified, is_quick_only=True)
            found = await self._in_lane("quick", quick, body, header, secrets)
        if found is None:
            found = await self._in_lane("slow", self._payload_of, body, header, secrets)
        return found

    async def _in_lane(self, name: str, work: Callable[..., T], *arguments: Any) -> T:
        """Work beside the loop, one at a time in each lane: a cancelled one runs on in it."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lanes = loop, {}
        lane = self._lanes.setdefault(name, asyncio.Semaphore(1))
        await lane.acquire()
        working = asyncio.ensure_future(_beside_loop(work, *arguments))
        working.add_done_callback(partial(_leave, lane))
        return await asyncio.shield(working)

    @staticmethod
    def _payload_of(
        body: bytes, header: SignatureHeader, secrets: Sequence[str]
    ) -> VerifiedPayload:
        sent = signatures.verify_sent(body, header, secrets)
        found = sent or signatures.verify_stringified(body, header, secrets)
        assert found is not None  # noqa: S101 - only quick verification leaves it open
        return found

    async def _in_place(self, text: str, work: Callable[[], Any]) -> Any:
        """Do what reads a whole text: beside the loop, if it is large."""
        return work() if len(text) <= _LARGEST_INLINE else await _beside_loop(work)

    def _is_unsigned(self, path: str | None) -> bool:
        """Return whether a request came by the address that can't be guessed."""
        if self.unsigned_token is None or path is None:
            return False
        last = path.rstrip("/").rpartition("/")[2]
        token = self.unsigned_token.encode()
        return hmac.compare_digest(last.encode("utf-8", "surrogatepass"), token)

    async def _store_and_reply(
        self, event: WebhookEvent, text: str, finish: Finish
    ) -> WebhookReply:
        try:
            result = await finish(self.store(event, text))
        except Exception as error:
            kind = _kind(error)
            extra = log_fields(event=event.event, error=error, status=503)
            _log.error("A webhook event could not be stored (%s): answered 503", kind, extra=extra)
            return WebhookReply.unavailable("inbox_not_writable")
        if result is PutResult.FULL:
            extra = log_fields(event=event.event, error="full", status=503)
            _log.error("The webhook inbox is full: answered 503", extra=extra)
            return WebhookReply.unavailable("inbox_full")
        if _log.isEnabledFor(logging.DEBUG):  # seldom, and this line comes with every delivery
            extra = log_fields(event=event.event, result=result.name.lower(), status=200)
            _log.debug("A webhook event was stored: %s", event.event, extra=extra)
        return WebhookReply.taken(is_duplicate=result is PutResult.DUPLICATE)


async def _beside_loop(work: Callable[..., T], *arguments: Any) -> T:
    """Work in a thread, while virtual time stands still."""
    with outside_work():
        return await asyncio.to_thread(work, *arguments)


def _leave(lane: asyncio.Semaphore, working: "asyncio.Future[Any]") -> None:
    """Let the next one in."""
    lane.release()
    if not working.cancelled():
        working.exception()  # retrieved, since the call that awaited it may have been cancelled


class _SecretsError(Exception):
    """Failure of what holds the secrets of tenants."""


def _kind(error: Exception) -> str:
    return type(error).__name__
