"""The one header that counts, in whatever form a framework keeps headers."""

from collections.abc import Iterable, Mapping
from typing import Any

from gather_async.protocol.signatures import SIGNATURE_HEADER

__all__ = ["signature_in"]


def signature_in(headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None) -> str | None:
    """Return the signature header's value, None if there is none; several are joined.

    Names are compared without regard to case; text and bytes are both fine, and so is
    anything with ``items``: the standard library's messages are no mappings.
    """
    items = getattr(headers, "items", None)
    pairs: Any = items() if callable(items) else headers or ()
    values = [_text(value) for name, value in pairs if _text(name).lower() == SIGNATURE_HEADER]
    return ",".join(values) if values else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
