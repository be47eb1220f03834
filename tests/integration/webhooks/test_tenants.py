"""Receivers of many tenants: where their names and secrets come from, and what goes wrong there."""

from typing import Any

import httpx
import pytest

from gather_async.webhooks import WebhookReceiver, sample

TENANTS = {"acme": "s1", "globex": "s2"}


async def other_application(scope: Any, receive: Any, send: Any) -> None:
    """Answer 404 to everything."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"not ours"})


@pytest.mark.parametrize("secrets", [TENANTS, TENANTS.get], ids=["mapping", "function"])
@pytest.mark.parametrize("path", [None, "/webhooks/gather", "webhooks/gather/"])
@pytest.mark.parametrize(
    ("root_path", "before"),
    [("", ""), ("/api", ""), ("/api", "/api"), ("/api/", "/api"), ("/web", "")],
)
async def test_root_path_before_the_tenant(
    secrets: Any, path: str | None, root_path: str, before: str
) -> None:
    """A server's own receiver finds the tenant with and without the server's root path."""
    hooks = WebhookReceiver(secrets=secrets)
    app = hooks.asgi() if path is None else hooks.asgi(path=path, otherwise=other_application)
    delivery = sample("interview.updated", secret="s2")
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://s.invalid") as sender:

        async def status(tail: str) -> int:
            reply = await sender.post(
                f"{before}/webhooks/gather{tail}", content=delivery.body, headers=delivery.headers
            )
            return reply.status_code

        assert await status("/globex") == 200
        assert await status("/globex/") == 200
        assert await status("/acme") == 401
        assert await status("/unknown") == 404
        assert await status("") == (200 if secrets is TENANTS else 404)
    await hooks.aclose()


async def test_mapping_that_became_empty() -> None:
    """With no tenant left, a delivery without one is for an unknown tenant, not a failure."""
    table = dict(TENANTS)
    hooks = WebhookReceiver(secrets=table)
    table.clear()
    delivery = sample("interview.updated", secret="s1")
    assert (await hooks.receive(delivery.body, delivery.headers)).status == 404
    await hooks.aclose()
