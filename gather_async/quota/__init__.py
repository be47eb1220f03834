"""Permission to send, under the rolling windows of one API key."""

from gather_async.quota.in_process import InProcessLimiter
from gather_async.quota.limiter import Limiter, Priority, Slot
from gather_async.quota.queued_limiter import Pace

__all__ = ["InProcessLimiter", "Limiter", "Pace", "Priority", "Slot"]
