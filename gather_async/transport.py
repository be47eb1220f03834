"""One HTTP exchange. The only module that imports aiohttp's client, and maps its errors."""

import asyncio
import platform
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import aiohttp
from attrs import define, field
from multidict import CIMultiDict
from yarl import URL

from gather_async.clock import LoopOwner
from gather_async.errors import (
    ClientClosedError,
    GatherConnectionError,
    GatherTimeoutError,
    ResponseDecodeError,
)
from gather_async.protocol.body_buffer import BodyBuffer
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
    """What is known of one exchange under way."""

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


@define(eq=False, repr=False)
class Transport:
    """Sends requests through one aiohttp session, which it opens in the running loop.

    A session that the caller lent is used as it is and never closed.
    """

    _base: str = field(alias="base")
    _borrowed: aiohttp.ClientSession | None = field(default=None, alias="borrowed")
    _proxy: str | None = field(default=None, alias="proxy", repr=False)
    _max_response: int = field(default=16 * 2**20, alias="max_response")
    _trace_configs: Sequence[aiohttp.TraceConfig] = field(default=(), alias="trace_configs")
    _trace: aiohttp.TraceConfig = field(factory=_sending_trace, init=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    _owner: LoopOwner = field(factory=lambda: LoopOwner("client"), init=False)
    _room: asyncio.Semaphore = field(factory=asyncio.Semaphore, init=False)
    _lifetime: AsyncGenerator[None, None] | None = field(default=None, init=False)
    _is_closed: bool = field(default=False, init=False)

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
            ClientClosedError: The transport is closed, or busy in another loop.
            GatherConnectionError: The connection failed.
            GatherTimeoutError: A deadline passed.
            ResponseDecodeError: The response is larger than ``max_response``, or
                packed in a way that was not asked for.
        """
        session = await self._session_here()
        room = self._room
        await room.acquire()
        mark = _SENDING.set(state)
        try:
            # What a lent session has as its own defaults is said here, so that it changes nothing.
            async with session.request(
                method,
                URL(self._base + target, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=timeout,
                raise_for_status=False,
                auto_decompress=False,
                proxy=self._proxy,
            ) as response:
                state.has_response = True
                headers, length = response.headers, response.content_length
                if length is None or length > self._max_response or "Content-Encoding" in headers:
                    return Response(response.status, headers, await self._read(response, method))
                return Response(response.status, headers, await response.read())
        except (aiohttp.ClientError, OSError, RuntimeError, AssertionError, ValueError) as error:
            raise self._mapped(error, method, state, timeout) from _publishable(error)
        finally:
            _SENDING.reset(mark)
            room.release()

    async def _read(self, response: aiohttp.ClientResponse, method: str) -> bytes:
        """Return the whole body, unpacked.

        Raises:
            ResponseDecodeError: It is too large, or can't be unpacked.
        """
        packing = response.headers.get("Content-Encoding", "identity").strip().lower()
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
        if self._borrowed is not None and self._trace in self._borrowed.trace_configs:
            self._borrowed.trace_configs.remove(self._trace)
        lifetime, is_here = self._lifetime, self._owner.is_here
        self._forget_session()
        if is_here and lifetime is not None:
            await lifetime.aclose()

    def _mapped(
        self, error: Exception, method: str, state: SendState, timeout: aiohttp.ClientTimeout
    ) -> Exception:
        """Return the error of this package that one of aiohttp's means."""
        if isinstance(error, TimeoutError):
            return _timed_out(method, self._host, state, timeout)
        if isinstance(error, aiohttp.ClientError | OSError):
            return _broken(method, self._host, state, error)
        if self._is_closed and state.was_sent:  # aiohttp 3.12.0 asserts a live connection
            return _broken(method, self._host, state, error, reason="the client was closed")
        if self._is_closed:
            return ClientClosedError("This client is closed: make a new GatherClient.")
        if self._borrowed is not None and self._borrowed.closed:
            return ClientClosedError("The aiohttp session that was lent is closed.")
        return error

    @property
    def _host(self) -> str:
        return URL(self._base).host or ""

    async def _session_here(self) -> aiohttp.ClientSession:
        """Return the session of the running loop, opened if need be."""
        if self._is_closed:
            raise ClientClosedError("This client is closed: make a new GatherClient.")
        if not self._owner.enter() and self._session is not None and not self._session.closed:
            return self._session
        self._forget_session()
        self._room = asyncio.Semaphore(_MOST_CONNECTIONS)
        if self._borrowed is not None:
            return self._traced(self._borrowed)
        self._lifetime = self._keep_open()
        await anext(self._lifetime)
        return await self._session_here()

    async def _keep_open(self) -> AsyncGenerator[None, None]:
        """Hold a session open until closed by `aclose` or by the end of its loop.

        ``asyncio.run`` closes the async generators of its loop before it ends, so a
        client that outlives its loop leaves nothing open in it.
        """
        async with aiohttp.ClientSession(
            connector=_CountingConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[*self._trace_configs],
        ) as session:
            self._session = session
            yield

    def _traced(self, session: aiohttp.ClientSession) -> aiohttp.ClientSession:
        """Return a borrowed session with our traces, for as long as we use it."""
        for trace in (self._trace, *self._trace_configs):
            if trace not in session.trace_configs:
                trace.freeze()
                session.trace_configs.append(trace)
        self._session = session
        return session

    def _forget_session(self) -> None:
        self._session = self._lifetime = None


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


def _publishable(error: Exception) -> Exception | None:
    """Return the error if it can be chained: a ClientResponseError's request has the key."""
    return None if isinstance(error, aiohttp.ClientResponseError) else error


def _timed_out(
    method: str, host: str, state: SendState, timeout: aiohttp.ClientTimeout
) -> GatherTimeoutError:
    what = f"A {method} request to {host} timed out {_when(state)} (timeout: {timeout.total} s)."
    if state.has_response:
        what = f"The response to a {method} request to {host} took longer than its timeout."
    error = GatherTimeoutError(
        f"{what} {_advice(method, state)}",
        maybe_processed=state.was_sent and method != "GET",
    )
    error.is_permanent = state.has_response
    return error


def _broken(
    method: str, host: str, state: SendState, error: Exception, *, reason: str = ""
) -> GatherConnectionError:
    is_permanent = _is_permanent(error)
    reason = reason or _reason(error)
    advice = "Trying again can't help." if is_permanent else _advice(method, state)
    return GatherConnectionError(
        f"The connection of a {method} request to {host} failed {_when(state)}: {reason}. {advice}",
        maybe_processed=state.was_sent and method != "GET",
        reason=reason,
        host=host,
        is_permanent=is_permanent,
    )


def _is_permanent(error: Exception) -> bool:
    """Return whether an error can't mend itself."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status < 500
    return isinstance(
        error,
        aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch | aiohttp.InvalidURL,
    )


def _reason(error: Exception) -> str:
    """Return why a connection failed, without anything of the request."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status} {error.message}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error.strerror or str(error.os_error) or type(error).__name__
        is_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
        return f"the proxy can't be reached: {reason}" if is_proxy else reason
    if isinstance(error, aiohttp.ClientResponseError):
        return type(error).__name__  # its text has the request's headers
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _when(state: SendState) -> str:
    return "after it was sent" if state.was_sent else "before it was sent"


def _advice(method: str, state: SendState) -> str:
    if state.was_sent and method != "GET":
        return "It may have been carried out: read it before you send it again."
    return "It is safe to try again."
