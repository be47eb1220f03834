"""What the waiting calls of resources are answered by; the client wires it in.

It is handed over as a function, because it reads through these very resources.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from gather_async.errors import AudioGenerationError
from gather_async.models.candidate_interview import CandidateInterview, InterviewResults
from gather_async.models.question import Question
from gather_async.protocol.polling import PollPolicy

__all__ = ["Waits"]


class Waits(Protocol):
    """Waits that share their polls with all other waits of the client."""

    async def audio_ready(
        self,
        question: Question | str,
        *,
        timeout: float | None,
        poll: PollPolicy | None,
    ) -> Question:
        """Return the question once its audio is ready."""
        ...

    def all_audio_ready(
        self,
        questions: Iterable[Question | str],
        *,
        timeout: float | None,
        poll: PollPolicy | None,
    ) -> AsyncIterator[Question | AudioGenerationError]:
        """Give each question as its audio generation ends."""
        ...

    async def completed(
        self, id: str, *, timeout: float | None, poll: PollPolicy | None
    ) -> CandidateInterview:
        """Return the candidate interview once the candidate has finished."""
        ...

    async def summarized(
        self, id: str, *, timeout: float | None, poll: PollPolicy | None
    ) -> InterviewResults:
        """Return the results once the summary is over."""
        ...
