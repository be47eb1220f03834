"""State that processes and machines share through Redis. Extra: ``gather-async[redis]``."""

from importlib.util import find_spec

from gather_async.errors import ConfigurationError

if find_spec("redis") is None:
    raise ConfigurationError("gather_async.redis needs redis-py: pip install 'gather-async[redis]'")

from gather_async.redis.inbox import RedisInbox
from gather_async.redis.lease import RedisLease
from gather_async.redis.limiter import RedisLimiter
from gather_async.redis.signals import RedisSignals

__all__ = ["RedisInbox", "RedisLease", "RedisLimiter", "RedisSignals"]
