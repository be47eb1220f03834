"""Audio questions. Source: /api-reference/questions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from gather_async.models.audio import AudioState, audio_state_of
from gather_async.models.fields import wire

__all__ = ["Question"]


@frozen(kw_only=True)
class Question:
    """A question of an interview, and the state of its audio."""

    id: str
    """Opaque; a UUID by the documentation."""
    title: str | None = None
    description: str | None = None
    question_script: str | None = field(default=None, metadata=wire("questionScript"))
    """What the narrator says."""
    audio_url: str | None = field(default=None, metadata=wire("audioURL"))
    narrator_id: str | None = field(default=None, metadata=wire("narratorId"))
    """None: the organization's default narrator."""
    transcription_status: str | None = field(default=None, metadata=wire("transcriptionStatus"))
    """The state of audio generation, in the server's words. Source: quickstart, common issues."""
    organization_id: str | None = field(default=None, metadata=wire("organizationId"))
    team_id: str | None = field(default=None, metadata=wire("teamId"))
    created_by_id: str | None = field(default=None, metadata=wire("createdById"))
    created_at: datetime | None = field(default=None, metadata=wire("createdAt"))
    """Aware, UTC."""
    updated_at: datetime | None = field(default=None, metadata=wire("updatedAt"))
    """Aware, UTC."""
    archived_at: datetime | None = field(default=None, metadata=wire("archivedAt"))
    """Aware, UTC; None while in use."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent."""

    @property
    def audio_state(self) -> AudioState:
        """Where audio generation stands, by the default vocabulary.

        `PollPolicy` replaces the vocabulary for the waiting calls.
        """
        return audio_state_of(self.transcription_status, self.audio_url)
