"""What bulk invites cost: requests, time beside the ideal, memory, and CPU.

    python -m benchmarks.bulk

Memory is the growth of the peak resident set of a process of its own, from a
client that has sent nothing to the report of a dry run: every row is read,
checked and entered in the journal, none is sent. CPU is that of a client
process whose server runs in another.
"""

import asyncio
import math
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure, table
from gather_async.bulk import BulkInvite, InviteReport, read_candidates
from gather_async.client import GatherClient
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.testing import FakeGather, VirtualClock

__all__ = ["figures"]

_REAL = (RateLimit(100, per=60), RateLimit(1000, per=3600))
_NONE = (RateLimit(10_000_000, per=60),)
_RESERVE = 5
_FAULTS = {"errors_500": 0.03, "html_503": 0.02, "cut_before": 0.03, "cut_after": 0.06}


def figures() -> Iterator[Figure]:
    """Yield the figures; about three minutes."""
    yield _requests("clean wire", {}, at_most=2.1)
    yield _requests("14 % of requests failing", _FAULTS, at_most=3.0)
    yield _lookups(10_000)
    yield _schedule(10_000)
    yield from _memory(10_000, 1_000_000)
    yield from _sent(3_000)
    yield from _jobs_at_once(300)


def _rows(count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        yield {
            "first_name": "Person",
            "last_name": str(number),
            "email": f"row-{number}@example.com",
            "phone": f"+1202{number:07d}",
        }


async def _interview(gather: GatherClient, fake: FakeGather) -> str:
    """Make an interview, and return its id."""
    question = await gather.questions.create(
        title="Why?",
        question_script="Why?",
        user_id=fake.user_id,
        audio_url="https://example.com/a.mp3",
    )
    interview = await gather.interviews.create(
        title="Job", display_name="Job", question_ids=[question.id]
    )
    return interview.id


async def _invite(
    count: int,
    *,
    limits: Sequence[RateLimit],
    faults: dict[str, float],
    latency: float = 0.1,
) -> tuple[InviteReport, float]:
    """Return the report and the virtual seconds of a job; everyone got one invite."""
    clock = VirtualClock()
    async with FakeGather(clock=clock, rate_limits=limits) as fake:
        options: dict[str, Any] = {"clock": clock, "rng": random.Random(0), "reserve": _RESERVE}
        async with fake.client(**options) as gather:
            interview_id = await _interview(gather, fake)
        await clock.sleep(3700)
        fake.set_latency(latency, latency)
        fake.chaos(**faults)
        began = clock.monotonic()
        options["rate_limits"] = limits
        async with fake.client(**options) as gather:
            report = await BulkInvite(gather, _rows(count), interview_id=interview_id)
        took = clock.monotonic() - began
        if len(fake.invites_by_person) != count or set(fake.invites_by_person.values()) != {1}:
            raise AssertionError("a person was not invited exactly once")
    return report, took


def _requests(name: str, faults: dict[str, float], *, at_most: float) -> Figure:
    report, _ = asyncio.run(_invite(500, limits=_NONE, faults=faults))
    each = report.requests / report.invited
    return Figure(
        f"bulk: requests per invite, {name}",
        f"{each:.2f}",
        f"<= {at_most:.2f}",
        each <= at_most,
    )


def _lookups(count: int) -> Figure:
    """Look-ups of a new journal for people half of whom a lost one had invited."""
    requests, lookups = asyncio.run(_invite_again(count))
    share = lookups / requests
    return Figure(
        f"bulk: look-ups of {count:,} rows, half of them invited from a lost journal",
        f"{100 * share:.1f} % of the requests",
        "< 3 %",
        share < 0.03,
    )


async def _invite_again(count: int) -> tuple[int, int]:
    """Return the requests, and the reads among them, of a job whose journal was lost halfway."""
    clock = VirtualClock()
    async with FakeGather(clock=clock) as fake:
        options: dict[str, Any] = {"clock": clock, "rate_limits": _NONE}
        async with GatherClient(fake.api_key, base_url=fake.base_url, **options) as gather:
            interview_id = await _interview(gather, fake)
            await BulkInvite(gather, _rows(count // 2), interview_id=interview_id)
            before = len(fake.requests)
            report = await BulkInvite(gather, _rows(count), interview_id=interview_id)
        sent = [each.method for each in fake.requests[before:]]
        if report.invited != count - count // 2 or set(fake.invites_by_person.values()) != {1}:
            raise AssertionError("a person was not invited exactly once")
    return len(sent), sent.count("GET")


def _ideal(requests: int) -> float:
    """Return when the last of so many requests could start, were each answered at once."""
    at: list[float] = []
    for number in range(requests):
        starts = [
            at[number - each.limit + _RESERVE] + each.per
            for each in _REAL
            if number >= each.limit - _RESERVE
        ]
        at.append(max(starts, default=0.0))
    return at[-1]


def _schedule(count: int) -> Figure:
    _, took = asyncio.run(_invite(count, limits=_REAL, faults={}))
    ratio = took / _ideal(2 * count)
    return Figure(
        f"bulk: {count:,} invites in {took / 3600:.2f} virtual hours",
        f"{ratio:.4f} x ideal",
        "<= 1.01",
        ratio <= 1.01,
    )


def _peak() -> float:
    """Return the peak resident set of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss has the parent's peak in it, from before the exec
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024


async def _dry(count: int) -> None:
    """Print the growth in MB and the rows a second of a dry run; in a process of its own."""
    async with GatherClient("key", base_url="http://127.0.0.1:9") as gather:
        before, began = _peak(), time.process_time()
        report = await BulkInvite(gather, _rows(count), interview_id="i", dry_run=True)
        rate = count / (time.process_time() - began)
        print(_peak() - before, rate if report.ready == count else 0.0)


def _memory(few: int, many: int) -> Iterator[Figure]:
    rates: list[float] = []
    for count in (few, many):
        grown, rate = map(float, _child("dry", str(count)).split())
        yield Figure(
            f"bulk: memory over the start, {count:,} rows",
            f"{grown:.1f} MB",
            "<= 60 MB",
            grown <= 60,
        )
        yield Figure(f"bulk: {count:,} rows read, checked, entered", f"{rate:,.0f} rows/s of CPU")
        rates.append(rate)
    ratio = rates[0] / rates[1]
    name = f"bulk: {many:,} rows beside {few:,}, CPU of each"
    yield Figure(name, f"{ratio:.2f} x", "<= 1.3", ratio <= 1.3)


async def _held_by_jobs(count: int, folder: Path) -> list[int]:
    """Return the threads, files and connections' ends that jobs hold while they wait.

    The connections are the client's, however many jobs it has; both of their ends are here.
    """
    source = folder / "people.csv"
    people = [",".join(row.values()) for row in _rows(20)]
    source.write_text("\n".join(["first_name,last_name,email,phone", *people]), encoding="utf-8")
    async with FakeGather() as fake, fake.client(rate_limits=_REAL) as gather:
        interview = await _interview(gather, fake)
        before = _held()
        jobs = [
            BulkInvite(
                gather,
                read_candidates(source),
                interview_id=interview,
                journal=folder / f"{n}.db",
            )
            for n in range(count)
        ]
        running = [asyncio.ensure_future(_report(job)) for job in jobs]
        # No event says that all jobs wait for the quota.
        while gather.rate_limit_status.queued.bulk < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        held = _held()
        for job in jobs:
            job.stop()
        await asyncio.gather(*running)
        return [after - first for after, first in zip(held, before, strict=True)]


def _held() -> list[int]:
    """Return this process's threads, open files, and ends of connections."""
    opened = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
    sockets = sum("/socket:[" in each for each in opened)
    return [threading.active_count(), len(opened) - sockets, sockets]


async def _report(job: BulkInvite) -> InviteReport:
    return await job


def _jobs_at_once(count: int) -> Iterator[Figure]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        threads, files, sockets = asyncio.run(_held_by_jobs(count, Path(folder)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    each = threads / count
    name = f"bulk: threads of {count} jobs at once"
    yield Figure(name, f"{each:.2f} each", "<= 1.1", each <= 1.1)
    each = files / count
    name = f"bulk: files that {count} jobs at once have open"
    yield Figure(name, f"{each:.2f} each", "<= 4", each <= 4)
    name = f"bulk: descriptors of {count} jobs at once, with both ends of connections"
    yield Figure(name, f"{(files + sockets) / count:.2f} each")


def _child(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.bulk", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def _send(base_url: str, api_key: str, interview_id: str, count: int) -> None:
    """Print the CPU seconds of inviting, and the growth in MB; in a process of its own."""
    async with GatherClient(api_key, base_url=base_url, rate_limits=_NONE) as gather:
        await BulkInvite(gather, _rows(50), interview_id=interview_id)
        before, began = _peak(), time.process_time()
        report = await BulkInvite(gather, list(_rows(50 + count))[50:], interview_id=interview_id)
        seconds = time.process_time() - began if report.invited == count else math.nan
        print(seconds, _peak() - before)


async def _serve(count: int) -> str:
    async with FakeGather() as fake:
        async with fake.client() as gather:
            interview_id = await _interview(gather, fake)
        arguments = ("send", fake.base_url, fake.api_key, interview_id, str(count))
        return await asyncio.to_thread(_child, *arguments)


def _sent(count: int) -> Iterator[Figure]:
    seconds, grown = map(float, asyncio.run(_serve(count)).split())
    yield Figure(
        f"bulk: memory over the first 50, {count:,} invites sent", f"{grown:.1f} MB", None, None
    )
    yield Figure(
        "bulk: client CPU without a quota, journal in memory",
        f"{1000 * seconds / count:.2f} ms/invite, {count / seconds:.0f}/s",
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["dry", count]:
            asyncio.run(_dry(int(count)))
        case ["send", base_url, api_key, interview_id, count]:
            asyncio.run(_send(base_url, api_key, interview_id, int(count)))
        case _:
            for line in table(figures()):
                print(line, flush=True)
