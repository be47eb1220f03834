"""How far a job is, for whoever watches."""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from attrs import define, field, frozen

from gather_async.bulk.outcome import InviteStatus
from gather_async.clock import Clock

__all__ = ["InviteProgress", "ProgressTeller", "instant"]

_LOG = logging.getLogger("gather_async.bulk")
_INTERVAL = 0.1  # seconds: ten calls a second are as many as anybody can see


@frozen(kw_only=True)
class InviteProgress:
    """How far a bulk invite is."""

    done: int
    """Rows that ended, however they did, in this run or an earlier one."""
    earlier: int
    """Those of them that earlier runs had ended; the rest is this run's own work."""
    total: int | None
    """Rows in the source; None while unknown, as it is for a generator until its end."""
    counts: Mapping[InviteStatus, int]
    """Rows that ended, by how they did."""
    requests_sent: int
    """Requests this run has sent."""
    requests_left: int
    """Requests to come if nothing goes wrong; of the rows read so far if ``total`` is None."""
    remaining: timedelta
    """How long those will take from now, by the quota as it stands."""
    finish_at: datetime
    """When that will be; aware, UTC."""
    elapsed: float
    """Seconds since the job began."""


@define(eq=False, kw_only=True)
class ProgressTeller:
    """Calls back at most ten times a second, and once at the end."""

    callback: Callable[[InviteProgress], object] | None
    snapshot: Callable[[], InviteProgress]
    clock: Clock
    _told_at: float | None = field(default=None, init=False)

    def tell(self, *, always: bool = False) -> None:
        """Call back, unless that was done a moment ago.

        A callback that raises is logged and not called again: a broken progress
        bar must not stop invites.
        """
        if self.callback is None:
            return
        now = self.clock.monotonic()
        if not always and self._told_at is not None and now - self._told_at < _INTERVAL:
            return
        self._told_at = now
        try:
            self.callback(self.snapshot())
        except Exception:
            self.callback = None
            _LOG.exception("on_progress raised, and will not be called again")


def instant(clock: Clock, later: timedelta) -> datetime:
    """Return the moment that is so much later than now, as far as a date can say."""
    try:
        return datetime.fromtimestamp(clock.wall(), UTC) + later
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
