"""The API's resources as frozen attrs classes; the organization's own ones share a file.

Every field but an id may be None: the documentation doesn't say what can be
absent. ``extra`` keeps what a class doesn't name, and an unknown word of an
enum stays readable as text, so a change of the server never breaks a reader.

Those of the organization, which few programs read, are loaded when first used (PEP 562).
"""

from typing import TYPE_CHECKING

from gather_async.models.candidate import (
    Candidate,
    CandidateInterview,
    InterviewResults,
    NewCandidate,
)
from gather_async.models.enums import (
    CandidateInterviewStatus,
    DeliveryType,
    EvaluationType,
    InterviewStatus,
    InterviewType,
    SummaryStatus,
)
from gather_async.models.interview import BulkUpdateResult, Interview, InterviewQuestion
from gather_async.models.question import AudioState, Question
from gather_async.models.rate_limit import RateLimitStatus

if TYPE_CHECKING:
    from gather_async.models.organization import (
        Message,
        MessageGroup,
        Narrator,
        NewTeam,
        NewUser,
        Team,
        User,
        Voice,
    )

__all__ = [
    "AudioState",
    "BulkUpdateResult",
    "Candidate",
    "CandidateInterview",
    "CandidateInterviewStatus",
    "DeliveryType",
    "EvaluationType",
    "Interview",
    "InterviewQuestion",
    "InterviewResults",
    "InterviewStatus",
    "InterviewType",
    "Message",
    "MessageGroup",
    "Narrator",
    "NewCandidate",
    "NewTeam",
    "NewUser",
    "Question",
    "RateLimitStatus",
    "SummaryStatus",
    "Team",
    "User",
    "Voice",
]

if not TYPE_CHECKING:  # a checker that saw `__getattr__` would accept any name

    def __getattr__(name: str) -> object:
        """Return a name of the organization's module, which is imported now."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from gather_async.models import organization  # noqa: PLC0415 - a tenth of a client's import

        value = globals()[name] = getattr(organization, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
