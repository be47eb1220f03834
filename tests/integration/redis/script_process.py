"""A process of a shared limiter, as the limiter's script sees it."""

import itertools
from typing import Any

import redis
from redis.exceptions import NoScriptError

from gather_async.protocol.rolling_windows import RateLimit, RollingWindows
from gather_async.quota.priority_queue import PriorityScheduler
from gather_async.redis.step import (
    STEP,
    EndedRequest,
    SharedState,
    StepSettings,
    WaitingCalls,
    step_arguments,
)

__all__ = ["NAMES", "TICK", "ScriptProcess"]

TICK = 1 / 64  # seconds: whole microseconds, and exact in floats
NAMES = itertools.count()


class ScriptProcess:
    """One process as the script sees it. Its monotonic clock is the server's."""

    def __init__(self, client: redis.Redis, quota: str, limits: Any, **options: Any) -> None:
        self._client = client
        self.keys = [f"{{{quota}}}:{part}" for part in ("log", "state", "procs")]
        reserve, even = options.get("reserve", 0), options.get("even", False)
        self.windows = RollingWindows([RateLimit(*each) for each in limits], reserve=reserve)
        interval = PriorityScheduler(self.windows, even=even).interval
        self._settings = StepSettings(
            lease=options.get("lease", 1e6),
            patience=options.get("patience", TICK),
            interval=interval,
            settle=0.0,
        )
        self.state = SharedState(self.windows, offset=0.0)
        self.name = f"p{next(NAMES):06}"
        self.number = 0
        self.flying = 0

    def step(self, now: float, *, i: int = 0, b: int = 0, answers: Any = ()) -> tuple[int, int]:
        """Take a step; return the slots for interactive and bulk calls."""
        reply = self.ask(now, i=i, b=b, answers=answers)
        assert self.state.record(reply, asked_at=now, flying=self.flying)
        got = [
            sum(count for is_bulk, count in self.state.granted if is_bulk is which)
            for which in (False, True)
        ]
        self.flying += sum(got)
        return got[0], got[1]

    def ask(self, now: float, *, i: int = 0, b: int = 0, answers: Any = (), ended: Any = ()) -> Any:
        """Return what the script replies."""
        self.number += 1
        arguments = step_arguments(
            self.state,
            self._settings,
            process=self.name,
            number=self.number,
            now=now,
            flying=self.flying,
            waiting=WaitingCalls(i, b),
            ended=[*ended, *(EndedRequest(self.number, at) for at in answers)],
        )
        return self.run([round(now * 1e6), *arguments[1:]])

    def run(self, arguments: Any) -> Any:
        """Run the script."""
        try:
            return self._client.evalsha(STEP.digest, 3, *self.keys, *arguments)
        except NoScriptError:
            return self._client.eval(STEP.text, 3, *self.keys, *arguments)

    def retry(self, now: float, *, i: int = 0, answers: Any = ()) -> tuple[int, int]:
        """Take a step; if the server lost its state, one more, which restores it."""
        reply = self.ask(now, i=i, answers=answers)
        if not self.state.record(reply, asked_at=now, flying=self.flying):
            assert self.state.is_lost
            return self.step(now, i=i, answers=answers)
        got = sum(count for _, count in self.state.granted)
        self.flying += got
        return got, 0
