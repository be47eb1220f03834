"""Who may send now, under the rolling windows of one API key."""

from gather_async.quota.in_process import InProcessLimiter, Pace
from gather_async.quota.limiter import Limiter, Priority, Slot

__all__ = ["InProcessLimiter", "Limiter", "Pace", "Priority", "Slot"]
