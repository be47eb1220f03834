"""State of a request on its way, and the error that its failure then is."""

import asyncio
from collections.abc import Callable

import aiohttp
from attrs import define, field

from gather_async.errors import GatherConnectionError, GatherTimeoutError

__all__ = ["SendState", "broken", "chainable", "connection_reason", "timed_out"]


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


def chainable(error: Exception) -> Exception | None:
    """Return the error if it can be chained: a ClientResponseError's request has the key."""
    return None if isinstance(error, aiohttp.ClientResponseError) else error


def timed_out(
    method: str, host: str, state: SendState, timeout: aiohttp.ClientTimeout
) -> GatherTimeoutError:
    """Return the error of a request whose time was over."""
    what = f"A {method} request to {host} timed out {_when(state)} (timeout: {timeout.total} s)."
    if state.has_response:
        what = f"The response to a {method} request to {host} took longer than its timeout."
    error = GatherTimeoutError(
        f"{what} {_advice(method, state)}",
        maybe_processed=state.was_sent and method != "GET",
    )
    error.is_permanent = state.has_response
    return error


def broken(
    method: str, host: str, state: SendState, error: Exception, *, reason: str = ""
) -> GatherConnectionError:
    """Return the error of a connection that failed, with the reason and the host."""
    is_permanent = _is_permanent(error)
    reason = reason or connection_reason(error)
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


def connection_reason(error: Exception) -> str:
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
