"""The API's words. Its lists are open: a word that is not known here stays readable."""

from enum import StrEnum
from typing import Self

__all__ = [
    "CandidateInterviewStatus",
    "DeliveryType",
    "EvaluationType",
    "InterviewStatus",
    "InterviewType",
    "OpenEnum",
    "SummaryStatus",
]


class OpenEnum(StrEnum):
    """A text enum that turns an unknown word into a member of its own.

    An unknown member equals its text, has the text as name and value, and is
    not listed when the class is iterated.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member

    @property
    def is_known(self) -> bool:
        """Whether this word is in the documentation."""
        return self._value_ in type(self)._value2member_map_


class InterviewType(OpenEnum):
    """The kind of an interview. Source: /api-reference/interviews."""

    STANDARD = "standard"
    QUESTIONNAIRE = "questionnaire"


class InterviewStatus(OpenEnum):
    """The state of an interview.

    Edition A of the documentation sends the word, edition B the number 0 to 3
    in this order. Source: /api-reference/interviews.
    """

    ACTIVE = "active"
    PAUSED = "paused"
    CLOSED = "closed"
    ARCHIVED = "archived"

    @classmethod
    def of_code(cls, code: int) -> Self:
        """Return the status of edition B's number; of an unknown one, its digits."""
        words = tuple(cls)
        return words[code] if 0 <= code < len(words) else cls(str(code))


class CandidateInterviewStatus(OpenEnum):
    """Progress of a candidate. Source: /api-reference/candidate-interviews."""

    INVITE_SENT = "invite_sent"
    NEW_RESPONSE = "new_response"
    HAS_REVIEWED = "has_reviewed"
    PARTIALLY_COMPLETED = "partially_completed"
    HIRED = "hired"
    ARCHIVED = "archived"

    @property
    def is_finished(self) -> bool:
        """Whether the candidate has finished; False if archived, as that may come before."""
        return self in _FINISHED


_FINISHED = frozenset(
    {
        CandidateInterviewStatus.NEW_RESPONSE,
        CandidateInterviewStatus.HAS_REVIEWED,
        CandidateInterviewStatus.HIRED,
    }
)


class DeliveryType(OpenEnum):
    """Channel of an invite. Source: /guides/sending-invites."""

    EMAIL = "email"
    SMS = "sms"


class SummaryStatus(OpenEnum):
    """The state of a summary. Source: /api-reference/candidate-interviews."""

    PRE_SUMMARY_FEATURE = "pre-summary-feature"
    PROCESSING = "processing"
    COMPLETE = "complete"
    ERROR = "error"


class EvaluationType(OpenEnum):
    """Kind of evaluator. Source: /api-reference/candidate-interviews."""

    AI_GENERATED = "ai_generated"
    MANUAL = "manual"
    HYBRID = "hybrid"
