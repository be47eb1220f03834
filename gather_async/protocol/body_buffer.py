"""The body of a response as it arrives, within bounds."""

import zlib
from typing import Any

__all__ = ["BodyBuffer"]

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
