"""Receivers of many tenants: where their names and secrets come from, and what goes wrong there."""

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import pytest

from gather_async.errors import ConfigurationError
from gather_async.testing import VirtualClock
from gather_async.webhooks import EventState, MemoryInbox, WebhookReceiver, sample, verify

TENANTS = {"acme": "s1", "globex": "s2"}


@pytest.mark.parametrize(
    ("root_path", "sent", "status"),
    [
        ("/api", "/api/webhooks/gather", 200),
        ("/api", "/api/api/webhooks/gather", 200),
        ("/api", "/api/api/api/webhooks/gather", 404),
        ("/web", "/webhooks/gather", 200),
        ("/we", "/webhooks/gather/", 200),
        ("", "/api/webhooks/gather", 404),
        ("/x", "/other/webhooks/gather", 404),
    ],
)
async def test_root_path_before_ours(root_path: str, sent: str, status: int) -> None:
    """A receiver beside another application has its path, whatever a gateway left before it."""
    hooks = WebhookReceiver(secrets=TENANTS)
    app = hooks.asgi(path="webhooks/gather", otherwise=other_application)
    delivery = sample("interview.updated", secret="s2")
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://s.invalid") as sender:
        for tail in ("", "/globex"):
            url = sent.rstrip("/") + tail
            reply = await sender.post(url, content=delivery.body, headers=delivery.headers)
            assert reply.status_code == status
    await hooks.aclose()


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


def test_names_are_not_taken_for_secrets() -> None:
    """A mapping of tenants' secrets is refused where one secret belongs: its keys are public."""
    secrets: Any = TENANTS
    with pytest.raises(ConfigurationError, match="secrets="):
        WebhookReceiver(secrets)
    nested: Any = {"acme": {"new": "s1"}}
    with pytest.raises(ConfigurationError, match=r"acme.*not dict"):
        WebhookReceiver(secrets=nested)
    delivery = sample("interview.updated", secret="acme")
    with pytest.raises(ConfigurationError, match="not dict"):
        verify(delivery.body, delivery.headers["x-qualifi-signature"], secret=secrets)


@pytest.mark.parametrize("secret", [bytearray(b"s1"), memoryview(b"s1")])
def test_kind_of_a_refused_secret_is_named(secret: Any) -> None:
    """What is bytes but neither text nor ``bytes`` is refused as what it is."""
    with pytest.raises(ConfigurationError, match=f"not {type(secret).__name__}"):
        WebhookReceiver(secret)


@pytest.mark.parametrize("tenant", [7, None, "", "/", b"acme"])
def test_tenant_that_no_path_can_name_is_refused(tenant: Any) -> None:
    """A tenant's name must be text: another one would get 404 for every delivery."""
    with pytest.raises(ConfigurationError, match="must be text"):
        WebhookReceiver(secrets={tenant: "s1"})


@pytest.mark.parametrize(
    ("options", "said"), [({"tenant_path": None}, "tenant_path"), ({"name": 5}, "name")]
)
def test_options_of_tenants_are_checked(options: Any, said: str) -> None:
    """What is no text is refused at construction, not with the first delivery."""
    with pytest.raises(ConfigurationError, match=said):
        WebhookReceiver(secrets=TENANTS, **options)
    with pytest.raises(ConfigurationError, match="unsigned_token"):
        WebhookReceiver("s1", unsigned_token=5)  # type: ignore[arg-type]  # on purpose


async def test_receivers_with_paths_of_their_own_share_an_inbox() -> None:
    """Each has its events, and its handlers run for no one else's, though none has a name."""
    inbox, got = MemoryInbox(), list[str]()
    paths = ("/webhooks/gather", "/hooks/eu", "hooks/us/")
    receivers = [WebhookReceiver(secrets=TENANTS, inbox=inbox, tenant_path=each) for each in paths]
    delivery = sample("interview.updated", secret="s1")
    async with AsyncExitStack() as stack:
        for path, hooks in zip(paths, receivers, strict=True):
            await stack.enter_async_context(hooks)
            hooks.on("interview.updated", name=path)(partial(_note, got, path))
        for path, hooks in zip(paths, receivers, strict=True):
            at = f"/{path.strip('/')}/acme"
            assert (await hooks.receive(delivery.body, delivery.headers, path=at)).status == 200
        while (await inbox.counts()).get(EventState.DONE) != len(paths):  # noqa: ASYNC110 - a store
            await asyncio.sleep(0.001)
    assert sorted(got) == sorted(paths)


async def _note(got: list[str], path: str, _: object) -> None:
    got.append(path)


async def test_mapping_that_became_empty() -> None:
    """With no tenant left, a delivery without one is for an unknown tenant, not a failure."""
    table = dict(TENANTS)
    hooks = WebhookReceiver(secrets=table)
    table.clear()
    delivery = sample("interview.updated", secret="s1")
    assert (await hooks.receive(delivery.body, delivery.headers)).status == 404
    await hooks.aclose()


def leave(_: str) -> None:
    """Ask the interpreter to exit."""
    sys.exit("enough")


async def hang(_: str) -> None:
    """Return never."""
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        (lambda _: "", "tenant 'acme' is blank"),
        (lambda _: "s1\n", "tenant 'acme' has a line break"),
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (leave, "SystemExit"),
        (hang, "TimeoutError"),
    ],
)
async def test_secrets_that_fail(secrets: Any, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """A function that fails, or hangs, is answered with 503 in time, and the log says why."""
    clock = VirtualClock()
    hooks = WebhookReceiver(secrets=secrets, clock=clock)
    at = datetime.fromtimestamp(clock.wall(), UTC)
    delivery, began = sample("interview.updated", secret="s1", at=at), clock.monotonic()
    with caplog.at_level(logging.ERROR, "gather_async.webhooks"):
        reply = await hooks.receive(delivery.body, delivery.headers, tenant="acme")
    assert (reply.status, "secrets_unavailable" in reply.body) == (503, True)
    (record,) = caplog.records
    assert said in record.getMessage()
    assert clock.monotonic() == began + (4.0 if secrets is hang else 0.0)
    await hooks.aclose()


@pytest.mark.parametrize("headers", ["x-qualifi-signature", [("one", "two", "three")], [5], 7])
async def test_headers_that_hold_no_pairs(headers: Any) -> None:
    """What holds no headers lacks the signature; it is no fault of the secrets."""
    for hooks in (WebhookReceiver("s1"), WebhookReceiver(secrets=TENANTS)):
        reply = await hooks.receive(b"{}", headers, tenant=None)
        assert (reply.status, "missing_header" in reply.body) == (401, True)
        await hooks.aclose()
