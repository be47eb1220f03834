"""Operations of FakeGather, and one HTTP exchange: key, quota, fault, operation, answer."""

import json
import math
import random
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from attrs import define, field

from gather_async.clock import Timer
from gather_async.testing.fake.candidates import (
    create_candidate,
    create_candidate_interview,
    get_candidate,
    get_candidate_interview,
    get_results,
    list_candidate_interviews,
    list_candidates,
    resend_invite,
    update_status,
)
from gather_async.testing.fake.faults import Fault, FaultKind, FaultPlan
from gather_async.testing.fake.interviews import (
    bulk_update_interviews,
    create_interview,
    get_interview,
    list_interviews,
)
from gather_async.testing.fake.messages import (
    FakeRequest,
    ReceivedRequest,
    ReceivedRequests,
    Refusal,
    Reply,
    encode,
    invalid,
    no_such_path,
    seen_headers,
    too_many,
    unauthorized,
)
from gather_async.testing.fake.organization import (
    create_teams,
    create_users,
    get_message_group,
    get_narrator,
    list_message_groups,
    list_narrators,
    list_teams,
    list_users,
)
from gather_async.testing.fake.questions import create_question, get_question, list_questions
from gather_async.testing.fake.state import (
    Closing,
    FakeQuota,
    QuotaDecision,
    ServerState,
    Sleeps,
    iso,
)

__all__ = ["RequestHandler"]

_Operation = Callable[[FakeRequest], Reply]

_PREFIX = "/qsi/gather/"
# By method and path below the prefix. The internal credentials operations are left out.
_OPERATIONS: dict[tuple[str, str], _Operation] = {
    ("POST", "questions"): create_question,
    ("GET", "questions"): list_questions,
    ("GET", "questions/*"): get_question,
    ("POST", "interviews"): create_interview,
    ("GET", "interviews"): list_interviews,
    ("GET", "interviews/*"): get_interview,
    ("POST", "candidates"): create_candidate,
    ("GET", "candidates"): list_candidates,
    ("GET", "candidates/*"): get_candidate,
    ("POST", "candidate-interviews"): create_candidate_interview,
    ("GET", "candidate-interviews"): list_candidate_interviews,
    ("GET", "candidate-interviews/*"): get_candidate_interview,
    ("PATCH", "candidate-interviews/*/status"): update_status,
    ("GET", "candidate-interviews/*/results"): get_results,
    ("POST", "candidate-interviews/*/resend-invite"): resend_invite,
    ("GET", "narrators"): list_narrators,
    ("GET", "narrators/*"): get_narrator,
    ("GET", "message-groups"): list_message_groups,
    ("GET", "message-groups/*"): get_message_group,
    ("POST", "teams"): create_teams,
    ("GET", "teams"): list_teams,
    ("POST", "users"): create_users,
    ("GET", "users"): list_users,
}

_JSON = "application/json; charset=utf-8"
_HTML = (
    b"<!DOCTYPE html>\n<html><head><title>503</title></head><body>Upstream error</body></html>\n"
)


class _Cut(Exception):  # noqa: N818 - a signal, not an error
    """The connection ends without an answer."""


@define(eq=False)
class _Answer:
    """The response that will be sent."""

    status: int
    body: bytes
    headers: dict[str, str] = field(factory=lambda: {"Content-Type": _JSON})
    was_processed: bool = False
    is_truncated: bool = False


@define(eq=False)
class RequestHandler:
    """Answers requests over one state. ``api_key`` is None once revoked."""

    world: ServerState
    api_key: str | None
    log: ReceivedRequests
    faults: FaultPlan
    sleeps: Sleeps
    quota: FakeQuota | None
    rng: random.Random
    latency: tuple[float, float] = (0.0, 0.0)
    _late: list[Timer] = field(factory=list, init=False)
    """Requests that are carried out after their answer."""

    def cancel_late(self) -> None:
        """Forget what would be carried out later."""
        for timer in self._late:
            timer.cancel()
        self._late.clear()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, or cut its connection. aiohttp calls this."""
        try:
            body = await request.read()
            before, after = self._draw_latency()
            if before:
                await self.sleeps.sleep(before)
            answer = await self._answer(request, body)
            if after:
                await self.sleeps.sleep(after)
        except (_Cut, Closing):
            return _cut(request)
        # aiohttp's own Date would be the machine's, and its resets this server's.
        answer.headers.setdefault("Date", formatdate(self.world.clock.wall(), usegmt=True))
        if answer.is_truncated:
            return await _send_half(request, answer)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    def _draw_latency(self) -> tuple[float, float]:
        """Return the time on the way before the request counts, and after it."""
        low, high = self.latency
        if high <= 0:
            return 0.0, 0.0
        whole, share = self.rng.uniform(low, high), self.rng.random()
        return whole * share, whole * (1 - share)

    async def _answer(self, request: web.BaseRequest, body: bytes) -> _Answer:
        """Log the request, and return what it gets."""
        path = request.rel_url.raw_path
        document = _decode(body)
        query = _query(request)
        place = self.log.arrive(
            ReceivedRequest(
                method=request.method,
                path=path,
                query=query,
                json=None if isinstance(document, Refusal) else document,
                headers=seen_headers(request.headers),
                at=self.world.clock.wall(),
            )
        )
        answer: _Answer | None = None
        fault: Fault | None = None
        call = FakeRequest(self.world, path, "", query, document)
        try:
            verdict = self._admit(request)
            if verdict is None or verdict.accepted:
                fault = self.faults.next(request.method, path)
            answer = await self._process(request.method, call, verdict, fault)
        except _Cut as cut:
            was_processed = bool(cut.args and cut.args[0])
            self._finish(place, None, fault, was_processed=was_processed)
            raise
        except Refusal as refusal:
            answer = self._refuse(refusal)
            answer.headers.update(self._quota_headers(None))
        self._finish(place, answer.status, fault, was_processed=answer.was_processed)
        return answer

    def _finish(
        self, place: int, status: int | None, fault: Fault | None, *, was_processed: bool
    ) -> None:
        name = None if fault is None else str(fault)
        self.log.finish(place, status=status, fault=name, was_processed=was_processed)

    def _admit(self, request: web.BaseRequest) -> QuotaDecision | None:
        """Check the key, and count the request. Source: /getting-started/authentication."""
        key = request.headers.get("x-api-key")
        if key is None or self.api_key is None or key != self.api_key:
            raise unauthorized(header_sent=key is not None)
        return self.quota.arrive(self.world.clock.monotonic()) if self.quota else None

    async def _process(
        self, method: str, call: FakeRequest, verdict: QuotaDecision | None, fault: Fault | None
    ) -> _Answer:
        """Carry the request out, with what goes wrong before, instead and after."""
        if verdict is not None and not verdict.accepted:
            reset = self.world.clock.wall() + verdict.refused_reset_in
            answer = self._refuse(too_many(verdict.refused_limit, iso(math.ceil(reset))))
        elif fault is None:
            answer = self._operate(method, call)
        else:
            answer = await self._fail(method, call, fault)
        if verdict is not None:
            answer.headers.update(self._quota_headers(verdict))
        return answer

    async def _fail(self, method: str, call: FakeRequest, fault: Fault) -> _Answer:
        """Return what a fault makes of the answer."""
        answer = None
        if fault.kind is FaultKind.SLOW and not fault.after_processing:
            await self.sleeps.sleep(fault.seconds)
        if fault.commit_after is not None:
            operate = partial(self._operate, method, call)
            self._late.append(self.world.clock.call_later(fault.commit_after, operate))
        elif fault.after_processing or fault.kind is FaultKind.SLOW:
            answer = self._operate(method, call)
        was_processed = answer is not None and answer.was_processed
        if fault.kind is FaultKind.CUT:
            raise _Cut(was_processed)
        if fault.kind is FaultKind.SLOW and fault.after_processing:
            await self.sleeps.sleep(fault.seconds)
        if fault.kind is FaultKind.TRUNCATE and answer is not None:
            answer.is_truncated = True
        if answer is None or fault.kind in {FaultKind.STATUS, FaultKind.HTML}:
            answer = self._faulty(fault, was_processed=was_processed)
        return answer

    def _faulty(self, fault: Fault, *, was_processed: bool) -> _Answer:
        """Return an error that has nothing to do with the request."""
        if fault.kind is FaultKind.HTML:
            answer = _Answer(fault.status, _HTML, {"Content-Type": "text/html"})
        else:
            answer = self._refuse(self._refusal(fault))
        answer.headers.update(fault.headers)
        answer.was_processed = was_processed
        return answer

    def _refusal(self, fault: Fault) -> Refusal:
        """Return the documented error of a status."""
        if fault.status == 429 and fault.code is None:
            return too_many(100, iso(math.ceil(self.world.clock.wall())))
        return Refusal(fault.status, code=fault.code)

    def _operate(self, method: str, call: FakeRequest) -> _Answer:
        """Carry an operation out."""
        try:
            operation, key = _route(method, call.path)
            _check_form(method, call)
            reply = operation(FakeRequest(call.world, call.path, key, call.query, call.body))
        except Refusal as refusal:
            return self._refuse(refusal)
        envelope: dict[str, Any] = {"data": reply.data}
        if reply.has_meta:
            envelope["meta"] = self._meta(reply)
        return _Answer(reply.status, encode(envelope), was_processed=True)

    def _refuse(self, refusal: Refusal) -> _Answer:
        return _Answer(refusal.status, encode(refusal.envelope(self._meta(None))))

    def _meta(self, reply: Reply | None) -> dict[str, Any]:
        meta: dict[str, Any] = {"requestId": self.world.new_id(), "timestamp": self.world.now()}
        if reply is not None and reply.pagination is not None:
            meta["pagination"] = reply.pagination
        return meta

    def _quota_headers(self, verdict: QuotaDecision | None) -> Mapping[str, str]:
        """Return the documented headers; none where there are no limits."""
        if self.quota is None:
            return {}
        verdict = verdict or self.quota.peek(self.world.clock.monotonic())
        return {
            "X-RateLimit-Limit": str(verdict.limit),
            "X-RateLimit-Remaining": str(verdict.remaining),
            "X-RateLimit-Reset": str(math.ceil(self.world.clock.wall() + verdict.reset_in)),
        }


def _route(method: str, path: str) -> tuple[_Operation, str]:
    """Return the operation and the id of a raw path, or refuse it."""
    if not path.startswith(_PREFIX):
        raise no_such_path(path)
    rest = path[len(_PREFIX) :]
    if (method, rest) == ("PATCH", "interviews/bulk-update"):
        return bulk_update_interviews, ""
    collection, slash, tail = rest.partition("/")
    key, second_slash, action = tail.partition("/")
    shape = collection + (slash and "/*") + (second_slash and f"/{action}")
    operation = _OPERATIONS.get((method, shape))
    if operation is None or bool(slash) != bool(key):
        raise no_such_path(path)
    return operation, unquote(key)


def _decode(body: bytes) -> Any:
    """Return the decoded body, or the refusal of what is no JSON."""
    if not body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return invalid("body", "must be valid JSON")


def _query(request: web.BaseRequest) -> dict[str, list[str]]:
    """Return each parameter's values."""
    query: dict[str, list[str]] = {}
    if request.query_string:
        for name, value in request.query.items():
            query.setdefault(name, []).append(value)
    return query


def _check_form(method: str, call: FakeRequest) -> None:
    """Refuse a query with a write, a body with a read, and a body that is no JSON."""
    if isinstance(call.body, Refusal):
        raise call.body
    if method == "GET" and call.body is not None:
        raise invalid("body", "is not documented for this operation")
    if method != "GET" and call.query:
        raise invalid(next(iter(call.query)), "is not a documented query parameter")


def _cut(request: web.BaseRequest) -> web.Response:
    """Cut the connection; the response that aiohttp wants goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _send_half(request: web.BaseRequest, answer: _Answer) -> web.StreamResponse:
    """Send all headers and half the body, then cut the connection."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
