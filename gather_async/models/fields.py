"""How a field is spelled on the wire; each name is copied, never derived."""

from typing import Any

__all__ = ["WIRE_NAME", "wire"]

WIRE_NAME = "gather_async.wire_name"


def wire(name: str) -> dict[str, Any]:
    """Return attrs metadata for a field whose wire name differs from its own."""
    return {WIRE_NAME: name}
