"""A server that commits late and lists late, behind a gateway that gives up at once."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

from aiohttp import web
from attrs import define, field

from gather_async.clock import Clock

_PAGE = 100


Write = tuple[str, int]
"""The list that a write goes to, and the write's number there, from 1."""


@define(eq=False)
class LateServer:
    """Candidates and their invites, over a wire on which one request in seven goes wrong.

    A write that goes wrong was not carried out, or was with its answer lost, or is
    carried out ``commits_after`` seconds later though the gateway has answered 504. What goes
    wrong depends on whom a request is about and on those before it, not on who comes first.
    """

    clock: Clock
    rng: random.Random
    faults: float = 0.14
    """The part of the requests that go wrong."""
    commits_after: float = 0.0
    """Seconds by which the server behind the gateway is late."""
    lists_after: float = 0.0
    """Seconds from an object's creation until the lists show it."""
    refuses_duplicates: bool = False
    """Whether a second candidate with one external id gets 409."""
    unanswered_writes: frozenset[Write] = frozenset()
    """Writes that are carried out and answered with 500."""
    lost_writes: frozenset[Write] = frozenset()
    """Writes that are answered with 504 and never carried out."""
    late_writes: frozenset[Write] = frozenset()
    """Writes that are answered with 504 and carried out ``commits_after`` seconds later."""
    requests: Counter[str] = field(factory=Counter)
    """Requests that arrived, by method and list."""
    invites: Counter[str] = field(factory=Counter)
    """Invites that were sent, by email address."""
    _made: dict[str, list[tuple[float, dict[str, Any]]]] = field(
        factory=lambda: {"candidates": [], "candidateInterviews": []}
    )
    _writes: Counter[str] = field(factory=Counter)
    _seed: float = 0.0
    _draws: Counter[str] = field(factory=Counter)
    _arrival: asyncio.Event = field(factory=asyncio.Event)
    _runner: web.AppRunner | None = None
    _port: int = 0

    async def __aenter__(self) -> Self:
        self._seed = self.rng.random()
        app = web.Application()
        for path, key in (
            ("/qsi/gather/candidates", "candidates"),
            ("/qsi/gather/candidate-interviews", "candidateInterviews"),
        ):
            app.router.add_post(path, self._handler(self._write, key))
            app.router.add_get(path, self._handler(self._list, key))
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def candidates(self) -> Counter[str]:
        """How many candidates each email address has."""
        return Counter(item["email"] for _, item in self._made["candidates"])

    async def wait_for_requests(self, total: int) -> None:
        """Return once so many requests have arrived in all."""
        while self.requests.total() < total:
            self._arrival.clear()
            await self._arrival.wait()

    def _handler(self, answer: Any, key: str) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests[f"{request.method} {key}"] += 1
            self._arrival.set()
            response: web.StreamResponse | None = await answer(request, key)
            if response is not None:
                return response
            assert request.transport is not None
            request.transport.abort()
            await asyncio.sleep(0)
            return web.Response(status=500)

        return handle

    async def _write(self, request: web.Request, key: str) -> web.Response | None:
        body = await request.json()
        fate = self._fate(key, body)
        if fate in {"late", "lost"}:
            if fate == "late":
                self.clock.call_later(self.commits_after, lambda: self.make(key, body))
            return web.json_response({"error": "Gateway Timeout"}, status=504)
        if self.refuses_duplicates and self._has(key, body):
            return web.json_response({"error": {"code": "CONFLICT"}}, status=409)
        if fate == "cut before":
            return None
        item = self.make(key, body)
        if fate == "unanswered":
            return web.json_response({"error": {"code": "INTERNAL"}}, status=500)
        created = web.json_response({"success": True, "data": item}, status=201)
        return None if fate == "cut after" else created

    def _drawn(self, key: str, about: Mapping[str, Any]) -> random.Random:
        """Return what draws for the next request of its kind about someone."""
        made = {each["id"]: each["email"] for _, each in self._made["candidates"]}
        who = made.get(about.get("candidateId"), about.get("externalId"))
        kind = f"{key} {who} {about.get('page')}"
        self._draws[kind] += 1
        return random.Random(f"{self._seed} {kind} {self._draws[kind]}")

    def _fate(self, key: str, body: Mapping[str, Any]) -> str:
        """Return what becomes of the next write to a list."""
        self._writes[key] += 1
        for fate, writes in (
            ("lost", self.lost_writes),
            ("late", self.late_writes),
            ("unanswered", self.unanswered_writes),
        ):
            if (key, self._writes[key]) in writes:
                return fate
        rng = self._drawn(key, body)
        if rng.random() >= self.faults:
            return "done"
        return rng.choice(["lost", "late", "unanswered", "cut before", "cut after"])

    def _has(self, key: str, body: Mapping[str, Any]) -> bool:
        own_id = body.get("externalId")
        made = self._made[key]
        return own_id is not None and any(item["externalId"] == own_id for _, item in made)

    def make(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a candidate or an invite, as a request of its own would."""
        made = self._made[key]
        item = {**body, "id": f"{key}-{len(made)}"}
        made.append((self.clock.monotonic(), item))
        if key == "candidateInterviews":
            emails = {each["id"]: each["email"] for _, each in self._made["candidates"]}
            self.invites[emails[body["candidateId"]]] += 1
        return item

    async def _list(self, request: web.Request, key: str) -> web.Response | None:
        rng = self._drawn(key, request.query)
        if rng.random() < self.faults:
            return rng.choice([None, web.json_response({"error": "busy"}, status=503)])
        shown_until = self.clock.monotonic() - self.lists_after
        wanted = {
            name: value
            for name, value in request.query.items()
            if name in {"externalId", "candidateId", "interviewId"}
        }
        items = [
            item
            for at, item in self._made[key]
            if at <= shown_until and all(item.get(name) == value for name, value in wanted.items())
        ]
        page = int(request.query.get("page", "1"))
        counts = {"page": page, "limit": _PAGE, "total": len(items)}
        counts["totalPages"] = max(1, -(-len(items) // _PAGE))
        return web.json_response(
            {
                "success": True,
                "data": {key: items[(page - 1) * _PAGE : page * _PAGE]},
                "meta": {"pagination": counts},
            }
        )
