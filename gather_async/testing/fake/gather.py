"""`FakeGather`: a faithful Gather API on loopback, for tests and for trying things out."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from gather_async.client import GatherClient
from gather_async.clock import Clock, SystemClock
from gather_async.errors import ConfigurationError
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.testing.fake.controls import FaultMethods, ScenarioMethods
from gather_async.testing.fake.faults import FaultPlan
from gather_async.testing.fake.interviews import show_interview
from gather_async.testing.fake.messages import ReceivedRequest, ReceivedRequests
from gather_async.testing.fake.organization import seed_organization
from gather_async.testing.fake.questions import listen_for_audio, show_question, stop_timers
from gather_async.testing.fake.server import RequestHandler
from gather_async.testing.fake.state import (
    AudioWords,
    Edition,
    FakeOptions,
    FakeQuota,
    HeadersDescribe,
    Invite,
    QuestionsList,
    Row,
    ServerState,
    Sleeps,
    public,
)
from gather_async.testing.fake.webhooks import Webhooks

__all__ = ["FakeGather"]

_HOST = "127.0.0.1"
_GRACE = 0.05  # real seconds for handlers to notice that their connection is gone
_BACKLOG = 1024  # hundreds of clients may connect in one tick

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class FakeGather(FaultMethods, ScenarioMethods):
    """A Gather API server in the running loop, on a random port of 127.0.0.1.

    It serves every documented operation (the vendor's internal credentials apart),
    checks what it gets as strictly as the documentation allows, and refuses every
    undocumented field and parameter with 400. Narrators, message groups, one team
    and one user exist from the start.

    >>> import asyncio
    >>> async def main():
    ...     async with FakeGather() as fake:
    ...         return fake.base_url.startswith("http://127.0.0.1:")
    >>> asyncio.run(main())
    True

    Closing is quick: answers and deliveries in progress are cut. The state
    survives, and `start` serves it again on the same port.

    Attributes:
        clock: The server's time.
    """

    def __init__(
        self,
        *,
        edition: Edition = "A",
        audio_seconds: float | Callable[[], float] = 0.2,
        rate_limits: Sequence[RateLimit] | None = None,
        seed: int = 0,
        clock: Clock | None = None,
        api_key: str | None = None,
        port: int = 0,
        host: str = _HOST,
        fail_audio_for: Collection[str] = (),
        audio_words: AudioWords | None = None,
        summary_seconds: float = 0.2,
        created_status: int = 201,
        questions_list: QuestionsList = "paged",
        questions_page_size: int = 50,
        page_counts: bool = True,
        duplicate_status: int | None = None,
        early_results: Literal["processing", "missing"] = "processing",
        strict_users: bool = False,
        headers_describe: HeadersDescribe = "tightest",
        count_refused: bool = False,
    ) -> None:
        """Make a server; `start` or ``async with`` opens it.

        Args:
            edition: Which of the two published wordings it follows, ``"A"`` or ``"B"``.
            audio_seconds: How long audio generation takes, or what draws it for each
                question; ``math.inf``: for ever.
            rate_limits: The key's rolling windows; None: no limit, and no
                ``X-RateLimit-*`` headers. The documented ones are
                ``[RateLimit(100, per=60), RateLimit(1000, per=3600)]``.
            seed: Of all ids, latencies and random faults.
            clock: Where time comes from; None: the machine's clock.
            api_key: The only key it takes; None makes one.
            port: 0: any free one.
            host: The address or name of this machine to listen on.
            fail_audio_for: Titles of questions whose audio generation fails.
            audio_words: The values of ``transcriptionStatus``.
            summary_seconds: From `complete_interview` to ``summaryStatus`` ``complete``.
            created_status: What creations answer: 200, 201 or 202.
            questions_list: The list of questions: ``"paged"``, ``"unpaged"`` (all at
                once, no counts, ``page`` ignored), ``"missing"`` (404), ``"empty"``.
            questions_page_size: The page size of that list.
            page_counts: Whether lists carry ``meta.pagination``.
            duplicate_status: What a second candidate with one ``externalId``, or a
                second candidate interview for one pair, gets: None makes it, 400 or 409.
            early_results: What results answer before the candidate finished:
                ``summaryStatus`` ``processing``, or 404.
            strict_users: Whether an unknown ``userId`` is refused, as edition A says.
            headers_describe: Which window ``X-RateLimit-*`` describe: ``"tightest"``,
                ``"shortest"`` or ``"longest"``.
            count_refused: Whether requests answered 429 count in the windows as well.

        Raises:
            ConfigurationError: An option has a value that it can't have.
        """
        ids, chance = random.Random(seed), random.Random(~seed)  # noqa: S311 - repeatable
        self.clock: Clock = clock or SystemClock()
        self._sleeps = Sleeps(self.clock)
        self._webhooks = Webhooks(self.clock, self._sleeps)
        options = FakeOptions(
            edition=edition,
            audio_seconds=audio_seconds,
            fail_audio_for=frozenset(fail_audio_for),
            audio_words=audio_words or AudioWords(),
            summary_seconds=summary_seconds,
            created_status=created_status,
            questions_list=questions_list,
            questions_page_size=questions_page_size,
            page_counts=page_counts,
            duplicate_status=duplicate_status,
            early_results=early_results,
            strict_users=strict_users,
            headers_describe=headers_describe,
            count_refused=count_refused,
        )
        self._world = ServerState(options, self.clock, ids, self._webhooks.emit)
        seed_organization(self._world)
        self._api_key = f"qapi_{ids.getrandbits(96):024x}" if api_key is None else api_key
        if not self._api_key.strip():
            raise ConfigurationError("api_key must not be blank; leave it out to get one made.")
        self._handler = RequestHandler(
            self._world,
            self._api_key,
            ReceivedRequests(),
            FaultPlan(chance),
            self._sleeps,
            FakeQuota(rate_limits, headers_describe=headers_describe, count_refused=count_refused)
            if rate_limits
            else None,
            chance,
        )
        self._port = port
        self._host = host
        self._server: _LoopbackServer | None = None

    # Lifecycle

    async def start(self) -> Self:
        """Listen; the port stays the same after a first start.

        Raises:
            OSError: The port is taken, or the host is none of this machine's.
        """
        if self._server is not None:
            return self
        self._sleeps.open()
        if self._webhooks.has_targets:
            listen_for_audio(self._world)
        self._server = await _LoopbackServer.open(self._handler.handle, self._port, self._host)
        self._port = self._server.port
        return self

    async def aclose(self) -> None:
        """Stop listening, cut what is in progress, give up deliveries; harmless to repeat."""
        server, self._server = self._server, None
        self._sleeps.close()
        stop_timers(self._world)
        self._handler.cancel_late()
        await self._webhooks.aclose()
        if server is not None:
            await server.aclose()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def client(self, **options: Any) -> GatherClient:
        """Return a client of this server, with its key, address and clock.

        Args:
            **options: Those of `GatherClient`, which may replace these three.

        Raises:
            RuntimeError: The server was never started, so it has no port.
            ConfigurationError: An option can't work.
        """
        options = {"base_url": self.base_url, "clock": self.clock, **options}
        return GatherClient(options.pop("api_key", self.api_key), **options)

    @property
    def api_key(self) -> str:
        """The key it takes; starts with ``qapi_`` unless you gave another."""
        return self._api_key

    @property
    def base_url(self) -> str:
        """Where it listens.

        Raises:
            RuntimeError: It was never started, so it has no port.
        """
        if not self._port:
            raise RuntimeError("FakeGather has no port yet: use async with, or await start().")
        # Every address of the machine is none that a client could connect to.
        host = {"0.0.0.0": _HOST, "::": "::1"}.get(self._host, self._host)  # noqa: S104 - bound before
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    @property
    def user_id(self) -> str:
        """A user of the key's team, for questions' ``userId``."""
        return self._world.user_id

    @property
    def team_id(self) -> str:
        """The team of the key."""
        return self._world.team_id

    def revoke_key(self) -> None:
        """Refuse the key from now on; revocation acts at once."""
        self._handler.api_key = None

    # What arrived, and what came of it

    @property
    def requests(self) -> Sequence[ReceivedRequest]:
        """All requests in the order of arrival, those in progress as well."""
        return tuple(self._handler.log.records)

    def clear_requests(self) -> None:
        """Start the log of requests anew, such as after a test's preparations."""
        self._handler.log.clear()

    async def wait_for_requests(
        self, count: int, *, path: str | None = None, method: str | None = None
    ) -> None:
        """Return once ``count`` requests have arrived in all.

        Args:
            count: How many, from the start of the log, or since `clear_requests`.
            path: Only requests of this path count; may hold ``*``.
            method: Only requests of this method count.
        """
        await self._handler.log.wait_for(count, method, path)

    @property
    def invites(self) -> Counter[tuple[str, str]]:
        """Invites that went out, by candidate id and interview id; resent ones count."""
        return self._world.invite_counts.copy()

    @property
    def invite_log(self) -> Sequence[Invite]:
        """Every invite that went out, in order."""
        return tuple(self._world.invites)

    @property
    def invites_by_person(self) -> Counter[str]:
        """Invites by the candidate's ``externalId``, or email where there is none.

        It also finds a person invited twice because the candidate was created twice.
        """
        people = self._world.candidates.rows
        persons = (people[invite.candidate_id] for invite in self._world.invites)
        return Counter(person["externalId"] or person["email"] for person in persons)

    @property
    def questions(self) -> Sequence[Row]:
        """All questions, as the API shows them now."""
        return [show_question(self._world, row) for row in self._world.questions.order]

    @property
    def interviews(self) -> Sequence[Row]:
        """All interviews, as the API shows them now."""
        return [show_interview(self._world, row) for row in self._world.interviews.order]

    @property
    def candidates(self) -> Sequence[Row]:
        """All candidates, as the API shows them."""
        return [public(row) for row in self._world.candidates.order]

    @property
    def candidate_interviews(self) -> Sequence[Row]:
        """All candidate interviews, as the API shows them."""
        return [public(row) for row in self._world.candidate_interviews.order]

    def __repr__(self) -> str:
        state = f"on {self.base_url}" if self._server else "not listening"
        edition, count = self._world.options.edition, len(self._handler.log.records)
        return f"<FakeGather edition {edition}, {state}, {count} requests>"


class _LoopbackServer:
    """An HTTP server in the running loop, on 127.0.0.1 unless another host is named."""

    def __init__(self, server: asyncio.Server, protocols: web.Server) -> None:
        self._server = server
        self._protocols = protocols

    @classmethod
    async def open(cls, handler: _Handler, port: int, host: str = _HOST) -> "_LoopbackServer":
        """Listen on a port; 0 takes any free one.

        Raises:
            OSError: The port is taken, or the host is none of this machine's.
        """
        protocols = web.Server(handler, access_log=None)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocols, host, port, backlog=_BACKLOG)
        return cls(server, protocols)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def aclose(self) -> None:
        """Stop listening and cut every connection."""
        await self._stop_accepting()
        self._server.close()
        for protocol in self._protocols.connections:
            if protocol.transport is not None:
                protocol.transport.abort()
        await self._protocols.shutdown(_GRACE)
        await self._server.wait_closed()

    async def _stop_accepting(self) -> None:
        """Let connections that are being accepted become whole.

        asyncio leaks the socket of a connection whose acceptance has begun when
        its server closes.
        """
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):  # Windows' default loop
            for listening in self._server.sockets:
                loop.remove_reader(listening.fileno())
        for _ in range(3):  # the callback, the task that it starts, the protocol's start
            await asyncio.sleep(0)
