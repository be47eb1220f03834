"""End of an HTTP exchange: the response's body within bounds, or the error of what failed."""

import zlib
from typing import Any

import aiohttp

from gather_async.errors import GatherConnectionError, GatherTimeoutError

__all__ = ["BodyBuffer", "broken", "chainable", "connection_reason", "timed_out"]

_PIECE = 65_536  # bytes unpacked at a time, so that a bomb is noticed early


class BodyBuffer:
    """The body of a response as it arrives, unpacked up to a limit.

    Args:
        packing: The ``Content-Encoding``, in lower case.
        limit: The most bytes of the unpacked body.

    Attributes:
        problem: What is wrong with the body; empty if nothing is.
    """

    def __init__(self, packing: str, limit: int) -> None:
        self.problem: str = ""
        self._parts: list[bytes] = []
        self._left = limit
        self._packing = packing
        self._limit = limit
        self._inflater: Any = None

    @property
    def content(self) -> bytes:
        """What has arrived so far."""
        return b"".join(self._parts)

    def feed(self, piece: bytes) -> bool:
        """Take the next piece; return False once the rest is of no use, for `problem`'s reason."""
        if self._packing == "identity":
            return self._keep(piece)
        if self._packing not in {"gzip", "x-gzip", "deflate"}:
            self.problem = "is packed in a way that was not asked for"
            return False
        try:
            while piece:
                if self._inflater is None or self._inflater.eof:
                    self._inflater = _inflater(piece)  # gzip allows one member after another
                if not self._keep(self._inflater.decompress(piece, _PIECE)):
                    return False
                piece = self._inflater.unconsumed_tail or self._inflater.unused_data
        except zlib.error:
            self.problem = "can't be unpacked"
        return not self.problem

    def finish(self) -> bool:
        """Take the end of the body; return False if it came too early."""
        if self._inflater is not None and self._keep(self._inflater.flush()):
            self.problem = "" if self._inflater.eof else "ends before it can be unpacked"
        return not self.problem

    def _keep(self, part: bytes) -> bool:
        self._left -= len(part)
        if self._left < 0:
            self.problem = f"is larger than max_response ({self._limit} bytes)"
            return False
        self._parts.append(part)
        return True


def _inflater(piece: bytes) -> Any:
    """Return what unpacks a body that begins so: with a header of gzip or zlib, or without."""
    has_header = piece[0] == 0x1F or piece[0] & 0x0F == zlib.DEFLATED
    return zlib.decompressobj(zlib.MAX_WBITS + 32 if has_header else -zlib.MAX_WBITS)


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
