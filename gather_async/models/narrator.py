"""Text-to-speech narrators. Source: /api-reference/narrators."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from gather_async.models.fields import Model

__all__ = ["Narrator", "Voice"]


@frozen(kw_only=True)
class Voice(Model):
    """One voice of a narrator."""

    id: str
    name: str | None = None
    gender: str | None = None
    description: str | None = None
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""


@frozen(kw_only=True)
class Narrator(Model):
    """The voice that speaks a question's script."""

    id: str
    name: str | None = None
    language: str | None = None
    """Such as ``en``."""
    voices: tuple[Voice, ...] = ()
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""
