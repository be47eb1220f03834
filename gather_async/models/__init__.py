"""The API's resources as frozen attrs classes; the organization's own ones share a file.

Every field but an id may be None: the documentation doesn't say what can be
absent. ``extra`` keeps what a class doesn't name, and an unknown word of an
enum stays readable as text, so a change of the server never breaks a reader.
"""

from gather_async.models.candidate import Candidate, NewCandidate
from gather_async.models.candidate_interview import CandidateInterview, InterviewResults
from gather_async.models.enums import (
    CandidateInterviewStatus,
    DeliveryType,
    EvaluationType,
    InterviewStatus,
    InterviewType,
    SummaryStatus,
)
from gather_async.models.interview import BulkUpdateResult, Interview, InterviewQuestion
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
from gather_async.models.question import AudioState, Question
from gather_async.models.rate_limit import RateLimitStatus

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
