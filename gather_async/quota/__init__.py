"""Permission to send, under the rolling windows of one API key."""

from gather_async.quota.limiter import InProcessLimiter, Limiter, Slot
from gather_async.quota.priority_queue import Priority
from gather_async.quota.queued_limiter import Pace

__all__ = ["InProcessLimiter", "Limiter", "Pace", "Priority", "Slot"]
