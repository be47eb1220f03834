"""Middlewares of aiohttp's server that read a delivery before the receiver does."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gather_async.webhooks import WebhookReceiver, sample

SECRET = "s3cret"

Read = Callable[[web.Request], Awaitable[Any]]


@pytest.mark.parametrize(
    ("read", "status"),
    [
        (web.Request.read, 200),
        (web.Request.json, 200),
        (web.Request.post, 200),
        (lambda request: request.content.read(), 400),
        (lambda request: request.content.read(10), 400),
    ],
    ids=["read", "json", "post", "whole stream", "part of the stream"],
)
async def test_body_that_was_read_before(
    read: Read, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What aiohttp keeps is verified; what is gone is no wrong signature, and the log says why."""
    caplog.set_level(logging.ERROR, "gather_async.webhooks")
    hooks = WebhookReceiver(SECRET)

    @web.middleware
    async def reading(request: web.Request, handler: Any) -> web.StreamResponse:
        await read(request)
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(middlewares=[reading])
    app.router.add_post("/", hooks.aiohttp_handler())
    app.cleanup_ctx.append(hooks.cleanup_ctx)
    delivery = sample("interview.updated", secret=SECRET)
    async with TestClient(TestServer(app)) as client:
        reply = await client.post("/", data=delivery.body, headers=delivery.headers)
        assert reply.status == status
    assert caplog.text.count("request.read()") == (status == 400)
