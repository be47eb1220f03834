"""Real servers over real sockets, signed by Node: each framework takes, refuses and drains."""

import asyncio
import atexit
import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gather_async.webhooks import WebhookEvent, WebhookReceiver, sample

SECRET = "s3cret"
NODE = shutil.which("node") or shutil.which("nodejs")
PATH = "/webhooks/gather"
PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
APPS = [block for block in BLOCKS if "\napp = " in block]
# Those that need a server of PostgreSQL or Redis are run where one is.
DATABASES = ("DATABASE_URL", "REDIS_URL")
PROGRAMS = [b for b in BLOCKS if "\napp = " not in b and not any(s in b for s in DATABASES)]

# The vendor's sample in its own words: the signature is over JSON.stringify of the body.
SENDER = """
const { createHmac } = require("crypto");
const http = require("http");
const { url, secret, payload, pretty } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const t = String(Math.floor(Date.now() / 1000));
const v1 = createHmac("sha256", secret).update(`${t}.${JSON.stringify(payload)}`).digest("hex");
const headers = {
  "Content-Type": "application/json",
  "X-Qualifi-Signature": `t=${t},v1=${v1}`,
  "Connection": "close",
};
const request = http.request(url, { method: "POST", headers }, answer => {
  answer.resume();
  answer.on("end", () => console.log(answer.statusCode));
});
request.end(JSON.stringify(payload, null, pretty ? 2 : 0));
"""


class Service:
    """A receiver, and what its handler got."""

    def __init__(self) -> None:
        self.hooks = WebhookReceiver(SECRET, max_body=10_000, body_timeout=0.3)
        self.seen: list[WebhookEvent] = []

        @self.hooks.on("*")
        async def note(event: WebhookEvent) -> None:
            self.seen.append(event)


@contextlib.asynccontextmanager
async def uvicorn_serving(app: Any, *, lifespan: Any = "on") -> AsyncIterator[str]:
    """Serve an ASGI application on a free port."""
    uvicorn = pytest.importorskip("uvicorn")
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan=lifespan, log_level="error", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listening.close()


@contextlib.asynccontextmanager
async def serving_fastapi(service: Service) -> AsyncIterator[str]:
    """Serve FastAPI: mounted, and started by its lifespan."""
    app = pytest.importorskip("fastapi").FastAPI(lifespan=service.hooks.lifespan)
    app.mount(PATH, service.hooks.asgi())
    async with uvicorn_serving(app) as url:
        yield f"{url}{PATH}/"


@contextlib.asynccontextmanager
async def serving_starlette(service: Service) -> AsyncIterator[str]:
    """Serve Starlette: a route of its own, without a slash at the end."""
    applications = pytest.importorskip("starlette.applications")
    routes = [pytest.importorskip("starlette.routing").Route(PATH, service.hooks.asgi())]
    app = applications.Starlette(routes=routes, lifespan=service.hooks.lifespan)
    async with uvicorn_serving(app) as url:
        yield url + PATH


@contextlib.asynccontextmanager
async def serving_litestar(service: Service) -> AsyncIterator[str]:
    """Serve Litestar: mounted as an ASGI handler."""
    litestar = pytest.importorskip("litestar")
    mounted = litestar.asgi(PATH, is_mount=True, copy_scope=True)(service.hooks.asgi())
    app = litestar.Litestar(
        route_handlers=[mounted],
        lifespan=[service.hooks.lifespan],
        logging_config=None,  # its queue's thread outlives the application
    )
    async with uvicorn_serving(app) as url:
        yield url + PATH


@contextlib.asynccontextmanager
async def serving_django(service: Service) -> AsyncIterator[str]:
    """Serve Django's ASGI application behind the receiver, which keeps the lifespan."""
    django = pytest.importorskip("django")
    settings = pytest.importorskip("django.conf").settings
    if not settings.configured:
        settings.configure(ROOT_URLCONF=(), SECRET_KEY="x", ALLOWED_HOSTS=["*"])
        django.setup()
    app = service.hooks.asgi(
        path=PATH, otherwise=pytest.importorskip("django.core.asgi").get_asgi_application()
    )
    async with uvicorn_serving(app) as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/elsewhere") as response:
            assert response.status == 404
            assert "Not Found" in await response.text()
        yield url + PATH


@contextlib.asynccontextmanager
async def serving_alone(service: Service) -> AsyncIterator[str]:
    """Serve the receiver as the server's own application."""
    async with uvicorn_serving(service.hooks.asgi()) as url:
        yield url + PATH


@contextlib.asynccontextmanager
async def serving_aiohttp(service: Service) -> AsyncIterator[str]:
    """Serve aiohttp.web."""
    app = web.Application()
    app.router.add_route("*", PATH, service.hooks.aiohttp_handler())
    app.cleanup_ctx.append(service.hooks.cleanup_ctx)
    async with aiohttp_serving(app) as url:
        yield url + PATH


@contextlib.asynccontextmanager
async def aiohttp_serving(app: web.Application) -> AsyncIterator[str]:
    """Serve an aiohttp application on a free port."""
    runner = web.AppRunner(app, lingering_time=0.1)
    await runner.setup()
    site = web.SockSite(runner, socket.create_server(("127.0.0.1", 0)))
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


SERVERS = {
    "fastapi": serving_fastapi,
    "starlette": serving_starlette,
    "litestar": serving_litestar,
    "django": serving_django,
    "alone": serving_alone,
    "aiohttp": serving_aiohttp,
}
Serving = Callable[[Service], contextlib.AbstractAsyncContextManager[str]]


@pytest.fixture(params=list(SERVERS))
def serving(request: pytest.FixtureRequest) -> Serving:
    """Give each way of serving."""
    found: Serving = SERVERS[request.param]
    return found


async def send_from_node(url: str, payload: Any, *, pretty: bool) -> int:
    """Send a signed event as the vendor's sample does; return the status."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, "-e", SENDER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    order = {"url": url, "secret": SECRET, "payload": payload, "pretty": pretty}
    printed, _ = await process.communicate(json.dumps(order).encode())
    return int(printed)


@pytest.mark.skipif(NODE is None, reason="Node is not on this machine")
async def test_signed_by_node(serving: Serving) -> None:
    """What Node signs and sends is answered with 200, repeated or reformatted, and handled once."""
    service = Service()
    payload = {"event": "question.audio_generated", "timestamp": "2026-01-01", "data": {"id": "é"}}
    async with serving(service) as url:
        assert service.hooks.alive
        assert await send_from_node(url, payload, pretty=True) == 200
        assert await send_from_node(url, payload, pretty=False) == 200
    assert [event.data for event in service.seen] == [{"id": "é"}]
    assert not service.hooks.alive


async def test_refusals(serving: Serving) -> None:
    """Forged, malformed, oversized and wrongly sent requests get their status, no handler runs."""
    service = Service()
    good, forged = sample("x", secret=SECRET), sample("x", secret=SECRET, tamper=True)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 4096

    async with serving(service) as url, aiohttp.ClientSession() as session:
        for body, headers, status in (
            (forged.body, forged.headers, 401),
            (good.body, {}, 401),
            (b"x" * 10_001, good.headers, 413),
            (good.body, good.headers, 200),
        ):
            async with session.post(url, data=body, headers=headers) as response:
                assert response.status == status, await response.text()
        for method in ("GET", "PUT"):
            async with session.request(method, url) as response:
                assert (response.status, response.headers["allow"]) == (405, "POST")
        # A server may hang up while the body is still being sent.
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with session.post(url, data=endless()) as response:
                assert response.status == 413
    assert len(service.seen) == 1


async def test_slow_senders_hold_no_one_up(serving: Serving) -> None:
    """While 50 senders drip their bodies another is served; the slow ones are answered 408."""
    service = Service()
    delivery = sample("x", secret=SECRET)
    async with serving(service) as url, aiohttp.ClientSession() as session:
        host, _, path = url.removeprefix("http://").partition("/")
        name, _, port = host.partition(":")
        slow = [await asyncio.open_connection(name, int(port)) for _ in range(50)]
        for _, writer in slow:
            head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n{{"
            writer.write(head.encode())
        async with session.post(url, data=delivery.body, headers=delivery.headers) as response:
            assert response.status == 200
        lines = [await reader.readline() for reader, _ in slow]
        for _, writer in slow:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    assert {line.split()[1] for line in lines} == {b"408"}
    assert len(service.seen) == 1


async def test_sender_that_hangs_up(serving: Serving) -> None:
    """A sender that leaves in the middle of its body harms nothing, and the next one is served."""
    service = Service()
    delivery = sample("x", secret=SECRET)
    async with serving(service) as url, aiohttp.ClientSession() as session:
        host, _, path = url.removeprefix("http://").partition("/")
        name, _, port = host.partition(":")
        _, writer = await asyncio.open_connection(name, int(port))
        writer.write(
            f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n{{".encode()
        )
        await writer.drain()
        writer.transport.abort()
        async with session.post(url, data=delivery.body, headers=delivery.headers) as response:
            assert response.status == 200
    assert len(service.seen) == 1


def test_start_that_fails_stops_the_server() -> None:
    """A receiver that can't start is reported through the lifespan, not hidden."""
    hooks = WebhookReceiver(SECRET)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    other = asyncio.new_event_loop()
    other.run_until_complete(hooks.start())
    asyncio.run(hooks.asgi()({"type": "lifespan"}, receive, send))
    other.run_until_complete(hooks.aclose())
    other.close()
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "another event loop" in sent[0]["message"]


async def test_receiver_that_runs_already_is_left_running() -> None:
    """A server inside ``async with hooks`` doesn't fail, nor close what others started."""
    service = Service()
    delivery = sample("x", secret=SECRET)
    async with service.hooks:
        for _ in range(2):
            async with (
                uvicorn_serving(service.hooks.asgi()) as url,
                aiohttp.ClientSession() as session,
                session.post(url, data=delivery.body, headers=delivery.headers) as response,
            ):
                assert response.status == 200
            assert service.hooks.alive
    assert not service.hooks.alive
    assert len(service.seen) == 1


async def test_ok_is_one_write() -> None:
    """The answer 200 has no body over ASGI, so that no network delay comes between two writes."""
    delivery = sample("x", secret=SECRET)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": delivery.body}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in delivery.headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    hooks = Service().hooks
    await hooks.asgi()(scope, receive, send)
    await hooks.aclose()
    start, body = sent
    assert start["status"] == 200
    assert (b"content-length", b"0") in start["headers"]
    assert (body["body"], body["more_body"]) == (b"", False)


async def test_rest_of_a_large_body_is_thrown_away() -> None:
    """A body that is too large is answered at once, and read on so that the answer arrives."""
    log: list[str] = []
    chunks = iter([b"x" * 6_000, b"x" * 6_000, *[b"x" * 100_000] * 3])

    async def receive() -> dict[str, Any]:
        log.append("read")
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: Any) -> None:
        log.append(f"{message.get('status', 'body')} {message.get('more_body')}")

    await Service().hooks.asgi()(
        {"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send
    )
    assert log == ["read"] * 2 + ["413 None", "body True"] + ["read"] * 4 + ["body None"]


async def test_endless_body_is_not_read_for_ever() -> None:
    """Of a body without end a bounded part is thrown away; then the connection is given up."""
    reads = 0

    async def receive() -> dict[str, Any]:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": True}

    async def send(message: Any) -> None: ...

    await Service().hooks.asgi()(
        {"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send
    )
    assert reads == 2 + 64


async def test_websockets_are_refused() -> None:
    """A websocket is closed at once."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await WebhookReceiver(SECRET).asgi()({"type": "websocket", "path": "/"}, None, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.fixture
def litestar_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the threads of Litestar's logging, which otherwise end with the process."""
    listener = pytest.importorskip("litestar.logging.standard").LoggingQueueListener
    start, started = listener.start, []

    def note(self: Any) -> None:
        started.append(self)
        start(self)

    monkeypatch.setattr(listener, "start", note)
    yield
    for each in started:
        atexit.unregister(each.stop)
        each.stop()


@pytest.mark.parametrize("block", APPS, ids=lambda block: re.findall(r"from (\w+)", block)[0])
async def test_applications_of_the_page(
    block: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Each application of the page takes a delivery on a real server, and runs its handlers."""
    imported = re.findall(r"^from (fastapi|starlette|litestar|django)\b", block, re.MULTILINE)
    for name in imported:
        pytest.importorskip(name)
    if imported == ["litestar"]:
        request.getfixturevalue("litestar_logging")
    monkeypatch.setenv("GATHER_WEBHOOK_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block, str(PAGE), "exec"), names)
    seen = asyncio.Event()

    async def note(event: WebhookEvent) -> None:
        seen.set()

    names["hooks"].on("*", name="note")(note)
    delivery = sample("candidate_interview.completed", secret=SECRET)
    serving = uvicorn_serving if imported else aiohttp_serving
    async with serving(names["app"]) as url, aiohttp.ClientSession() as session:
        async with session.post(
            url + PATH, data=delivery.body, headers=delivery.headers
        ) as response:
            assert response.status == 200
        await seen.wait()


@pytest.mark.parametrize("block", PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs_of_the_page(block: str, tmp_path: Path) -> None:
    """Each program of the page runs as it is."""
    arguments = [sys.executable, "-W", "error", "-c", block]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_page_was_found() -> None:
    """The page has its applications and programs, so that the tests above test something."""
    assert (len(APPS), len(PROGRAMS)) == (6, 4)
