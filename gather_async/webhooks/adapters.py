"""Adapters for ASGI, aiohttp's server and AWS Lambda.

No framework is imported: any can mount the ASGI application, and aiohttp's server, which a user
may not have, is imported with its first request.
"""

import asyncio
import base64
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote

from attrs import field, frozen

from gather_async.errors import WebhookFailure
from gather_async.observability import log_fields
from gather_async.webhooks.ingest import WebhookReply

if TYPE_CHECKING:
    from aiohttp import web

__all__ = [
    "ASGIApp",
    "LambdaReply",
    "LambdaRequest",
    "Receiver",
    "WebhookApp",
    "aiohttp_handler",
    "receive_lambda",
]

_log = logging.getLogger("gather_async.webhooks")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

_OK: Final = 200
_DRAIN_TIMEOUT: Final = 1.0  # seconds in which the rest of a body is thrown away
_DRAIN_LIMIT: Final = 64  # of the largest body


class Receiver(Protocol):
    """The part of a receiver that an adapter needs."""

    async def receive(
        self, body: bytes, headers: Any, *, path: str | None = None, tenant: str | None = None
    ) -> WebhookReply:
        """Take one delivery."""
        ...

    async def start_and_receive(
        self, body: bytes, headers: Any, *, path: str | None = None, tenant: str | None = None
    ) -> WebhookReply:
        """Take one delivery, and start first if nothing did."""
        ...

    def lifespan(self, app: object = None) -> contextlib.AbstractAsyncContextManager[None]:
        """Start, and drain at the end."""
        ...


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
            await self._lifespan(receive, send)
        elif self._otherwise is not None and not self._is_ours(scope):
            await self._otherwise(scope, receive, send)
        elif kind == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def _is_ours(self, scope: Scope) -> bool:
        return bool(scope["type"] == "http") and self._below_ours(scope) is not None

    def _below_ours(self, scope: Scope) -> str | None:
        """Return what of the path stands below ours; None if it is another application's."""
        ours = "/" + (self._path or "").strip("/")
        # Servers differ in whether the path begins with the root path; and what a gateway leaves
        # in the address, uvicorn puts before it again.
        root = str(scope.get("root_path") or "")
        once = _path_below(path := _full_path(scope), root)
        for each in (path, once, _path_below(once, root)):
            if each == ours or each.startswith(f"{ours}/"):
                return each.removeprefix(ours)
        return None

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start and drain with the server."""
        lifespan = self._hooks.lifespan()
        while True:
            word = (await receive())["type"].rpartition(".")[2]
            try:
                if word == "startup":
                    await lifespan.__aenter__()
                else:
                    await lifespan.__aexit__(None, None, None)
            except Exception as error:
                extra = log_fields(error=error)
                _log.exception("The webhook receiver failed at %s", word, extra=extra)
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
            await self._refuse_large(receive, send)
        elif not isinstance(body, _Disconnected):
            tenant, path = self._tenant_of(scope), scope.get("path")
            headers = scope["headers"]
            reply = await self._hooks.start_and_receive(body, headers, path=path, tenant=tenant)
            await _send(send, reply)

    def _tenant_of(self, scope: Scope) -> str | None:
        """Return the tenant that a router found, or that stands below the mount."""
        found = (scope.get("path_params") or {}).get("tenant")
        if found is not None:
            return str(found)
        root = str(scope.get("root_path") or "")
        if self._path is not None:
            below = self._below_ours(scope) or ""
        else:
            below = _path_below(_full_path(scope), root) if root else ""
        return below.strip("/") or None

    async def _read(self, scope: Scope, receive: Receive) -> "bytes | _Disconnected | None":
        """Return the body; None if it is too large, of which no more is kept than the limit."""
        if _declared(scope) > self._max_body:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return _Disconnected()
            body += message.get("body", b"")
            if len(body) > self._max_body:
                return None
            if not message.get("more_body", False):
                return bytes(body)

    async def _refuse_large(self, receive: Receive, send: Send) -> None:
        """Answer at once, and hang up only when the sender has sent most of what it wants to.

        To hang up on one that still sends resets the connection, and many a sender
        reads no answer before it has sent everything.
        """
        thrown_away = 0
        await _send(send, WebhookReply.too_large(), is_last=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_TIMEOUT):
                while thrown_away < _DRAIN_LIMIT * self._max_body:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    thrown_away += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b""})


def _full_path(scope: Scope) -> str:
    return "/" + str(scope.get("path", "")).strip("/")


def _path_below(path: str, root: str) -> str:
    """Return the path below the application's mount."""
    root = "/" + root.strip("/")
    is_below = path == root or path.startswith(f"{root}/")
    return "/" + path.removeprefix(root).strip("/") if is_below else path


class _Disconnected:
    """The sender hung up."""


def _declared(scope: Mapping[str, Any]) -> int:
    """Return the length that the headers promise; 0 if they don't, or make no sense."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.isdigit() and len(value) < 20:
            return int(value)
    return 0


async def _send(
    send: Send, reply: WebhookReply, *, with_body: bool = True, is_last: bool = True
) -> None:
    # Head and body are two writes. Over a listening socket that uvicorn was given, or shares
    # between workers, asyncio leaves Nagle's algorithm on, and the second waits for 40 ms.
    body = b"" if reply.status == _OK else reply.body.encode()
    headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    headers.append((b"content-length", str(len(body)).encode()))
    # The sender may be gone by now; it will try again.
    with contextlib.suppress(OSError):
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        content = body if with_body else b""
        await send({"type": "http.response.body", "body": content, "more_body": not is_last})


def aiohttp_handler(
    hooks: Receiver, *, max_body: int, body_timeout: float
) -> "Callable[[web.Request], Awaitable[web.StreamResponse]]":
    """Return a request handler that takes deliveries by POST."""

    async def handle(request: "web.Request") -> "web.StreamResponse":
        from aiohttp import web  # noqa: PLC0415 - a server that a user may not have

        if request.method != "POST":
            return _response(WebhookReply.wrong_method())
        try:
            async with asyncio.timeout(body_timeout):
                body = await _read(request, max_body)
        except TimeoutError:
            return _response(WebhookReply.too_slow())
        except (web.RequestPayloadError, web.HTTPBadRequest):
            # Such as a body that isn't what its Content-Encoding says.
            return _response(WebhookReply.refused(400, WebhookFailure.MALFORMED_BODY))
        if body is None:
            return _response(WebhookReply.too_large())
        tenant, path = request.match_info.get("tenant"), request.path
        headers = request.headers.items()
        return _response(await hooks.start_and_receive(body, headers, path=path, tenant=tenant))

    return handle


async def _read(request: "web.Request", max_body: int) -> bytes | None:
    """Return the body; None if it is too large, of which no more is kept than the limit.

    Raises:
        HTTPBadRequest: A part of it was read before, and is gone.
    """
    from aiohttp import web  # noqa: PLC0415 - as above

    if (request.content_length or 0) > max_body:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > max_body:
            return None
    if not body:
        # A middleware may have read it; aiohttp keeps what `read` returned.
        body += await request.read()
    is_plain = "Content-Encoding" not in request.headers
    if is_plain and request.content_length not in {None, len(body)}:
        _log.error(
            "A webhook's body was taken from its stream before the receiver could read it: "
            "let middlewares call request.read(), which keeps it."
        )
        raise web.HTTPBadRequest
    return bytes(body) if len(body) <= max_body else None


def _response(reply: WebhookReply) -> "web.Response":
    from aiohttp import web  # noqa: PLC0415 - as above

    response = web.Response(status=reply.status, body=reply.body.encode(), headers=reply.headers)
    if reply.headers.get("connection") == "close":
        response.force_close()
    return response


@frozen
class LambdaRequest:
    """A request as API Gateway, a Lambda URL or a load balancer hands it over.

    Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """

    method: str
    path: str | None
    headers: Mapping[str, Any] = field(repr=False)
    body: bytes | None = field(repr=False)
    """None if it is no base64, though it should be, or no text."""
    tenant: str | None
    is_listed: bool
    """Whether headers come, and go, as lists alone: a load balancer with multi-value headers."""

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> "LambdaRequest":
        """Return the request of an event of either payload version."""
        http = (event.get("requestContext") or {}).get("http") or {}
        path = event.get("rawPath") or event.get("path") or http.get("path")
        # Version 1 has each value in the lists, and the last one alone beside them.
        headers = event.get("multiValueHeaders") or event.get("headers") or {}
        return cls(
            method=str(event.get("httpMethod") or http.get("method") or "").upper(),
            path=None if path is None else unquote(path),
            headers=headers,
            body=_lambda_body(event),
            tenant=(event.get("pathParameters") or {}).get("tenant"),
            is_listed="multiValueHeaders" in event and "headers" not in event,
        )


def _lambda_body(event: Mapping[str, Any]) -> bytes | None:
    body = event.get("body") or ""
    if not isinstance(body, str | bytes):  # parsed before it came here
        return None
    raw = body if isinstance(body, bytes) else str(body).encode("utf-8", "surrogatepass")
    if not event.get("isBase64Encoded"):
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except ValueError:
        return None


class LambdaReply(dict[str, Any]):
    """Reply of a Lambda function; also reads like a `WebhookReply`."""

    def __init__(self, reply: WebhookReply, *, is_listed: bool = False) -> None:
        super().__init__(statusCode=reply.status, headers=dict(reply.headers), body=reply.body)
        if is_listed:
            self["multiValueHeaders"] = {name: [each] for name, each in reply.headers.items()}

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self["statusCode"])

    @property
    def body(self) -> str:
        """JSON text, as of a `WebhookReply`."""
        return str(self["body"])

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields, names in lower case."""
        found: Mapping[str, str] = self["headers"]
        return found


async def receive_lambda(hooks: Receiver, event: Mapping[str, Any]) -> LambdaReply:
    """Take one delivery as AWS Lambda gets it; see `WebhookReceiver.receive_lambda`."""
    request = LambdaRequest.of(event)
    if request.method != "POST":
        reply = WebhookReply.wrong_method()
    elif request.body is None:
        reply = WebhookReply.refused(400, WebhookFailure.MALFORMED_BODY)
    else:
        reply = await hooks.receive(
            request.body, request.headers, path=request.path, tenant=request.tenant
        )
    return LambdaReply(reply, is_listed=request.is_listed)
