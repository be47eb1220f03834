"""What a job needs of the client; `GatherClient` fits it."""

from datetime import timedelta
from typing import Protocol, Self

from gather_async.clock import Clock
from gather_async.phone import PhonePolicy
from gather_async.quota.limiter import Limiter, Priority
from gather_async.resources import CandidateInterviews, Candidates

__all__ = ["Gather"]


class Gather(Protocol):
    """A client, or a view of one."""

    @property
    def candidates(self) -> Candidates:
        """Where people are created and found."""
        ...

    @property
    def candidate_interviews(self) -> CandidateInterviews:
        """Where invites are sent and found."""
        ...

    @property
    def base_url(self) -> str:
        """Which server it is."""
        ...

    @property
    def clock(self) -> Clock:
        """Where time comes from."""
        ...

    @property
    def limiter(self) -> Limiter:
        """Who decides when a request may go."""
        ...

    @property
    def phone_policy(self) -> PhonePolicy:
        """How much must be true of a phone number."""
        ...

    @property
    def default_region(self) -> str | None:
        """The region of national phone numbers; None refuses them."""
        ...

    def estimate(self, requests: int) -> timedelta:
        """Return how long that many more requests will take."""
        ...

    def with_options(self, *, priority: Priority, max_wait: None, limiter: Limiter) -> Self:
        """Return a view with other options."""
        ...
