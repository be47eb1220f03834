"""What polling may spend: a share of each rate limit. Told the time, it waits for nothing.

A window of a minute or less may be spent freely up to the share by single
reads, and up to twice that by pages of a list, as far as earlier minutes left
it unused: a page tells of many, and waits come in batches. Of the share of a
longer window three quarters may be spent at once and the rest comes evenly, so
that hours of waiting never leave a new wait without any look for long.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable

from gather_async.protocol.rolling_windows import RateLimit

__all__ = ["LeakyBucket", "PollBudget"]


class LeakyBucket:
    """Lets a few looks through at once, then one each interval.

    What comes in between shares the next look, so that waits that begin one after
    the other, or events by the hundred, cost little more than if they came together.

    Args:
        burst: How many may go at once after a rest.
    """

    __slots__ = ("_at", "_burst", "_level")

    def __init__(self, burst: int) -> None:
        self._burst = float(burst)
        self._level = 0.0
        self._at = 0.0

    def wait(self, now: float, interval: float) -> float:
        """Let one look through and return 0.0, or return the seconds until then."""
        level = max(0.0, self._level - (now - self._at) / interval) if self._level else 0.0
        if level + 1.0 > self._burst + 1e-6:
            return (level + 1.0 - self._burst) * interval
        self._level, self._at = level + 1.0, now
        return 0.0


_BRIEF = 60.0  # seconds; source: /getting-started/rate-limits (a minute and an hour)
_BURST = 2.0  # pages in one brief window, in shares
_SAVED = 4.0  # brief windows whose unused share is kept
_HORIZON = 120.0  # seconds to plan ahead: what most generations take
_LOOKS = 12.0  # that a default policy makes in that time, and some
_AT_ONCE = 0.75  # the part of a long window's share that may be spent at once
_ROUNDING = 1e-6


class PollBudget:
    """Counts polls of all kinds against the share.

    Args:
        limits: Returns the rate limits in force.
    """

    __slots__ = ("_levels", "_limits", "_log", "_singles")

    def __init__(self, limits: Callable[[], Iterable[RateLimit]]) -> None:
        self._limits = limits
        self._log: list[float] = []
        self._singles: list[float] = []
        self._levels: dict[RateLimit, tuple[float, float, float]] = {}

    def spend(self, now: float, share: float, *, is_page: bool) -> None:
        """Count one poll, whoever allowed it."""
        for log in (self._log,) if is_page else (self._log, self._singles):
            del log[: bisect_right(log, now - _BRIEF)]
            log.append(now)
        levels = {limit: self._level(limit, now, share) for limit in self._limits()}
        self._levels = {
            limit: (level + 1.0, now, _rate(limit, share)) for limit, level in levels.items()
        }

    def wait(self, now: float, share: float, *, is_page: bool) -> float:
        """Return the seconds until one more poll may go; 0.0 means now."""
        waits = [0.0]
        for limit in self._limits():
            if limit.per <= _BRIEF:
                fair = limit.limit * share
                waits.append(_until_below(self._log, fair * _BURST, limit.per, now))
                if not is_page:
                    waits.append(_until_below(self._singles, fair, limit.per, now))
            over = self._level(limit, now, share) + 1.0 - _capacity(limit, share)
            if over > _ROUNDING:
                waits.append(over / _rate(limit, share))
        return max(waits)

    def interval(self, share: float) -> float:
        """Return the seconds between polls that use that share of the brief windows evenly."""
        brief = (limit for limit in self._limits() if limit.per <= _BRIEF)
        return max((limit.per / (limit.limit * share) for limit in brief), default=1.0)

    def pace(self, cost: int, now: float, share: float) -> float:
        """Return how far apart looks must be that cost so many polls each; 0.0: as you like."""
        paces = [0.0]
        for limit in self._limits():
            rate = _rate(limit, share)
            left = max(0.0, _capacity(limit, share) - self._level(limit, now, share))
            budget = left + rate * _HORIZON
            if cost * _LOOKS > budget:
                paces.append(cost * _HORIZON / budget)
                if limit.per <= _BRIEF:
                    paces.append(cost * limit.per / (_BURST * limit.limit * share))
        return max(paces)

    def _level(self, limit: RateLimit, now: float, share: float) -> float:
        """Return how much of the capacity is used; it drains at the window's rate."""
        level, at, rate = self._levels.get(limit, (0.0, now, _rate(limit, share)))
        return max(0.0, level - rate * (now - at))


def _until_below(log: list[float], ceiling: float, per: float, now: float) -> float:
    """Return the seconds until fewer than that many of the log are younger than ``per``."""
    most = max(1, int(ceiling))
    recent = len(log) - bisect_right(log, now - per)
    return log[-most] + per - now if recent >= most else 0.0


def _capacity(limit: RateLimit, share: float) -> float:
    """Return what may be spent at once after a long rest."""
    part = _SAVED if limit.per <= _BRIEF else _AT_ONCE
    return max(1.0, limit.limit * share * part)


def _rate(limit: RateLimit, share: float) -> float:
    """Return what may be spent for good, per second."""
    part = 1.0 if limit.per <= _BRIEF else 1.0 - _AT_ONCE
    return max(1.0, limit.limit * share) * part / limit.per
