"""One HTTP exchange. The only module that imports aiohttp's client, and maps its errors."""

import asyncio
import platform
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import aiohttp
from attrs import define, field, frozen
from yarl import URL

from gather_async.errors import (
    ClientClosedError,
    ConfigurationError,
    GatherConnectionError,
    GatherTimeoutError,
)
from gather_async.protocol.responses import Answer

__all__ = ["Deadlines", "HTTPSession", "HTTPTrace", "Sending", "Timeout", "Transport", "user_agent"]

Timeout = float | aiohttp.ClientTimeout | None
"""What a caller may pass as ``timeout``: seconds for the whole call, aiohttp's own, or None."""
HTTPSession = aiohttp.ClientSession
HTTPTrace = aiohttp.TraceConfig
_HeadersSent = aiohttp.TraceRequestHeadersSentParams


@frozen(kw_only=True)
class Deadlines:
    """How long an exchange may take, in seconds; None: as long as it takes."""

    total: float | None
    """From a connection being asked for to the answer's last byte; the time queued
    for the connection pool doesn't count."""
    connect: float | None = None
    read: float | None = None
    """Between two reads of the answer."""
    of_sockets: aiohttp.ClientTimeout = field(init=False, repr=False, eq=False)
    """What aiohttp sees to. Its own total counts the queue for the pool, so it has none."""

    @of_sockets.default
    def _connect_and_read(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=None, connect=None, sock_connect=self.connect, sock_read=self.read
        )

    @classmethod
    def of(cls, timeout: Timeout) -> "Deadlines":
        """Read what a caller may pass as ``timeout``.

        Raises:
            ConfigurationError: It is not a number of seconds above 0.
        """
        if isinstance(timeout, aiohttp.ClientTimeout):
            return cls(
                total=timeout.total,
                connect=timeout.sock_connect if timeout.connect is None else timeout.connect,
                read=timeout.sock_read,
            )
        if timeout is not None and not (
            isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout > 0
        ):
            raise ConfigurationError("timeout must be seconds above 0, a ClientTimeout, or None.")
        return cls(total=timeout)


@define(eq=False)
class Sending:
    """What is known of one exchange under way."""

    on_resent: Callable[[], None]
    """Called when aiohttp sends the request once more on its own."""
    sends: int = 0
    """How often the request's headers left."""
    deadline: asyncio.Timeout | None = None
    total: float | None = None

    @property
    def was_sent(self) -> bool:
        """Whether the server may have the request."""
        return self.sends > 0

    def leave(self) -> None:
        """Note that the headers are leaving."""
        self.sends += 1
        if self.sends > 1:
            self.on_resent()

    def leave_pool_queue(self) -> None:
        """Start the total anew: the wait for a pooled connection doesn't count."""
        if self.deadline is not None and self.total is not None:
            self.deadline.reschedule(asyncio.get_running_loop().time() + self.total)


async def _headers_sent(_: Any, context: Any, __: _HeadersSent) -> None:
    if isinstance(context.trace_request_ctx, Sending):
        context.trace_request_ctx.leave()


async def _pool_queue_left(_: Any, context: Any, __: Any) -> None:
    if isinstance(context.trace_request_ctx, Sending):
        context.trace_request_ctx.leave_pool_queue()


def _sending_trace() -> aiohttp.TraceConfig:
    """Build the trace that tells exactly whether a request left; exception classes don't."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_headers_sent)
    trace.on_connection_queued_end.append(_pool_queue_left)
    trace.freeze()
    return trace


@define(eq=False, repr=False)
class Transport:
    """Sends requests through one aiohttp session, which it opens in the running loop.

    A session that the caller lent is used as it is and never closed.
    """

    _base: str
    _borrowed: aiohttp.ClientSession | None = None
    _trust_env: bool = False
    _trace_configs: Sequence[aiohttp.TraceConfig] = ()
    _trace: aiohttp.TraceConfig = field(factory=_sending_trace, init=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
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
        deadlines: Deadlines,
        sending: Sending,
    ) -> Answer:
        """Send one request and read the whole answer. Redirects are not followed.

        Raises:
            ClientClosedError: The transport is closed, or busy in another loop.
            GatherConnectionError: The connection failed.
            GatherTimeoutError: A deadline passed.
        """
        session = await self._session_here()
        sending.total = deadlines.total
        try:
            async with asyncio.timeout(deadlines.total) as sending.deadline:
                async with session.request(
                    method,
                    self._url(target),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    timeout=deadlines.of_sockets,
                    trace_request_ctx=sending,
                ) as response:
                    content = await response.read()
                    return Answer(response.status, response.headers, content)
        except TimeoutError as error:
            raise _timed_out(method, sending, deadlines) from error
        except aiohttp.ClientResponseError as error:
            # Its `request_info` holds the headers, and so the key: it is not chained.
            raise _broken(method, sending, f"the answer is not HTTP ({error.status})") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(method, sending, type(error).__name__) from error
        except RuntimeError as error:
            if self._borrowed is not None and self._borrowed.closed:
                raise ClientClosedError("The aiohttp session that was lent is closed.") from error
            raise

    async def aclose(self) -> None:
        """Close what was opened here; harmless to repeat."""
        self._is_closed = True
        if self._borrowed is not None and self._trace in self._borrowed.trace_configs:
            self._borrowed.trace_configs.remove(self._trace)
        if self._loop is asyncio.get_running_loop() and self._lifetime is not None:
            await self._lifetime.aclose()
        self._forget_session()

    def _url(self, target: str) -> URL:
        return URL(f"{self._base}{target}", encoded=True)

    async def _session_here(self) -> aiohttp.ClientSession:
        """Return the session of the running loop, opened if need be."""
        if self._is_closed:
            raise ClientClosedError("This client is closed: make a new GatherClient.")
        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is loop and not self._session.closed:
            return self._session
        if self._loop is not None and self._loop is not loop and self._loop.is_running():
            raise ClientClosedError(
                "This client is in use in another running event loop: make one client per loop."
            )
        self._forget_session()
        self._loop = loop
        if self._borrowed is not None:
            self._session = self._traced(self._borrowed)
        else:
            self._lifetime = self._keep_open()
            await anext(self._lifetime)
        assert self._session is not None  # noqa: S101 - both branches set it
        return self._session

    async def _keep_open(self) -> AsyncGenerator[None, None]:
        """Hold a session open until closed by `aclose` or by the end of its loop.

        ``asyncio.run`` closes the async generators of its loop before it ends, so a
        client that outlives its loop leaves nothing open in it.
        """
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[self._trace, *self._trace_configs],
            trust_env=self._trust_env,
        ) as session:
            self._session = session
            yield

    def _traced(self, session: aiohttp.ClientSession) -> aiohttp.ClientSession:
        for trace in (self._trace, *self._trace_configs):
            if trace not in session.trace_configs:
                trace.freeze()
                session.trace_configs.append(trace)
        return session

    def _forget_session(self) -> None:
        self._session = self._lifetime = self._loop = None


def user_agent(version: str) -> str:
    """Return how this package names itself to the server."""
    python = platform.python_version()
    return f"gather-async/{version} aiohttp/{aiohttp.__version__} Python/{python}"


def _timed_out(method: str, sending: Sending, deadlines: Deadlines) -> GatherTimeoutError:
    state = "after it was sent" if sending.was_sent else "before it was sent"
    return GatherTimeoutError(
        f"A {method} request timed out {state} (timeout: {deadlines.total} s). "
        + _advice(method, sending),
        maybe_processed=sending.was_sent and method != "GET",
    )


def _broken(method: str, sending: Sending, what: str) -> GatherConnectionError:
    state = "after it was sent" if sending.was_sent else "before it was sent"
    return GatherConnectionError(
        f"The connection of a {method} request failed {state}: {what}. " + _advice(method, sending),
        maybe_processed=sending.was_sent and method != "GET",
    )


def _advice(method: str, sending: Sending) -> str:
    if sending.was_sent and method != "GET":
        return "It may have been carried out: look before you send it again."
    return "It is safe to try again."
