"""Models as plain values, for JSON and tables."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

__all__ = ["to_plain"]


def to_plain(value: Any) -> Any:
    """Return what JSON can hold: snake_case names, ISO 8601 dates, an empty ``extra`` left out."""
    if attrs.has(type(value)):
        fields = {each.name: getattr(value, each.name) for each in attrs.fields(type(value))}
        if not fields.get("extra"):
            fields.pop("extra", None)
        return to_plain(fields)
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return str.__str__(value)
    return value
