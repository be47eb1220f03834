"""What a question's `transcriptionStatus` says about its audio."""

from collections.abc import Set as AbstractSet
from enum import StrEnum

__all__ = ["AudioState", "FAILED_WORDS", "READY_WORDS", "audio_state_of"]

# The field is named by the quickstart, its values nowhere; these cover the one
# documented vocabulary (summaryStatus) and the usual words beside it.
READY_WORDS = frozenset(
    {"complete", "completed", "done", "finished", "generated", "ready", "succeeded", "success"}
)
FAILED_WORDS = frozenset({"cancelled", "canceled", "error", "errored", "failed", "failure"})


class AudioState(StrEnum):
    """Where the generation of a question's audio stands."""

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
