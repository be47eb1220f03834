"""The laws of the limiter in one process hold for one whose quota is on a Redis server."""

from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from gather_async.protocol.rolling_windows import RateLimit
from gather_async.redis.connection import Argument, RedisConnection, Script
from gather_async.redis.limiter import RedisLimiter
from gather_async.testing.clock import VirtualClock
from tests.unit import test_limiter

_APART = {
    # The server restores what is lost by itself, and hands out slots after a hold one by one.
    "test_a_restored_history_counts",
    "test_jitter_of_many_refusals_does_not_add_up",
    # It names the class.
    "test_status_and_repr_show_the_windows_the_queue_and_the_next_slot",
    # A socket to the server dies with its loop, which leaves a warning.
    "test_a_waiter_of_a_paused_loop_is_reported",
    "test_waiters_of_a_dead_loop_are_forgotten",
}
_LAWS = {name: law for name, law in vars(test_limiter).items() if name.startswith("test_")}
globals().update({name: law for name, law in _LAWS.items() if name not in _APART})
clock = test_limiter.clock


class _VirtualServer(RedisConnection):
    """A connection to a server that lives in virtual time."""

    def __init__(self, url: str, time: VirtualClock) -> None:
        super().__init__(url, timeout=5.0)
        self._time = time

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()
    ) -> Any:
        """Run the step at the virtual instant, in which time stands still."""
        with self._time.busy():
            at = int(self._time.monotonic() * 1e6)
            return await super().run(script, keys, [at, *arguments[1:]])


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    """Let the laws make limiters whose quota is on the server."""

    def make(time: VirtualClock, *limits: tuple[int, float], **options: Any) -> RedisLimiter:
        rate_limits = [RateLimit(limit, per=per) for limit, per in limits]
        options = {"reserve": 0, **options}
        limiter = RedisLimiter(redis_url, key="k", rate_limits=rate_limits, clock=time, **options)
        limiter._connection = _VirtualServer(redis_url, time)
        limiter._settings = attrs.evolve(limiter._settings, settle=0.0)
        return limiter

    monkeypatch.setattr(test_limiter, "_limiter", make)
    monkeypatch.setattr(test_limiter, "_REPORTED", 1.0)
    monkeypatch.setattr(test_limiter, "_INSTANTS", pytest.approx)  # it counts microseconds


def test_every_law_that_stays_apart_is_there() -> None:
    """No name of a law that was renamed stays in the list of exceptions."""
    assert _LAWS.keys() >= _APART
