"""The clients that are compared, each doing the same create and get; one in a process of its own.

    python -m benchmarks.peers NAME URL

Peers other than aiohttp are measured as far as they are installed:
``pip install -r benchmarks/requirements.txt``. None is a dependency of the package.
"""

import asyncio
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import aiohttp
from attrs import frozen
from multidict import CIMultiDict
from yarl import URL

from benchmarks.canned_server import NEW_CANDIDATE, QUESTION_ID
from benchmarks.meter import Task, serve

__all__ = ["NAIVE", "OURS", "OURS_WITH_ORJSON", "Peer", "installed_peers"]

_KEY = "qapi_benchmark"
_PATH = "/qsi/gather"
_DOCUMENT = Path(__file__).parents[1] / "tests" / "contract" / "gather-openapi.yaml"


@frozen
class _Calls:
    """What a client is asked to do."""

    create: Callable[[], Awaitable[object]]
    get: Callable[[str], Awaitable[object]]


class _Bare(asyncio.Protocol):
    """The floor: one connection, requests written as bytes, the body found by its length."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) == length:
            self._received = b""
            self._waiter.set_result(body)

    def send(self, request: bytes) -> asyncio.Future[bytes]:
        self._waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._waiter


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[_Calls]:
    loop, base = asyncio.get_running_loop(), URL(url)
    host = str(base.host)
    transport, protocol = await loop.create_connection(_Bare, host, base.port or 80)

    async def call(method: str, path: str, body: bytes = b"") -> Any:
        head = (
            f"{method} {_PATH}{path} HTTP/1.1\r\nHost: {host}\r\nx-api-key: {_KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return json.loads(await protocol.send(head.encode() + body))

    yield _Calls(
        lambda: call("POST", "/candidates", json.dumps(NEW_CANDIDATE).encode()),
        lambda question_id: call("GET", f"/questions/{question_id}"),
    )
    transport.close()


@asynccontextmanager
async def _tuned(url: str) -> AsyncIterator[_Calls]:
    """Use what aiohttp's public interface offers to a careful engineer."""
    headers = CIMultiDict({"x-api-key": _KEY, "Accept": "application/json"})
    with_body = CIMultiDict({**headers, "Content-Type": "application/json"})
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:

        async def create() -> Any:
            target, body = URL(f"{url}{_PATH}/candidates", encoded=True), encode(NEW_CANDIDATE)
            async with session.post(target, data=body.encode(), headers=with_body) as response:
                return json.loads(await response.read())

        async def get(id: str) -> Any:
            target = URL(f"{url}{_PATH}/questions/{id}", encoded=True)
            async with session.get(target, headers=headers) as response:
                return json.loads(await response.read())

        yield _Calls(create, get)


@asynccontextmanager
async def _naive(url: str) -> AsyncIterator[_Calls]:
    """Call aiohttp as its front page does."""
    async with aiohttp.ClientSession(headers={"x-api-key": _KEY}) as session:

        async def create() -> Any:
            target = f"{url}{_PATH}/candidates"
            async with session.post(target, json=NEW_CANDIDATE) as response:
                return await response.json()

        async def get(id: str) -> Any:
            async with session.get(f"{url}{_PATH}/questions/{id}") as response:
                return await response.json()

        yield _Calls(create, get)


@asynccontextmanager
async def _ours(url: str) -> AsyncIterator[_Calls]:
    from gather_async import GatherClient, RateLimit  # noqa: PLC0415 - no peer's process has it

    roomy = (RateLimit(1_000_000, per=60), RateLimit(10_000_000, per=3600))
    async with GatherClient(_KEY, base_url=url, rate_limits=roomy) as gather:
        yield _Calls(
            lambda: gather.candidates.create(
                first_name=NEW_CANDIDATE["firstName"],
                last_name=NEW_CANDIDATE["lastName"],
                email=NEW_CANDIDATE["email"],
                phone=NEW_CANDIDATE["phone"],
                external_id=NEW_CANDIDATE["externalId"],
            ),
            gather.questions.get,
        )


@asynccontextmanager
async def _ours_without_orjson(url: str) -> AsyncIterator[_Calls]:
    hidden: Any = None  # as if it were not installed
    sys.modules["orjson"] = hidden
    async with _ours(url) as calls:
        yield calls


@asynccontextmanager
async def _httpx(url: str) -> AsyncIterator[_Calls]:
    httpx: Any = importlib.import_module("httpx")
    async with httpx.AsyncClient(base_url=url + _PATH, headers={"x-api-key": _KEY}) as client:

        async def create() -> Any:
            return (await client.post("/candidates", json=NEW_CANDIDATE)).json()

        async def get(id: str) -> Any:
            return (await client.get(f"/questions/{id}")).json()

        yield _Calls(create, get)


@asynccontextmanager
async def _stripe(url: str) -> AsyncIterator[_Calls]:
    """Post and read Stripe's own resource, on aiohttp: the server answers any path alike."""
    stripe: Any = importlib.import_module("stripe")
    http = stripe.AIOHTTPClient()
    client = stripe.StripeClient(_KEY, base_addresses={"api": url}, http_client=http)
    customers = client.v1.customers
    yield _Calls(lambda: customers.create_async(NEW_CANDIDATE), customers.retrieve_async)
    await http.close_async()


@asynccontextmanager
async def _openai(url: str) -> AsyncIterator[_Calls]:
    openai: Any = importlib.import_module("openai")
    models: Any = importlib.import_module("openai._models")

    envelope = type("Envelope", (models.BaseModel,), {})  # any object, as its models allow
    async with openai.AsyncOpenAI(api_key=_KEY, base_url=url + _PATH) as client:
        yield _Calls(
            lambda: client.post("/candidates", cast_to=envelope, body=NEW_CANDIDATE),
            lambda question_id: client.get(f"/questions/{question_id}", cast_to=envelope),
        )


def _generate(folder: str) -> None:
    """Generate a client from the contract's document, as a package that can be imported."""
    config = Path(folder) / "config.yaml"
    config.write_text("post_hooks: []\n")  # they only format
    tool = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    paths = ["--path", str(_DOCUMENT), "--output-path", f"{folder}/generated_client"]
    subprocess.run([*tool, *paths, "--config", str(config)], check=True, capture_output=True)
    sys.path.insert(0, folder)


@asynccontextmanager
async def _generated(url: str) -> AsyncIterator[_Calls]:
    with tempfile.TemporaryDirectory() as folder:
        _generate(folder)

        def module(name: str) -> Any:
            return importlib.import_module(f"generated_client.{name}")

        client = module("client").AuthenticatedClient(
            url, token=_KEY, prefix="", auth_header_name="x-api-key"
        )
        new = module("models.candidate_create").CandidateCreate
        create = module("api.candidates.create_candidate").asyncio_detailed
        get = module("api.questions.get_question").asyncio_detailed
        async with client:
            yield _Calls(
                lambda: create(client=client, body=new.from_dict(NEW_CANDIDATE)),
                lambda question_id: get(question_id, client=client),
            )


@frozen
class Peer:
    """One client."""

    name: str
    package: str | None
    """Whose version is shown; None for the standard library."""
    open: Callable[[str], AbstractAsyncContextManager[_Calls]]

    @property
    def title(self) -> str:
        """The name with the package's version."""
        if self.package is None:
            return self.name
        return f"{self.name} {version(self.package)}"

    @property
    def is_installed(self) -> bool:
        """Whether it can be measured here."""
        try:
            return self.package is None or bool(version(self.package))
        except PackageNotFoundError:
            return False


NAIVE, OURS, OURS_WITH_ORJSON = "naive aiohttp", "gather_async", "gather_async with orjson"
_PEERS = (
    Peer("bare asyncio protocol", None, _bare),
    Peer("tuned aiohttp", "aiohttp", _tuned),
    Peer(NAIVE, "aiohttp", _naive),
    Peer(OURS, "gather-async", _ours_without_orjson),
    Peer(OURS_WITH_ORJSON, "orjson", _ours),
    Peer("stripe's async client", "stripe", _stripe),
    Peer("httpx", "httpx", _httpx),
    Peer("generated by openapi-python-client", "openapi-python-client", _generated),
    Peer("the openai package's base client", "openai", _openai),
)


def installed_peers() -> dict[str, Peer]:
    """Return the peers that are installed, by name."""
    return {peer.name: peer for peer in _PEERS if peer.is_installed}


async def _serve(peer: Peer, url: str) -> None:
    """Do one client's calls as standard input says."""
    numbers = iter(range(10**12))
    async with peer.open(url) as calls:

        async def create(count: int) -> None:
            for _ in range(count):
                await calls.create()

        async def get(count: int) -> None:
            for _ in range(count):
                await calls.get(QUESTION_ID)

        async def get_new(count: int) -> None:
            for _ in range(count):
                await calls.get(f"{QUESTION_ID[:-12]}{next(numbers):012d}")

        tasks: dict[str, Task] = {"create": create, "get": get, "get-new": get_new}
        await serve(tasks)


if __name__ == "__main__":
    asyncio.run(_serve(installed_peers()[sys.argv[1]], sys.argv[2]))
