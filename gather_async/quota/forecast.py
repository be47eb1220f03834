"""Forecast of when so many more requests will have started: simulated, without waiting.

Pure: the present is a parameter. What can't be known is assumed: requests in
flight are answered after the usual latency, as are those still to come, and
no other call joins.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import attrs

from gather_async.errors import QuotaWaitError
from gather_async.protocol.rolling_windows import RollingWindows

__all__ = ["Forecast", "WindowRule", "quota_wait_error"]


_LONGEST = 1e9  # seconds, three decades: what a date can still be added to
_SAME = 1e-6  # seconds
_MOST_SIMULATED = 50_000  # starts; a few tens of milliseconds


@attrs.frozen
class WindowRule:
    """At most ``limit`` requests in ``period`` seconds, fewer until ``external_until``."""

    limit: int
    period: float
    external: int = 0
    external_until: float = 0.0


class Forecast:
    """A schedule that is extended by `start`, call by call.

    Args:
        windows: The state to go on from; it isn't changed.
        now: The present.
        not_before: Nothing starts earlier, such as the end of a hold.
        latency: Seconds from sending to answer, assumed for every request.
    """

    __slots__ = ("_answers", "_at", "_bulk", "_interactive", "_latency")

    def __init__(
        self, windows: RollingWindows, *, now: float, not_before: float, latency: float
    ) -> None:
        self._at = max(now, not_before)
        self._latency = latency
        self._answers = windows.answers(now) + [now + latency] * windows.in_flight
        active = [
            (each, each.external if now < each.external_until else 0) for each in windows.windows
        ]
        self._interactive = [
            WindowRule(each.limit, each.period, external, each.external_until)
            for each, external in active
        ]
        self._bulk = [
            WindowRule(each.bulk_limit, each.period, external, each.external_until)
            for each, external in active
        ]

    def start(
        self,
        count: int,
        *,
        bulk: bool = False,
        interval: float = 0.0,
        not_before: float = -math.inf,
    ) -> float:
        """Start that many more, and return when the last of them starts.

        Args:
            count: How many; 0 returns when the last one so far started.
            bulk: Leave the reserve free.
            interval: Seconds between two of these starts at the least.
            not_before: When the first of them may start.
        """
        if count:
            self._at = max(self._at, not_before)
        rules = self._bulk if bulk else self._interactive
        memory = max(rule.limit for rule in rules)
        left, simulated = count, 0
        while left > 0:
            batch = min(left, memory)
            self._simulate(batch, rules, interval if simulated else 0.0, interval)
            left -= batch
            simulated += batch
            if left > memory:
                left = self._leap(left, rules, interval, memory, simulated)
        return self._at

    def _simulate(
        self, count: int, rules: Sequence[WindowRule], pause: float, interval: float
    ) -> None:
        """Start one after the other, each as soon as every rule allows."""
        answers, at, latency = self._answers, self._at, self._latency
        for _ in range(count):
            at += pause
            pause = interval
            for rule in rules:
                if rule.external:
                    at = _free_with_external(answers, rule, at)
                elif len(answers) >= rule.limit:
                    at = max(at, answers[-rule.limit] + rule.period)
            answers.append(at + latency)
        self._at = at

    def _leap(
        self, left: int, rules: Sequence[WindowRule], interval: float, memory: int, simulated: int
    ) -> int:
        """Skip whole periods once the schedule repeats itself; return how many are left."""
        tightest = max(rules, key=lambda rule: (rule.period + self._latency) / rule.limit)
        block, period = tightest.limit, tightest.period + self._latency
        if interval * block > period:
            block, period = 1, interval
        answers = self._answers
        are_gone = all(self._at > rule.external_until for rule in rules if rule.external)
        if len(answers) >= memory + block and are_gone:
            pairs = zip(answers[-memory:], answers[-memory - block :], strict=False)
            repeats = all(abs(late - early - period) < _SAME for late, early in pairs)
            if repeats or simulated >= _MOST_SIMULATED:
                skipped = left // block
                self._answers = [each + skipped * period for each in answers[-memory:]]
                self._at += skipped * period
                return left - skipped * block
        return left


def _free_with_external(answers: Sequence[float], rule: WindowRule, at: float) -> float:
    """Return when the rule has room, from ``at`` on, its external use gone or not."""
    if at < rule.external_until and rule.limit > rule.external:
        room = rule.limit - rule.external
        free = answers[-room] + rule.period if len(answers) >= room else at
        if free < rule.external_until:
            return max(at, free)
    at = max(at, rule.external_until)
    return max(at, answers[-rule.limit] + rule.period) if len(answers) >= rule.limit else at


def quota_wait_error(wait: float, max_wait: float, wall: float) -> QuotaWaitError:
    """Return the error for a call that would wait ``wait`` seconds from ``wall`` on, or did."""
    at = datetime.fromtimestamp(wall, UTC) + timedelta(seconds=min(wait, _LONGEST))
    problem = f"The rate limit has room in {wait:.1f} s, more than max_wait={max_wait:g}"
    if wait <= max_wait:  # it waited already
        problem = f"max_wait={max_wait:g} is over, and the rate limit has room in {wait:.1f} s"
    return QuotaWaitError(
        f"{problem}: try again after {at:%Y-%m-%d %H:%M:%S} UTC, or raise max_wait.",
        available_at=at,
        wait=wait,
    )
