"""The quota as it stands: what `GatherClient.rate_limit_status` returns."""

from datetime import datetime

import attrs

from gather_async.models.fields import Model

__all__ = ["QueueStatus", "RateLimitStatus", "WindowStatus"]


@attrs.frozen(kw_only=True)
class WindowStatus(Model):
    """One rolling window.

    Attributes:
        limit: Requests that fit into it.
        period: Its length in seconds.
        used: Requests that may count against it now: those in flight, those answered
            less than ``period`` ago, and what the server counted of other uses of the key.
        remaining: How many could start now as far as this window goes, from 0.
        external: The part of ``used`` that isn't ours: the same key, used elsewhere.
        next_free: Seconds until it has room; 0.0 if it has, None if that depends on
            a response not here yet.
        learned: True if this limit was not configured, but learned from the server's headers.
    """

    limit: int
    period: float
    used: int
    remaining: int
    external: int = 0
    next_free: float | None = 0.0
    learned: bool = False


@attrs.frozen(kw_only=True)
class QueueStatus(Model):
    """Numbers of calls that wait for a slot, by priority."""

    interactive: int = 0
    bulk: int = 0


@attrs.frozen(kw_only=True)
class RateLimitStatus(Model):
    """The key's quota at one instant, as far as known. Immutable; ask again for news.

    Attributes:
        windows: Every window in force, shortest period first; learned ones last.
        in_flight: Requests sent, or about to be, and not answered yet.
        queued: Calls that wait.
        next_slot: Seconds until an interactive call could start if no other waited
            already; 0.0 means now, None that it depends on a response not here yet.
        held_until: The server refused a request (429) and nothing starts before then,
            aware UTC; None if there is no hold.
        as_of: When the server that keeps a shared quota was last asked, aware UTC: other
            processes' later requests aren't known yet. None in a quota of this process alone,
            of which all is known, and before the first time.
    """

    windows: tuple[WindowStatus, ...]
    in_flight: int = 0
    queued: QueueStatus = attrs.field(factory=QueueStatus)
    next_slot: float | None = 0.0
    held_until: datetime | None = None
    as_of: datetime | None = None

    @property
    def remaining(self) -> int:
        """How many requests could start now: the tightest window's remainder."""
        return min((window.remaining for window in self.windows), default=0)
