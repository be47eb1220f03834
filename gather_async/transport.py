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
)
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
    sends: int = 0
    """How often the request left."""

    @property
    def was_sent(self) -> bool:
        """Whether the server may have the request."""
        return self.sends > 0

    def leave(self) -> None:
        """Note that the request is leaving."""
        self.sends += 1
        if self.sends > 1:
            self.on_resent()


_SENDING: ContextVar[SendState | None] = ContextVar("gather_async_sending", default=None)


class _CountingConnector(aiohttp.TCPConnector):
    """Tells exactly whether a request left; the classes of aiohttp's errors don't.

    A connection is asked for once for each time a request is sent, and the
    headers are written in the same step of the loop as it is given. aiohttp's
    tracing tells the same at several times the cost: see benchmarks/calls.py.
    """

    async def connect(self, *args: Any, **options: Any) -> Any:
        connection = await super().connect(*args, **options)
        _note_leaving()
        return connection


async def _headers_sent(_: Any, __: Any, ___: aiohttp.TraceRequestHeadersSentParams) -> None:
    _note_leaving()


def _note_leaving() -> None:
    """Tell the exchange of this task, if it is one of ours, that its request leaves."""
    sending = _SENDING.get()
    if sending is not None:
        sending.leave()


def _sending_trace() -> aiohttp.TraceConfig:
    """Build the trace that tells what a borrowed session sends."""
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
    _trust_env: bool = field(default=False, alias="trust_env")
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
        sending: SendState,
    ) -> Response:
        """Send one request and read the whole answer. Redirects are not followed.

        At most 100 requests are under way at once; the time spent waiting for
        room doesn't count towards the timeout.

        Raises:
            ClientClosedError: The transport is closed, or busy in another loop.
            GatherConnectionError: The connection failed.
            GatherTimeoutError: A deadline passed.
        """
        session = await self._session_here()
        room = self._room
        await room.acquire()
        mark = _SENDING.set(sending)
        try:
            async with session.request(
                method,
                URL(self._base + target, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                return Response(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, OSError, RuntimeError, AssertionError) as error:
            raise self._mapped(error, method, sending, timeout) from _publishable(error)
        finally:
            _SENDING.reset(mark)
            room.release()

    async def aclose(self) -> None:
        """Close what was opened here; harmless to repeat."""
        self._is_closed = True
        if self._borrowed is not None and self._trace in self._borrowed.trace_configs:
            self._borrowed.trace_configs.remove(self._trace)
        if self._owner.is_here and self._lifetime is not None:
            await self._lifetime.aclose()
        self._forget_session()

    def _mapped(
        self, error: Exception, method: str, sending: SendState, timeout: aiohttp.ClientTimeout
    ) -> Exception:
        """Return the error of this package that one of aiohttp's means."""
        if isinstance(error, TimeoutError):
            return _timed_out(method, sending, timeout)
        if isinstance(error, aiohttp.ClientError | OSError):
            return _broken(method, sending, type(error).__name__)
        if self._is_closed and sending.was_sent:  # aiohttp 3.12.0 asserts a live connection
            return _broken(method, sending, "the client was closed")
        if self._is_closed:
            return ClientClosedError("This client is closed: make a new GatherClient.")
        if self._borrowed is not None and self._borrowed.closed:
            return ClientClosedError("The aiohttp session that was lent is closed.")
        return error

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
            trust_env=self._trust_env,
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
    method: str, sending: SendState, timeout: aiohttp.ClientTimeout
) -> GatherTimeoutError:
    return GatherTimeoutError(
        f"A {method} request timed out {_when(sending)} (timeout: {timeout.total} s). "
        + _advice(method, sending),
        maybe_processed=sending.was_sent and method != "GET",
    )


def _broken(method: str, sending: SendState, what: str) -> GatherConnectionError:
    return GatherConnectionError(
        f"The connection of a {method} request failed {_when(sending)}: {what}. "
        + _advice(method, sending),
        maybe_processed=sending.was_sent and method != "GET",
    )


def _when(sending: SendState) -> str:
    return "after it was sent" if sending.was_sent else "before it was sent"


def _advice(method: str, sending: SendState) -> str:
    if sending.was_sent and method != "GET":
        return "It may have been carried out: look before you send it again."
    return "It is safe to try again."
