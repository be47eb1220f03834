"""The one header that counts, in whatever form a framework keeps headers."""

from collections.abc import Iterable, Mapping
from typing import Any

from gather_async.protocol.signatures import SIGNATURE_HEADER

__all__ = ["signature_in"]


def signature_in(headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> str | None:
    """Return the signature header's value, None if there is none; several are joined.

    Names are compared without regard to case; text and bytes are both fine.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    values = [_text(value) for name, value in pairs if _text(name).lower() == SIGNATURE_HEADER]
    return ",".join(values) if values else None


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
