"""Errors of an exchange that failed, by what aiohttp says of it."""

import aiohttp

from gather_async.errors import GatherConnectionError, GatherTimeoutError

__all__ = ["broken", "chainable", "connection_reason", "timed_out"]


def chainable(error: Exception) -> Exception | None:
    """Return the error if it can be chained: a ClientResponseError's request has the key."""
    return None if isinstance(error, aiohttp.ClientResponseError) else error


def timed_out(
    method: str,
    host: str,
    timeout: aiohttp.ClientTimeout,
    *,
    was_sent: bool,
    has_response: bool,
) -> GatherTimeoutError:
    """Return the error of a request whose time was over."""
    what = f"A {method} request to {host} timed out {_when(was_sent)} (timeout: {timeout.total} s)."
    if has_response:
        what = f"The response to a {method} request to {host} took longer than its timeout."
    error = GatherTimeoutError(
        f"{what} {_advice(method, was_sent)}",
        maybe_processed=was_sent and method != "GET",
    )
    error.is_permanent = has_response
    return error


def broken(
    method: str, host: str, error: Exception, *, was_sent: bool, reason: str = ""
) -> GatherConnectionError:
    """Return the error of a connection that failed, with the reason and the host."""
    is_permanent = _is_permanent(error)
    reason = reason or connection_reason(error)
    what = f"The connection of a {method} request to {host} failed {_when(was_sent)}: {reason}."
    advice = "Trying again can't help." if is_permanent else _advice(method, was_sent)
    return GatherConnectionError(
        f"{what} {advice}",
        maybe_processed=was_sent and method != "GET",
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
        # Its own text has the request's headers, and its cause's has what the server sent.
        return "the response is no valid HTTP"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _when(was_sent: bool) -> str:
    return "after it was sent" if was_sent else "before it was sent"


def _advice(method: str, was_sent: bool) -> str:
    if was_sent and method != "GET":
        return "It may have been carried out: read it before you send it again."
    return "It is safe to try again."
