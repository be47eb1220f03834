"""A raw ASGI application: no framework is imported, any can mount it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from attrs import field, frozen

from gather_async.webhooks.reply import WebhookReply

__all__ = ["ASGIApp", "Receiver", "WebhookApp"]

_log = logging.getLogger("gather_async.webhooks")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Receiver(Protocol):
    """What an adapter needs of a receiver."""

    async def receive(self, body: bytes, headers: Any, *, path: str | None = None) -> WebhookReply:
        """Take one delivery."""
        ...

    async def start(self) -> None:
        """Run handlers from now on."""

    async def aclose(self) -> None:
        """Drain and close."""


@frozen(eq=False)
class WebhookApp:
    """An ASGI application that takes deliveries by POST.

    As the server's own application it starts and drains the receiver with the
    server. Mounted in another, it leaves that to the other's lifespan.
    """

    _hooks: Receiver
    _max_body: int
    _body_timeout: float
    _path: str | None = None
    _otherwise: ASGIApp | None = field(default=None, repr=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(receive, send)
        elif self._otherwise is not None and not self._is_ours(scope):
            await self._otherwise(scope, receive, send)
        elif kind == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def _is_ours(self, scope: Scope) -> bool:
        path = str(scope.get("path", "")).rstrip("/")
        ours = (self._path or "").rstrip("/")
        is_http = bool(scope["type"] == "http")
        return is_http and (path == ours or path.startswith(f"{ours}/"))

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start and drain with the server."""
        while True:
            word = (await receive())["type"].rpartition(".")[2]
            try:
                await (self._hooks.start() if word == "startup" else self._hooks.aclose())
            except Exception as error:
                _log.exception("The webhook receiver failed at %s", word)
                await send({"type": f"lifespan.{word}.failed", "message": str(error)})
                return
            await send({"type": f"lifespan.{word}.complete"})
            if word == "shutdown":
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await _send(send, WebhookReply.wrong_method(), with_body=scope["method"] != "HEAD")
            return
        try:
            async with asyncio.timeout(self._body_timeout):
                body = await self._read(scope, receive)
        except TimeoutError:
            await _send(send, WebhookReply.too_slow())
            return
        if body is None:
            await _send(send, WebhookReply.too_large())
        elif not isinstance(body, _Gone):
            reply = await self._hooks.receive(body, scope["headers"], path=scope.get("path"))
            await _send(send, reply)

    async def _read(self, scope: Scope, receive: Receive) -> "bytes | _Gone | None":
        """Return the body; None if it is too large, of which no more is kept than the limit."""
        if _declared(scope) > self._max_body:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return _Gone()
            body += message.get("body", b"")
            if len(body) > self._max_body:
                return None
            if not message.get("more_body", False):
                return bytes(body)


class _Gone:
    """The sender hung up."""


def _declared(scope: Mapping[str, Any]) -> int:
    """Return the length that the headers promise; 0 if they don't, or make no sense."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.isdigit() and len(value) < 20:
            return int(value)
    return 0


async def _send(send: Send, reply: WebhookReply, *, with_body: bool = True) -> None:
    body = reply.body.encode()
    headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    headers.append((b"content-length", str(len(body)).encode()))
    # The sender may be gone by now; it will try again.
    with contextlib.suppress(OSError):
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body if with_body else b""})
