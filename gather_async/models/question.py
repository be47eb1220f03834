"""Audio questions. Source: /api-reference/questions."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import field, frozen

from gather_async.models.fields import Model, wire

__all__ = ["AudioState", "FAILED_WORDS", "Question", "READY_WORDS", "audio_state_of"]

# The field is named by the quickstart, its values nowhere; these cover the one
# documented vocabulary (summaryStatus) and the usual words beside it.
READY_WORDS = frozenset(
    {"complete", "completed", "done", "finished", "generated", "ready", "succeeded", "success"}
)
FAILED_WORDS = frozenset({"cancelled", "canceled", "error", "errored", "failed", "failure"})


class AudioState(StrEnum):
    """State of the generation of a question's audio."""

    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


def audio_state_of(
    transcription_status: str | None,
    audio_url: str | None,
    *,
    ready_words: AbstractSet[str] = READY_WORDS,
    failed_words: AbstractSet[str] = FAILED_WORDS,
) -> AudioState:
    """Return the state; a word in neither set means that it still runs.

    Where the server names no state, a set audio URL means that the audio is ready.

    Args:
        transcription_status: The field as read; case and outer spaces don't matter.
        audio_url: The question's audio URL.
        ready_words: Words that mean success, in lower case.
        failed_words: Words that mean failure, in lower case.
    """
    if transcription_status is None:
        return AudioState.READY if audio_url else AudioState.PROCESSING
    word = transcription_status.strip().casefold()
    if word in ready_words:
        return AudioState.READY
    if word in failed_words:
        return AudioState.FAILED
    return AudioState.PROCESSING


@frozen(kw_only=True)
class Question(Model):
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
