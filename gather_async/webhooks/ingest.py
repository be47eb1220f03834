"""From bytes to a stored event: verify, deduplicate, store, tell who listens."""

import asyncio
import hmac
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from attrs import define, field

from gather_async.clock import Clock
from gather_async.errors import WebhookFailure, WebhookVerificationError
from gather_async.protocol import signatures
from gather_async.protocol.signatures import SIGNATURE_HEADER
from gather_async.webhooks.events import CandidateInterviewCompleted, WebhookEvent, decode_event
from gather_async.webhooks.handlers import Handlers, Listeners
from gather_async.webhooks.inbox import Inbox, PutResult, StoredEvent, stored
from gather_async.webhooks.reply import WebhookReply

__all__ = ["Ingest", "signature_in"]


def signature_in(headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None) -> str | None:
    """Return the signature header's value, None if there is none; several are joined.

    Names are compared without regard to case; text and bytes are both fine, and so is
    anything with ``items``: the standard library's messages are no mappings.
    """
    items = getattr(headers, "items", None)
    pairs: Any = items() if callable(items) else headers or ()
    values = [_text(value) for name, value in pairs if _text(name).lower() == SIGNATURE_HEADER]
    return ",".join(values) if values else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


_log = logging.getLogger("gather_async.webhooks")

# The sender waits for 5 seconds. Source: /api-reference/webhooks
_LONGEST_PUT: Final = 4.0
# Checking a larger body may take longer than a loop should be kept.
_LARGEST_INLINE: Final = 32_768
# A webhook of one candidate interview comes when it is completed. Source: /guides/sending-invites
_DEFAULT_EVENT: Final = CandidateInterviewCompleted.NAME


@define(eq=False)
class Ingest:
    """What stands between the network and the inbox."""

    secrets: tuple[str, ...] = field(repr=False)
    unsigned_token: str | None = field(repr=False)
    tolerance: float
    max_body: int
    inbox: Inbox
    handlers: Handlers
    clock: Clock
    on_new: Callable[[], None]
    listeners: Listeners = field(factory=Listeners)
    last_event_at: datetime | None = None
    _turns: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def take(
        self,
        body: bytes,
        headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]],
        path: str | None,
    ) -> WebhookReply:
        """Return the answer to a delivery; a trusted one is stored by then."""
        try:
            body = signatures.bytes_of(body)
            if len(body) > self.max_body:
                return WebhookReply.too_large()
            event, text = await self._verified(body, headers, path)
        except WebhookVerificationError as error:
            status = 400 if error.reason is WebhookFailure.MALFORMED_BODY else 401
            _log.info("A webhook delivery was refused: %s", error.reason)
            return WebhookReply.refused(status, error.reason)
        self.last_event_at = datetime.fromtimestamp(self.clock.wall(), UTC)
        return await self._kept(event, text)

    async def keep(self, event: WebhookEvent, text: str) -> PutResult:
        """Store an event; if it is new, tell who listens and wake the worker."""
        entry = self._entry(event, text)
        try:
            taken = await self.inbox.put(entry, self.handlers.names_for(event))
        finally:
            # Cancelled, it may be stored all the same.
            self.on_new()
        if taken is PutResult.NEW:
            self.listeners.tell(event.event, event.ids)
        return taken

    def is_wanted(self, event: WebhookEvent) -> bool:
        """Tell whether a handler or a listener is there for an event."""
        return bool(self.handlers.names_for(event)) or not self.listeners.is_empty

    async def knows(self, event: WebhookEvent, text: str) -> bool:
        """Tell whether `keep` would find that this was told already."""
        return await self.inbox.knows(self._entry(event, text))

    def _entry(self, event: WebhookEvent, text: str) -> StoredEvent:
        default = None if event.signed else _DEFAULT_EVENT
        return stored(event, text, received_at=self.clock.wall(), default_event=default)

    async def _verified(
        self,
        body: bytes,
        headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]],
        path: str | None,
    ) -> tuple[WebhookEvent, str]:
        """Return the event and the text it was read from, if they can be trusted."""
        if self._is_unsigned(path):
            text = body.decode("utf-8", "replace")
            return decode_event(text, signed=False, default_event=_DEFAULT_EVENT), text
        header = signature_in(headers)
        if len(body) <= _LARGEST_INLINE:
            signed = self._check(body, header)
        else:
            async with self._turn():
                signed = await asyncio.to_thread(self._check, body, header)
        return decode_event(signed.text), signed.text

    def _turn(self) -> asyncio.Semaphore:
        """Return what lets one large body at a time be checked.

        Threads that parse take the interpreter from the loop, and anybody can send
        large bodies with a wrong signature: with many at once nobody would be answered.
        """
        loop = asyncio.get_running_loop()
        if self._turns is None or self._turns[0] is not loop:
            self._turns = (loop, asyncio.Semaphore(1))
        return self._turns[1]

    def _check(self, body: bytes, header: str | None) -> signatures.VerifiedPayload:
        return signatures.verify(
            body, header, secrets=self.secrets, tolerance=self.tolerance, now=self.clock.wall()
        )

    def _is_unsigned(self, path: str | None) -> bool:
        """Tell whether a request came by the address that nobody can guess."""
        if self.unsigned_token is None or path is None:
            return False
        last = path.rstrip("/").rpartition("/")[2]
        token = self.unsigned_token.encode()
        return hmac.compare_digest(last.encode("utf-8", "surrogatepass"), token)

    async def _kept(self, event: WebhookEvent, text: str) -> WebhookReply:
        try:
            async with asyncio.timeout(_LONGEST_PUT):
                taken = await self.keep(event, text)
        except Exception as error:
            _log.error("A webhook event could not be stored (%s): answered 503", _kind(error))
            return WebhookReply.unavailable("inbox_not_writable")
        if taken is PutResult.FULL:
            _log.error("The webhook inbox is full: answered 503")
            return WebhookReply.unavailable("inbox_full")
        return WebhookReply.taken(is_duplicate=taken is PutResult.DUPLICATE)


def _kind(error: Exception) -> str:
    return type(error).__name__
