"""Share of the quota that polls may use, and the failures that they endure.

Single reads may use the share of a window of a
minute or less, pages of a list twice that, as far as earlier minutes left it unused: a
page shows many objects, and waits come in batches. Of the share of a longer window three
quarters may be used at once and the rest comes evenly, so that hours of waiting never
leave a new wait without a poll for long.
"""

import logging
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from gather_async.errors import (
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    GatherAPIError,
    GatherError,
    InvalidRequestError,
    WaitTimeoutError,
)
from gather_async.observability import log_fields
from gather_async.protocol.rolling_windows import RateLimit

__all__ = [
    "BRIEF",
    "HORIZON",
    "LeakyBucket",
    "PATIENCE",
    "PollBudget",
    "is_fatal",
    "is_permanent",
    "log_failed_poll",
]

_LOG = logging.getLogger("gather_async.waiting")

BRIEF = 60.0  # seconds; source: /getting-started/rate-limits (a minute and an hour)
# A page that takes longer, or is behind by more, gives way to single reads.
PATIENCE = 5.0  # seconds
HORIZON = 2 * BRIEF  # to plan ahead: what most generations take
# Tuned with benchmarks/waiting.py: more delays 1000 waits less, and leaves later ones less.
_PAGES = 2.0  # shares that pages may use of one brief window; twice as many are kept unused
_AT_ONCE = 0.75  # the part of a long window's share that may be used at once


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


def log_failed_poll(noun: str, error: GatherError) -> None:
    """Log that a poll failed; the waits go on if the error may pass."""
    name = type(error).__name__
    extra = log_fields(polled=noun, error=error)
    _LOG.info("A poll of %s failed: %s", noun, name, extra=extra)


def is_fatal(error: GatherError) -> bool:
    """Return whether no poll can succeed any more: 401, or the client is closed."""
    return isinstance(error, AuthenticationError | ClientClosedError | ConfigurationError)


def is_permanent(error: GatherError) -> bool:
    """Return whether asking the same again makes no sense: a 4xx, a bad id, a late wait.

    A body that makes no sense may be a proxy's, and passes.
    """
    if isinstance(error, GatherAPIError):
        return 400 <= error.status < 500 and error.status not in {408, 425, 429}
    return isinstance(error, InvalidRequestError | WaitTimeoutError)
