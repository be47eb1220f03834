"""The policy of polls: their intervals, their share of the quota, and the audio states.

Single reads may use the share of a window of a minute or less, pages of a list twice that,
as far as earlier minutes left it unused: a page shows many objects, and waits come in
batches. Of the share of a longer window three quarters may be used at once and the rest
comes evenly, so that hours of waiting never leave a new wait without a poll for long.

Source: quickstart, common issues (audio generation is asynchronous; its state is
``transcriptionStatus``). The values of that field are documented nowhere.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
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
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.validators import Choice, Number

__all__ = [
    "BRIEF",
    "HORIZON",
    "LeakyBucket",
    "PollBudget",
    "PollPolicy",
    "audio_state",
    "next_interval",
]

BRIEF = 60.0  # seconds; source: /getting-started/rate-limits (a minute and an hour)
HORIZON = 2 * BRIEF  # to plan ahead: what most generations take
# Tuned with benchmarks/waiting.py: more delays 1000 waits less, and leaves later ones less.
_PAGES = 2.0  # shares that pages may use of one brief window; twice as many are kept unused
_AT_ONCE = 0.75  # the part of a long window's share that may be used at once

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


class LeakyBucket:
    """A level that each poll raises by one, and that drains at a steady rate.

    Polls that come while it is full share the next one, so that waits that begin one
    after the other, or events by the hundred, cost little more than if they came together.
    """

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self) -> None:
        self._level = self._at = self._rate = 0.0

    def level(self, now: float) -> float:
        """Return how much of the last polls has not drained yet."""
        return max(0.0, self._level - (now - self._at) * self._rate)

    def wait(self, now: float, *, rate: float, burst: float) -> float:
        """Return the seconds until one more poll fits in; 0.0 means now."""
        over = self.level(now) + 1.0 - burst
        return over / rate if over > 1e-6 else 0.0  # less than that is rounding

    def add(self, now: float, *, rate: float) -> None:
        """Count one poll; the level drains at ``rate`` a second from now on."""
        self._level, self._at, self._rate = self.level(now) + 1.0, now, rate

    def take(self, now: float, *, rate: float, burst: float) -> float:
        """Count one poll if it fits in now, and return 0.0; else the seconds until then."""
        wait = self.wait(now, rate=rate, burst=burst)
        if not wait:
            self.add(now, rate=rate)
        return wait


class PollBudget:
    """The share of each rate limit in force that polls of all conditions may use."""

    __slots__ = ("_buckets", "_limits", "_polls", "_reads")

    def __init__(self, limits: Callable[[], Iterable[RateLimit]]) -> None:
        self._limits = limits
        self._polls: list[float] = []
        self._reads: list[float] = []
        self._buckets: defaultdict[RateLimit, LeakyBucket] = defaultdict(LeakyBucket)

    def _shares(self, share: float) -> Iterator[tuple[RateLimit, LeakyBucket, float, float]]:
        """Yield each limit, its bucket, the polls a second for good, and those at once."""
        for limit in self._limits():
            fair, is_brief = limit.limit * share, limit.per <= BRIEF
            rate = max(1.0, fair) * (1.0 if is_brief else 1.0 - _AT_ONCE) / limit.per
            burst = max(1.0, fair * (2 * _PAGES if is_brief else _AT_ONCE))
            yield limit, self._buckets[limit], rate, burst

    def spend(self, now: float, share: float, *, is_page: bool) -> None:
        """Count one poll, also one that was urgent."""
        for log in (self._polls,) if is_page else (self._polls, self._reads):
            del log[: bisect_right(log, now - BRIEF)]
            log.append(now)
        for _, bucket, rate, _ in self._shares(share):
            bucket.add(now, rate=rate)

    def wait(self, now: float, share: float, *, is_page: bool) -> float:
        """Return the seconds until one more poll may go; 0.0 means now."""
        waits = [0.0]
        for limit, bucket, rate, burst in self._shares(share):
            if limit.per <= BRIEF:
                fair = limit.limit * share
                waits.append(_until_below(self._polls, fair * _PAGES, limit.per, now))
                if not is_page:
                    waits.append(_until_below(self._reads, fair, limit.per, now))
            waits.append(bucket.wait(now, rate=rate, burst=burst))
        return max(waits)

    def has_spare(self, now: float, share: float) -> bool:
        """Whether a read that nothing is due for may go: half of each share is unused."""
        return not self.wait(now, share, is_page=False) and all(
            bucket.level(now) <= burst / 2 for _, bucket, _, burst in self._shares(share)
        )

    def rate(self, share: float) -> float:
        """Return the polls a second that use that share of the brief windows evenly."""
        brief = (limit for limit in self._limits() if limit.per <= BRIEF)
        return min((limit.limit * share / limit.per for limit in brief), default=1.0)

    def pace(self, cost: int, now: float, share: float) -> float:
        """Return how far apart sweeps must be that cost so many polls each; 0.0: as due."""
        paces = [0.0]
        for limit, bucket, rate, burst in self._shares(share):
            planned = max(0.0, burst - bucket.level(now)) + rate * HORIZON
            if cost * HORIZON / 10 > planned:  # a sweep each 10 s, as a default policy makes
                paces.append(cost * HORIZON / planned)
                if limit.per <= BRIEF:
                    paces.append(cost * limit.per / (_PAGES * limit.limit * share))
        return max(paces)


def _until_below(log: list[float], ceiling: float, per: float, now: float) -> float:
    """Return the seconds until fewer than that many of the log are younger than ``per``."""
    most = max(1, int(ceiling))
    recent = len(log) - bisect_right(log, now - per)
    return log[-most] + per - now if recent >= most else 0.0
