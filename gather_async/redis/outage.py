"""Conduct of a shared limiter while its server can't be asked."""

import logging
import math
import random
from typing import Literal

from attrs import define, field

from gather_async.errors import QuotaUnavailableError
from gather_async.observability import log_fields
from gather_async.protocol.rolling_windows import RollingWindows
from gather_async.redis.connection import failure_word

__all__ = [
    "LocalQuota",
    "OnOutage",
    "Outage",
]

_LOG = logging.getLogger("gather_async")

OnOutage = Literal["raise", "local"]

# Seconds between two attempts: soon enough that calls go on at once when the server is back, and
# spread, so that many processes don't come together.
_SOONEST, _SPREAD = 0.05, 0.2
_IDLE = 5.0  # seconds, where no call waits for it


@define(eq=False)
class Outage:
    """The failures of a limiter's steps, from the first one to the next success.

    Instants are those of the monotonic clock.
    """

    place: str
    on_outage: OnOutage
    wait: float
    """Seconds for which calls wait for the server before they get an error, or go on without."""
    rng: random.Random = field(factory=random.Random)
    since: float = math.inf
    """When the first failed step was asked for; ``inf`` while there is no outage."""
    retry_at: float = -math.inf
    is_declared: bool = False
    """Whether it lasted, and was logged."""
    local: "LocalQuota | None" = None
    """What this process may use alone, where it goes on without the server."""
    _error: Exception | None = None

    @property
    def limit(self) -> float:
        """When the wait is over; ``inf`` while there is no outage."""
        return self.since + self.wait

    def limit_after(self, now: float) -> float:
        """Return when the wait is over; ``inf`` if it is by now, or there is no outage."""
        return self.limit if self.limit > now else math.inf

    def failed(self, error: Exception, *, asked_at: float, now: float, is_waited_for: bool) -> None:
        """Record a failed step."""
        is_another = asked_at - self.retry_at > max(self.wait, _IDLE)
        if self.since == math.inf or (is_another and not self.is_declared):
            self.since = asked_at
        self._error = error
        pause = _SOONEST + _SPREAD * self.rng.random()
        self.retry_at = now + (pause if is_waited_for else _IDLE)

    def hurry(self, now: float) -> None:
        """Let the next attempt be made soon: a call waits for it."""
        self.retry_at = min(self.retry_at, now + _SOONEST)

    def is_over(self, now: float) -> bool:
        """Return whether the wait is over; log it the first time."""
        if now < self.limit:
            return False
        if not self.is_declared:
            self.is_declared = True
            consequence = "this process uses its share alone" if self.is_local else "calls fail"
            _LOG.warning(
                "%s, which keeps the quota, can't be asked (%s): %s until it can",
                self.place,
                failure_word(self._error),
                consequence,
                extra=log_fields(place=self.place, error=self._error),
            )
        return True

    @property
    def is_local(self) -> bool:
        """Whether calls go on without the server."""
        return self.on_outage == "local"

    def succeeded(self) -> bool:
        """Record a step that was carried out; return whether that ended a declared outage."""
        was_declared = self.is_declared
        if was_declared:
            extra = log_fields(place=self.place)
            _LOG.warning("%s, which keeps the quota, can be asked again", self.place, extra=extra)
        self.since, self.retry_at, self.is_declared = math.inf, -math.inf, False
        self._error = self.local = None
        return was_declared

    def error(self) -> QuotaUnavailableError:
        """Return the error of a call that waited for the server."""
        error = QuotaUnavailableError(
            f"{self.place}, which keeps the quota of this API key, can't be asked "
            f"({failure_word(self._error)}): nothing was sent. Start the server, or let the "
            'limiter go on without it: on_outage="local".'
        )
        error.__cause__ = self._error
        return error


class LocalQuota:
    """One process' share of the quota while the server that keeps it can't be asked.

    Each of this process' requests counts once for every process, as if all of them did the
    same; and what was free when the server was last asked counts as used by the others. So
    no window is exceeded if there are no more processes than there were. `fits` says whether
    a window has a start for each of them at all.

    Args:
        windows: What this process knows, on its monotonic clock; it is changed.
        processes: How many there are.
        ours: What this process has in flight.
        now: The present.
    """

    def __init__(self, windows: RollingWindows, *, processes: int, ours: int, now: float) -> None:
        self.weight: int = processes
        self._windows = windows
        others = windows.in_flight - ours
        windows.in_flight = others + ours * self.weight
        windows.answered(now, others)
        free = min(each.limit - windows.used(each, now) for each in windows.windows)
        if free > 0:
            windows.in_flight += free
            windows.answered(now, free)

    @staticmethod
    def fits(windows: RollingWindows, processes: int) -> bool:
        """Return whether each process may start one request in every window."""
        return all(each.bulk_limit >= processes for each in windows.windows)

    def start(self, now: float, *, bulk: bool) -> bool:
        """Count one more request in flight, if there is room; return whether there is."""
        if self.free_at(now, bulk=bulk) > now:
            return False
        self._windows.in_flight += self.weight
        return True

    def free_at(self, now: float, *, bulk: bool) -> float:
        """Return when one more request may start; ``inf`` if that depends on an answer."""
        self._windows.in_flight += self.weight - 1
        try:
            return self._windows.free_at(now, bulk=bulk)
        finally:
            self._windows.in_flight -= self.weight - 1

    def recount(self) -> None:
        """Count one more request in flight, whether there is room or not."""
        self._windows.in_flight += self.weight

    def ended(self, now: float, requests: int, *, sent: bool) -> None:
        """Take requests out of flight."""
        if sent:
            self._windows.answered(now, requests * self.weight)
        else:
            self._windows.returned(requests * self.weight)
