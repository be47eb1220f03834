"""One HTTP exchange. Only here, and for its errors, is aiohttp's client imported."""

import asyncio
import platform
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp
from attrs import define, evolve, field
from multidict import CIMultiDict
from yarl import URL

from gather_async.clock import Deadlines
from gather_async.errors import ClientClosedError, ResponseDecodeError
from gather_async.exchange import BodyBuffer, broken, chainable, timed_out
from gather_async.loops import LoopOwner, PerLoop, end_lifetime
from gather_async.protocol.responses import Response
from gather_async.validators import Number

__all__ = [
    "ClientTimeout",
    "HTTPSession",
    "HTTPTrace",
    "SendState",
    "Timeout",
    "Transport",
    "client_timeout",
    "request_headers",
    "user_agent",
]

ClientTimeout = aiohttp.ClientTimeout
Timeout = float | aiohttp.ClientTimeout | None
"""What a caller may pass as ``timeout``: seconds for the whole call, aiohttp's own, or None."""
HTTPSession = aiohttp.ClientSession
HTTPTrace = aiohttp.TraceConfig

_MOST_CONNECTIONS = 100  # as many as aiohttp's own pool


@define(eq=False)
class SendState:
    """State of one exchange under way."""

    on_resent: Callable[[], None]
    """Called when aiohttp sends the request once more on its own."""
    may_resend: bool = True
    """Whether aiohttp may: it does so for a GET, PUT or DELETE whose connection broke."""
    sends: int = 0
    """How often the request left."""
    has_response: bool = False
    """Whether a response has begun."""
    _connection: asyncio.BaseTransport | None = field(default=None, init=False, repr=False)

    @property
    def was_sent(self) -> bool:
        """Whether the server may have the request."""
        return self.sends > 0

    def check_resend(self) -> None:
        """Stop aiohttp from sending a write twice.

        Raises:
            ClientConnectionError: It was sent before, and may not be again.
        """
        if self.sends and not self.may_resend:
            raise aiohttp.ClientConnectionError("the connection broke before a response came")

    def mark_sent(self, connection: asyncio.BaseTransport | None = None) -> None:
        """Record that the request leaves."""
        self._connection = connection
        self.sends += 1
        if self.sends > 1:
            self.on_resent()

    def close_connection(self) -> None:
        """Close the connection, whose responses can't be trusted any more."""
        if self._connection is not None:
            self._connection.close()


_SENDING: ContextVar[SendState | None] = ContextVar("gather_async_sending", default=None)


class _CountingConnector(aiohttp.TCPConnector):
    """Tells exactly whether a request was sent; the classes of aiohttp's errors don't.

    A connection is asked for once for each time a request is sent, and the
    headers are written in the same step of the loop as it is given. aiohttp's
    tracing shows the same at several times the cost: see benchmarks/calls.py.
    """

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        state = _SENDING.get()
        if state is not None and state.sends:
            state.check_resend()
        connection = await super().connect(req, traces, timeout)
        # A response that nothing asked for came while it was idle: it would be taken for
        # the next request's, and each later one for the one after that.
        while connection.protocol is not None and connection.protocol.should_close:
            connection.close()
            connection = await super().connect(req, traces, timeout)
        if state is not None:
            state.mark_sent(connection.transport)
        return connection


async def _headers_sent(_: Any, __: Any, ___: aiohttp.TraceRequestHeadersSentParams) -> None:
    """Record that the exchange of this task, if it is one of ours, sends its request."""
    state = _SENDING.get()
    if state is not None:
        state.check_resend()  # nothing is written yet
        state.mark_sent()


def _sending_trace() -> aiohttp.TraceConfig:
    """Return the trace that records what a borrowed session sends."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_headers_sent)
    trace.freeze()
    return trace


# One for all clients: a session lent to many would call a trace of each for every request.
_SENDING_TRACE = _sending_trace()
_BORROWERS: WeakKeyDictionary[aiohttp.ClientSession, int] = WeakKeyDictionary()


@define(eq=False)
class _LoopSession:
    """A transport's aiohttp session in one event loop, and the room for its requests."""

    owner: LoopOwner
    session: aiohttp.ClientSession | None = None
    room: asyncio.Semaphore = field(factory=asyncio.Semaphore)
    deadlines: Deadlines = field(factory=Deadlines)
    lifetime: AsyncGenerator[None, None] | None = None
    _untotalled: tuple[aiohttp.ClientTimeout | None, aiohttp.ClientTimeout] = (
        None,
        aiohttp.ClientTimeout(total=None),
    )

    def without_total(self, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientTimeout:
        """Return a timeout but for its total, which `Deadlines` keep; mostly the last one again."""
        if self._untotalled[0] is not timeout:
            self._untotalled = timeout, evolve(timeout, total=None)
        return self._untotalled[1]

    async def close(self) -> None:
        """Close the session, in its own loop."""
        lifetime, self.session, self.lifetime = self.lifetime, None, None
        await end_lifetime(lifetime)


@define(eq=False, repr=False)
class Transport:
    """Sends requests through aiohttp, with a session of its own in each loop that it is used in.

    A session that the caller lent is used as it is, in its one loop, and never closed.
    """

    _base: str = field(alias="base")
    _borrowed: aiohttp.ClientSession | None = field(default=None, alias="borrowed")
    _proxy: str | None = field(default=None, alias="proxy", repr=False)
    _max_response: int = field(default=16 * 2**20, alias="max_response")
    _trace_configs: Sequence[aiohttp.TraceConfig] = field(default=(), alias="trace_configs")
    _sessions: PerLoop[_LoopSession] = field(init=False)
    _lent_to: LoopOwner = field(factory=lambda: LoopOwner("lent session"), init=False)
    _has_traced: bool = field(default=False, init=False)
    _is_closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._sessions = PerLoop(self._make_part)

    def _make_part(self) -> _LoopSession:
        return _LoopSession(LoopOwner("client") if self._borrowed is None else self._lent_to)

    @property
    def is_closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._is_closed

    async def exchange(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: aiohttp.ClientTimeout,
        state: SendState,
    ) -> Response:
        """Send one request and read the whole response. Redirects are not followed.

        At most 100 requests are under way at once; the time spent waiting for
        room doesn't count towards the timeout.

        Raises:
            ClientClosedError: The transport is closed, or its lent session busy in another loop.
            GatherConnectionError: The connection failed.
            GatherTimeoutError: A deadline passed.
            ResponseDecodeError: The response is larger than ``max_response``, or
                packed in a way that was not asked for.
        """
        part = self._sessions.here()
        session = part.session
        if session is None or self._is_closed or not part.owner.is_here:
            session = await self._open(part)
        room, total, deadline = part.room, timeout.total, None
        await room.acquire()
        mark, task = _SENDING.set(state), asyncio.current_task()
        if task is not None and total is not None and total > timeout.ceil_threshold:
            deadline = part.deadlines.begin(task, total)
        try:
            # What a lent session has as its own defaults is said here, so that it changes nothing.
            response = await session.request(
                method,
                URL(self._base + target, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=timeout if deadline is None else part.without_total(timeout),
                raise_for_status=False,
                auto_decompress=False,
                proxy=self._proxy,
            )
            state.has_response = True
            content = response.content
            if (
                # A small body comes with its headers: nothing is left to wait for, or to release.
                content.is_eof()
                and content.total_bytes <= self._max_response
                and "Content-Encoding" not in response.headers
                and not session.trace_configs
            ):
                return Response(response.status, response.headers, content.read_nowait())
            async with response:
                whole = await self._read(response, method)
                return Response(response.status, response.headers, whole)
        except (aiohttp.ClientError, OSError, RuntimeError, AssertionError, ValueError) as error:
            raise self._mapped(error, method, state, timeout) from chainable(error)
        except asyncio.CancelledError:
            # Only the deadline's cancellation becomes an error; the caller's may have come, too.
            if deadline is None or not deadline.is_sole_cause():
                raise
            raise self._mapped(TimeoutError(), method, state, timeout) from None
        finally:
            if deadline is not None:
                deadline.end()
            _SENDING.reset(mark)
            room.release()

    async def _read(self, response: aiohttp.ClientResponse, method: str) -> bytes:
        """Return the whole body, unpacked.

        Raises:
            ResponseDecodeError: It is too large, or can't be unpacked.
        """
        headers, length = response.headers, response.content_length
        if (
            length is not None
            and length <= self._max_response
            and "Content-Encoding" not in headers
        ):
            return await response.read()
        packing = headers.get("Content-Encoding", "identity").strip().lower()
        body = BodyBuffer(packing, self._max_response)
        async for piece in response.content.iter_any():
            if not body.feed(piece):
                break
        else:
            if body.finish():
                return body.content
        response.close()  # or the connection would be read to the end of the body
        raise ResponseDecodeError(
            f"The response to a {method} request to {self._host}, with status "
            f"{response.status}, {body.problem}.",
            body="",
            path="$",
            maybe_processed=method != "GET",
        )

    async def aclose(self) -> None:
        """Close what was opened here; harmless to repeat, and from several tasks at once."""
        self._is_closed = True
        self._untrace()
        await self._sessions.close(_LoopSession.close)

    def _mapped(
        self, error: Exception, method: str, state: SendState, timeout: aiohttp.ClientTimeout
    ) -> Exception:
        """Return the error of this package that one of aiohttp's means."""
        if isinstance(error, TimeoutError):
            return timed_out(
                method,
                self._host,
                timeout,
                was_sent=state.was_sent,
                has_response=state.has_response,
            )
        if isinstance(error, aiohttp.ClientError | OSError):
            return broken(method, self._host, error, was_sent=state.was_sent)
        if self._is_closed and state.was_sent:  # aiohttp 3.12.0 asserts a live connection
            return broken(method, self._host, error, was_sent=True, reason="the client was closed")
        if self._is_closed:
            return ClientClosedError("This client is closed: make a new GatherClient.")
        if self._borrowed is not None and self._borrowed.closed:
            return ClientClosedError("The aiohttp session that was lent is closed.")
        return error

    @property
    def _host(self) -> str:
        return URL(self._base).host or ""

    async def _open(self, part: _LoopSession) -> aiohttp.ClientSession:
        """Return a new session of the running loop, or the lent one."""
        if self._is_closed:
            raise ClientClosedError("This client is closed: make a new GatherClient.")
        part.owner.enter()
        part.session = part.lifetime = None
        part.room, part.deadlines = asyncio.Semaphore(_MOST_CONNECTIONS), Deadlines()
        if self._borrowed is not None:
            part.session = self._traced(self._borrowed)
            return part.session
        lifetime = part.lifetime = self._keep_open(part)
        await anext(lifetime)
        if part.session is None:  # closed meanwhile
            raise ClientClosedError("This client is closed: make a new GatherClient.")
        return part.session

    async def _keep_open(self, part: _LoopSession) -> AsyncGenerator[None, None]:
        """Hold a session open until closed by `aclose` or by the end of its loop.

        ``asyncio.run`` closes the async generators of its loop before it ends, so a
        client that outlives its loop leaves nothing open in it.
        """
        async with aiohttp.ClientSession(
            connector=_CountingConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[*self._trace_configs],
        ) as session:
            part.session = session
            try:
                yield
            finally:
                if part.session is session:
                    part.session = None  # the loop may go on after its generators are closed

    def _traced(self, session: aiohttp.ClientSession) -> aiohttp.ClientSession:
        """Return a borrowed session with our trace, for as long as a client uses it."""
        if not self._has_traced:
            self._has_traced = True
            _BORROWERS[session] = _BORROWERS.get(session, 0) + 1
        for trace in (_SENDING_TRACE, *self._trace_configs):
            if trace not in session.trace_configs:
                trace.freeze()
                session.trace_configs.append(trace)
        return session

    def _untrace(self) -> None:
        """Take the trace off a borrowed session once no client uses it."""
        session = self._borrowed
        if session is None or not self._has_traced:
            return
        self._has_traced = False
        _BORROWERS[session] -= 1
        if not _BORROWERS[session]:
            del _BORROWERS[session]
            session.trace_configs.remove(_SENDING_TRACE)


_SECONDS = Number(above=0, unit="seconds")  # asyncio has no timer for an infinite delay


def client_timeout(timeout: Timeout) -> aiohttp.ClientTimeout:
    """Return aiohttp's form of what a caller passed as ``timeout``.

    Raises:
        ConfigurationError: It is not a finite number of seconds above 0.
    """
    if isinstance(timeout, aiohttp.ClientTimeout):
        return timeout
    if timeout is not None:
        _SECONDS.check("timeout", timeout, accepts="a ClientTimeout or None")
    return aiohttp.ClientTimeout(total=timeout)


def request_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers in the form that aiohttp would otherwise make for each request."""
    return CIMultiDict(headers)


def user_agent(version: str) -> str:
    """Return how this package names itself to the server."""
    python = platform.python_version()
    return f"gather-async/{version} aiohttp/{aiohttp.__version__} Python/{python}"
