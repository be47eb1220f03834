"""A handler for aiohttp's server, which is imported with the first request."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gather_async.webhooks.asgi import Receiver
from gather_async.webhooks.reply import WebhookReply

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["aiohttp_handler"]


def aiohttp_handler(
    hooks: Receiver, *, max_body: int, body_timeout: float
) -> "Callable[[web.Request], Awaitable[web.StreamResponse]]":
    """Return a request handler that takes deliveries by POST."""

    async def take(request: "web.Request") -> "web.StreamResponse":
        if request.method != "POST":
            return _response(WebhookReply.wrong_method())
        try:
            async with asyncio.timeout(body_timeout):
                body = await _read(request, max_body)
        except TimeoutError:
            return _response(WebhookReply.too_slow())
        if body is None:
            return _response(WebhookReply.too_large())
        return _response(await hooks.receive(body, request.headers.items(), path=request.path))

    return take


async def _read(request: "web.Request", max_body: int) -> bytes | None:
    """Return the body; None if it is too large, of which no more is kept than the limit."""
    if (request.content_length or 0) > max_body:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > max_body:
            return None
    return bytes(body)


def _response(reply: WebhookReply) -> "web.Response":
    from aiohttp import web  # noqa: PLC0415 - a server that nobody may want

    response = web.Response(status=reply.status, body=reply.body.encode(), headers=reply.headers)
    if reply.headers.get("connection") == "close":
        response.force_close()
    return response
