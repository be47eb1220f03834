"""Adapters for aiohttp's server, which is imported with the first request, and AWS Lambda."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from attrs import field, frozen

from gather_async.errors import WebhookFailure
from gather_async.webhooks.adapters import Receiver
from gather_async.webhooks.ingest import WebhookReply

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["LambdaReply", "LambdaRequest", "aiohttp_handler", "receive_lambda"]


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
        if not await hooks.ensure_started():
            return _response(WebhookReply.unavailable("not_started"))
        tenant = request.match_info.get("tenant")
        headers = request.headers.items()
        return _response(await hooks.receive(body, headers, path=request.path, tenant=tenant))

    return handle


async def _read(request: "web.Request", max_body: int) -> bytes | None:
    """Return the body; None if it is too large, of which no more is kept than the limit."""
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
    """None if it is no base64, though it should be."""
    tenant: str | None

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
        )


def _lambda_body(event: Mapping[str, Any]) -> bytes | None:
    body = event.get("body") or ""
    raw = body if isinstance(body, bytes) else str(body).encode("utf-8", "surrogatepass")
    if not event.get("isBase64Encoded"):
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except ValueError:
        return None


class LambdaReply(dict[str, Any]):
    """Reply of a Lambda function; also reads like a `WebhookReply`."""

    def __init__(self, reply: WebhookReply) -> None:
        super().__init__(statusCode=reply.status, headers=dict(reply.headers), body=reply.body)

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
        return LambdaReply(WebhookReply.wrong_method())
    if request.body is None:
        return LambdaReply(WebhookReply.refused(400, WebhookFailure.MALFORMED_BODY))
    reply = await hooks.receive(
        request.body, request.headers, path=request.path, tenant=request.tenant
    )
    return LambdaReply(reply)
