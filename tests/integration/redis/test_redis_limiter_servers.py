"""The shared quota on a cluster, behind Sentinel, and by TLS."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import RedisCluster
from redis.asyncio.sentinel import Sentinel

from gather_async.protocol.rolling_windows import RateLimit
from gather_async.redis import RedisLimiter
from tests.servers import RedisServer

_LIMITS = (RateLimit(4, per=0.3),)


class _Variant(RedisServer):
    """A Redis server with options of its own."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self.options = options

    def _command(self) -> Sequence[str]:
        return [*super()._command(), *self.options]


@contextmanager
def _running(server: RedisServer) -> Iterator[RedisServer]:
    try:
        server.start()
        yield server
    finally:
        server.delete()


async def _use(url: Any) -> None:
    """Take more slots than a window has."""
    async with RedisLimiter(url, key="k", rate_limits=_LIMITS, reserve=0) as limiter:
        began = time.monotonic()
        for _ in range(5):
            (await limiter.acquire(priority="interactive", max_wait=None)).answered(None)
        assert time.monotonic() - began >= 0.3
        assert limiter.status().as_of is not None


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15.0):
        while not condition():  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("redis_server")  # which skips where there is no Redis
async def test_a_cluster_keeps_the_quota() -> None:
    """A server in cluster mode takes the script, by a URL and by a cluster's client."""
    with _running(_Variant("--cluster-enabled", "yes")) as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await _until(
                lambda: "cluster_state:ok" in str(admin.execute_command("CLUSTER", "INFO"))
            )
        await _use(server.url)
        lent = RedisCluster(host="127.0.0.1", port=server.port)
        await _use(lent)
        await lent.aclose()


@pytest.mark.usefixtures("redis_server")
async def test_sentinel_names_the_server(tmp_path: Path) -> None:
    """The client that Sentinel's ``master_for`` returns is used as it is."""
    with _running(RedisServer()) as server, _running(_sentinel(server)) as watcher:
        sentinel = Sentinel([("127.0.0.1", watcher.port)])  # type: ignore[no-untyped-call]
        lent = sentinel.master_for("quota")
        await _use(lent)
        await lent.aclose()
        for each in sentinel.sentinels:
            await each.aclose()


def _sentinel(server: RedisServer) -> RedisServer:
    sentinel = _Variant()
    path = sentinel.folder / "sentinel.conf"
    path.write_text(f"sentinel monitor quota 127.0.0.1 {server.port} 1\n")
    path.chmod(0o666)  # the server runs as another user, and writes to it

    def command() -> Sequence[str]:
        program = RedisServer._command(sentinel)[0]
        return [program, str(path), "--sentinel", "--port", str(sentinel.port)]

    sentinel._command = command  # type: ignore[method-assign]  # it takes few of the options
    return sentinel


@pytest.mark.usefixtures("redis_server")
async def test_tls_by_its_url() -> None:
    """``rediss://`` verifies the server's certificate, by the authority that the URL names."""
    server = _Variant()
    made = await asyncio.to_thread(_certify, server.folder)
    assert made.returncode == 0, made.stderr
    (server.folder / "key.pem").chmod(0o644)
    files = {"cert": "cert.pem", "key": "key.pem", "ca-cert": "cert.pem"}
    options = [part for name, file in files.items() for part in (f"--tls-{name}-file", file)]
    port = _free_port()
    server.options = ("--tls-port", str(port), "--tls-auth-clients", "no", *options)
    with _running(server):
        url = f"rediss://127.0.0.1:{port}/0"
        await _use(f"{url}?ssl_ca_certs={server.folder / 'cert.pem'}")
        async with RedisLimiter(url, key="k", rate_limits=_LIMITS, outage_wait=0) as stranger:
            with pytest.raises(Exception, match="can't be asked"):
                await stranger.acquire(priority="interactive", max_wait=None)


def _certify(folder: Path) -> "subprocess.CompletedProcess[bytes]":
    """Make a key and a certificate for loopback."""
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    )
    return subprocess.run(command.split(), cwd=folder, capture_output=True, check=False)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
