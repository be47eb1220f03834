"""How long bulk work waits behind interactive calls, by the script and by one process's rules."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import pytest
import redis

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

_LIMIT = 4
_CROWD = 100  # interactive calls that never end


class _Quota(ABC):
    """Four requests a second, all answered, and their window over, before the next step."""

    def __init__(self) -> None:
        self.windows = RollingWindows([RateLimit(_LIMIT, per=1)], reserve=0)
        self.now = 1000.0

    def step(self, interactive: int, bulk: int, *, after: float = 2.0) -> int:
        """Start all that may, so many seconds later; return how many of bulk."""
        self.now += after
        return self._start(interactive, bulk)

    @abstractmethod
    def _start(self, interactive: int, bulk: int) -> int:
        """Start all that may of those that wait; return how many of bulk."""


class _Alone(_Quota):
    """The quota in one process."""

    def __init__(self) -> None:
        super().__init__()
        self._scheduler = PriorityScheduler(self.windows, even=False)

    def _start(self, interactive: int, bulk: int) -> int:
        self.windows.answered(self.now - 1.5, self.windows.in_flight)
        waits, started = {"interactive": interactive, "bulk": bulk}, 0
        while turn := self._scheduler.next(self.now, waits["interactive"] > 0, waits["bulk"] > 0):
            waits[turn] -= 1
            started += turn == "bulk"
            self.windows.sent()
            self._scheduler.started(self.now, bulk=turn == "bulk", bulk_waits=waits["bulk"] > 0)
        return started


class _Shared(_Quota):
    """The quota on a server, with one process."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.client = redis.Redis.from_url(url)
        self._state = SharedState(self.windows, offset=0.0)
        self._settings = StepSettings(lease=1e6, patience=0.01, interval=0.0, settle=0.0)
        self._number = self._flying = 0

    def _start(self, interactive: int, bulk: int) -> int:
        self._number += 1
        arguments = step_arguments(
            self._state,
            self._settings,
            process="p",
            number=self._number,
            now=self.now,
            flying=0,
            waiting=WaitingCalls(interactive, bulk),
            ended=[EndedRequest(self._number, self.now - 1.5)] * self._flying,
        )
        keys = [f"{{q}}:{part}" for part in ("log", "state", "procs")]
        reply = self.client.eval(STEP.text, 3, *keys, round(self.now * 1e6), *arguments[1:])
        assert self._state.record(reply, asked_at=self.now, flying=0)
        self._flying = sum(count for _, count in self._state.granted)
        return sum(count for is_bulk, count in self._state.granted if is_bulk)


@pytest.fixture(params=["alone", "shared"])
def quota(request: pytest.FixtureRequest) -> Iterator[_Quota]:
    """A quota that nothing has used yet."""
    if request.param == "alone":
        yield _Alone()
    else:
        shared = _Shared(request.getfixturevalue("redis_url"))
        with shared.client:
            yield shared


def _patient(quota: _Quota, bulk: int) -> int:
    """Return how many steps bulk work waits, of which each is two seconds."""
    steps = 0
    while not quota.step(_CROWD, bulk):
        steps += 1
        assert steps < 20
    return steps


def test_bulk_that_started_freely_is_patient_anew(quota: _Quota) -> None:
    """Only the time that it has waited behind interactive calls since then earns it slots."""
    assert quota.step(_LIMIT, 50) == 0
    assert quota.step(1, 50, after=9.0) == 3  # no interactive call waits behind the first
    assert _patient(quota, 50) >= 5


def test_bulk_that_was_away_is_patient_anew(quota: _Quota) -> None:
    """What comes within ten seconds after the last goes on with its turns; later, it waits."""
    assert _patient(quota, 1) >= 5
    assert [quota.step(_CROWD, 0) for _ in range(3)] == [0] * 3
    assert _patient(quota, 1) < 2
    assert [quota.step(_CROWD, 0) for _ in range(6)] == [0] * 6
    assert _patient(quota, 1) >= 5
