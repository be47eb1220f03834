"""The policy of polls: their intervals, their share of the quota, and the audio states.

Source: quickstart, common issues (audio generation is asynchronous; its state is
``transcriptionStatus``). The values of that field are documented nowhere.
"""

from collections.abc import Iterable
from typing import Literal

from attrs import field, frozen

from gather_async.errors import ConfigurationError, InvalidRequestError
from gather_async.models.question import (
    FAILED_WORDS,
    READY_WORDS,
    AudioState,
    Question,
    audio_state_of,
)
from gather_async.validators import Choice, Number

__all__ = ["PollPolicy", "audio_state", "next_interval"]

_JITTER = 0.2  # the part of an interval that is drawn; it never gets longer than the policy says


_OWNER = "PollPolicy"
_SECONDS = Number(above=0, unit="seconds", owner=_OWNER)
_FACTOR = Number(least=1, owner=_OWNER)
_SHARE = Number(above=0, most=1, owner=_OWNER)
_PRIORITY = Choice(("interactive", "bulk"), owner=_OWNER)


def _words(words: object) -> frozenset[str]:
    """Return the words in the form that `audio_state_of` compares."""
    if isinstance(words, str) or not isinstance(words, Iterable):
        raise ConfigurationError('PollPolicy needs sets of words, such as {"done"}, not one word.')
    found = list(words)
    if not all(isinstance(word, str) for word in found):
        raise ConfigurationError("PollPolicy's words must be text.")
    return frozenset(word.strip().casefold() for word in found)


@frozen
class PollPolicy:
    """Policy of the polls of waiting calls: intervals, quota share, words of success.

    The first poll is made at once, the next ``first`` seconds later, then at
    intervals that grow by ``factor`` up to ``cap``, each up to a fifth shorter by
    jitter. The last poll is made just before the deadline. While a poll of all
    that is awaited costs more than ``quota_share`` pays for, intervals get longer.

    >>> PollPolicy(ready_words={"Baked"}).ready_words
    frozenset({'baked'})

    Raises:
        ConfigurationError: A value is out of range, or a word means two things.
    """

    first: float = field(default=1.0, validator=_SECONDS)
    """Seconds from the first poll to the second; above 0."""
    factor: float = field(default=1.5, validator=_FACTOR, kw_only=True)
    """How much longer each interval is than the one before; 1 or more."""
    cap: float = field(default=15.0, validator=_SECONDS, kw_only=True)
    """Seconds: the longest interval, and the usual one while webhooks arrive."""
    quota_share: float = field(default=0.2, validator=_SHARE, kw_only=True)
    """The part of each rate limit that looking around may use, above 0, at most 1. Reads
    that a webhook asked for count, but are made at once."""
    ready_words: frozenset[str] = field(default=READY_WORDS, converter=_words, kw_only=True)
    """Values of ``transcriptionStatus`` that mean success; case doesn't matter."""
    failed_words: frozenset[str] = field(default=FAILED_WORDS, converter=_words, kw_only=True)
    """Values that mean failure. Any other value means that it still runs."""
    priority: Literal["interactive", "bulk"] = field(
        default="bulk", validator=_PRIORITY, kw_only=True
    )
    """Whether polls go ahead of bulk work when the quota is short."""

    def __attrs_post_init__(self) -> None:
        if self.ready_words & self.failed_words:
            raise ConfigurationError("PollPolicy: a word can't mean both success and failure.")

    @classmethod
    def of(cls, poll: "PollPolicy | None") -> "PollPolicy":
        """Return the policy that a caller passed, or the default one for None.

        Raises:
            InvalidRequestError: It is something else.
        """
        if not isinstance(poll, PollPolicy | None):
            raise InvalidRequestError("poll must be a PollPolicy, such as PollPolicy(first=2.0).")
        return cls() if poll is None else poll


def audio_state(question: Question, policy: PollPolicy | None = None) -> AudioState:
    """Return where a question's audio stands, by the words of a policy.

    A word in neither set means that it still runs. Where the server names no
    state, a set ``audio_url`` means that the audio is ready.

    Args:
        question: As read.
        policy: Whose words count; None takes the default ones.

    >>> audio_state(Question(id="1", transcription_status="Complete")).name
    'READY'
    """
    if policy is None:
        return question.audio_state
    return audio_state_of(
        question.transcription_status,
        question.audio_url,
        ready_words=policy.ready_words,
        failed_words=policy.failed_words,
    )


def next_interval(policy: PollPolicy, *, age: float, draw: float, is_slow: bool = False) -> float:
    """Return the seconds from one poll to the next.

    An interval depends on the age alone: polls at ages 0, ``first``, ``first + first
    * factor`` and so on are what the policy describes, and a poll made earlier or
    later than planned needs no bookkeeping.

    Args:
        policy: The waiting caller's.
        age: Seconds since the wait began, 0 or more.
        draw: A random number from 0 to 1.
        is_slow: Whether something else announces changes, so that ``cap`` is enough.

    >>> [next_interval(PollPolicy(), age=age, draw=0.0) for age in (0, 1, 2.5, 3600)]
    [1.0, 1.5, 2.25, 15.0]
    """
    grown = policy.first + (policy.factor - 1.0) * age
    return (policy.cap if is_slow else min(policy.cap, grown)) * (1.0 - _JITTER * draw)
