"""What a job will cost."""

from datetime import datetime, timedelta

from attrs import frozen

from gather_async.bulk.lookup_choice import Lookups

__all__ = ["InvitePlan"]


@frozen(kw_only=True)
class InvitePlan:
    """What is still to be sent, as far as known when asked."""

    rows: int
    """Rows read so far; in a dry run's report, all of them."""
    total: int | None
    """Rows in the source; None while unknown."""
    writes: int
    """Requests that create candidates and send invites, if nothing goes wrong."""
    lookups: Lookups
    """How people who are there already are found."""
    lookup_requests: int
    """Requests for that; an upper bound where it is undecided."""
    requests: int
    """All requests to come."""
    duration: timedelta
    """How long they will take, by the quota as it stands."""
    finish_at: datetime
    """When that will be; aware, UTC."""
