"""Many processes, one quota: nearly all of it is used, fairly, and no request is one too many.

Each request is stamped at a random moment between its slot and its answer, as a server would, on
the machine's monotonic clock; afterwards the stamps of all processes are held against the windows.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from attrs import frozen

from gather_async.protocol.rolling_windows import RateLimit
from gather_async.redis import RedisLimiter
from tests.servers import RedisServer

pytestmark = pytest.mark.timed  # a process that waits for a core gets less of the quota

_LATENCY = (0.0003, 0.006)  # seconds
_KILLED = -9


@frozen
class _Load:
    """What the processes do."""

    processes: int
    tasks: int
    limits: tuple[tuple[int, float], ...]
    seconds: float

    @property
    def ideal(self) -> int:
        """The most requests that any schedule can have stamped in that time, without latency."""
        (limit, period), (most, longest) = self.limits
        sent: list[tuple[float, int]] = []
        at = 0.0
        while at < self.seconds - 1e-9:
            recent = sum(count for when, count in sent if when > at - longest + 1e-9)
            sent.append((at, min(limit, most - recent)))
            at += period
        return sum(count for _, count in sent)


_FULL = _Load(processes=8, tasks=16, limits=((100, 1.0), (500, 6.0)), seconds=18.0)
_SMALL = _Load(processes=4, tasks=8, limits=((20, 0.2), (80, 1.0)), seconds=2.0)


@frozen
class _Outcome:
    """What became of it."""

    stamps: dict[str, list[float]]
    steps: int
    errors: list[str]

    def check(self, load: _Load, *, used: float) -> None:
        """Fail unless so much was used, and no request was one too many."""
        everything = sorted(at for each in self.stamps.values() for at in each)
        for limit, period in load.limits:
            pairs = zip(everything, everything[limit:], strict=False)
            assert [later - first for first, later in pairs if later - first < period] == []
        assert self.errors == []
        sent = f"{len(everything)} of {load.ideal}, {self.steps / len(everything):.2f} steps each"
        print(sent)  # noqa: T201 - the figure, for who runs it with -s
        assert len(everything) >= used * load.ideal, sent


_Event = tuple[float, Callable[[Sequence[int], RedisServer], None]]


def _run(server: RedisServer, folder: Path, load: _Load, events: Sequence[_Event] = ()) -> _Outcome:
    """Let processes send as much as they may, and return what they did."""
    asked = {
        "url": server.url,
        "folder": str(folder),
        "limits": load.limits,
        "seconds": load.seconds,
        "processes": load.processes,
        "tasks": load.tasks,
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, __file__, json.dumps(asked)], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        began, children = json.loads(parent.stdout.readline())
        for after, event in sorted(events, key=lambda each: each[0]):
            time.sleep(max(0.0, began + after - time.monotonic()))
            event(children, server)
        assert parent.wait(load.seconds + 60.0) == 0
    stamps, steps, errors = {}, 0, []
    for path in folder.glob("stamps-*"):
        lines = path.read_text().splitlines()
        sent = [float(line) for line in lines if line[0].isdigit()]
        stamps[path.name] = [at for at in sent if at < began + load.seconds]
        steps += sum(int(line[6:]) for line in lines if line.startswith("steps "))
        errors += [line for line in lines if line.startswith("error ")]
    return _Outcome(stamps, steps, errors)


def test_processes_use_the_quota_together(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """Four processes use nearly all of two windows in equal shares."""
    outcome = _run(redis_server, tmp_path, _SMALL)
    outcome.check(_SMALL, used=0.9)
    counts = [len(each) for each in outcome.stamps.values()]
    share = sum(counts) / len(counts)
    assert len(counts) == _SMALL.processes
    assert all(share / 1.5 <= count <= share * 1.5 for count in counts), counts


@pytest.mark.slow
def test_eight_processes_use_the_quota_together(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """Eight processes of sixteen tasks use at least 97 % of two windows in equal shares."""
    outcome = _run(redis_server, tmp_path, _FULL)
    outcome.check(_FULL, used=0.97)
    counts = [len(each) for each in outcome.stamps.values()]
    share = sum(counts) / len(counts)
    assert all(share / 1.5 <= count <= share * 1.5 for count in counts), counts
    assert outcome.steps <= 1.5 * sum(counts)


@pytest.mark.slow
def test_eight_processes_through_faults(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """Two kills, two stops of 3 s, two empty restarts and FLUSHALL: 97 %, and no refusal."""
    faults: list[_Event] = [
        (2.0, _kill(0)),
        (3.0, _signal(1, signal.SIGSTOP)),
        (5.0, _restart),
        (6.0, _signal(1, signal.SIGCONT)),
        (8.0, _kill(2)),
        (9.0, _signal(3, signal.SIGSTOP)),
        (11.0, _restart),
        (12.0, _signal(3, signal.SIGCONT)),
        (14.0, _flush),
    ]
    outcome = _run(redis_server, tmp_path, _FULL, faults)
    outcome.check(_FULL, used=0.97)


def _kill(which: int) -> Callable[[Sequence[int], RedisServer], None]:
    return _signal(which, signal.SIGKILL)


def _signal(which: int, sent: signal.Signals) -> Callable[[Sequence[int], RedisServer], None]:
    return lambda children, _: os.kill(children[which], sent)


def _restart(_: Sequence[int], server: RedisServer) -> None:
    server.stop()
    server.start()


def _flush(_: Sequence[int], server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


class _Child:
    """One process, and its tasks."""

    def __init__(self, asked: dict[str, Any], number: int) -> None:
        self.asked = asked
        self.rng = random.Random(number)
        self.log = os.open(f"{asked['folder']}/stamps-{number}", os.O_CREAT | os.O_WRONLY)

    def note(self, what: object) -> None:
        """Write a line at once: the process may be killed."""
        os.write(self.log, f"{what}\n".encode())

    async def run(self, began: float) -> None:
        """Work from then on."""
        limits = [RateLimit(limit, per=period) for limit, period in self.asked["limits"]]
        async with RedisLimiter(
            self.asked["url"], key="k", rate_limits=limits, reserve=0, outage_wait=5.0
        ) as limiter:
            await asyncio.sleep(began - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.asked["seconds"]), asyncio.TaskGroup() as group:
                    for _ in range(self.asked["tasks"]):
                        group.create_task(self.work(limiter))
            self.note(f"steps {limiter.steps}")

    async def work(self, limiter: RedisLimiter) -> None:
        """Send one request after the other."""
        while True:
            try:
                slot = await limiter.acquire(priority="interactive", max_wait=None)
            except Exception as error:
                self.note(f"error {error!r}")
                return
            latency, share = self.rng.uniform(*_LATENCY), self.rng.random()
            try:
                await asyncio.sleep(latency * share)
                self.note(time.monotonic())
                await asyncio.sleep(latency * (1 - share))
            finally:
                slot.answered(None)


def _main(asked: dict[str, Any]) -> int:
    """Fork the processes, print when they begin and who they are, and wait for them."""
    began, children = time.monotonic() + 0.2, []
    for number in range(asked["processes"]):
        child = os.fork()
        if child == 0:
            asyncio.run(_Child(asked, number).run(began))
            os._exit(0)
        children.append(child)
    os.write(1, f"{json.dumps([began, children])}\n".encode())
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return int(any(code not in {0, _KILLED} for code in ended))


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
