"""A job killed with SIGKILL, again and again, invites everyone exactly once."""

import asyncio
import logging
import os
import random
import sys
from pathlib import Path

import pytest

from gather_async.testing import FakeGather

from .conftest import Bench

_LOG = logging.getLogger(__name__)
_CHILD = Path(__file__).with_name("invite_child.py")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


async def _start(bench: Bench, journal: Path, count: int) -> asyncio.subprocess.Process:
    fake = bench.fake
    arguments = [fake.base_url, fake.api_key, bench.interview_id, str(journal), str(count), "0.3"]
    return await asyncio.create_subprocess_exec(
        sys.executable, str(_CHILD), *arguments, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    )


async def _kill_after(
    bench: Bench, child: asyncio.subprocess.Process, requests: int, turns: int
) -> bool:
    """Kill a child once so many requests more have arrived; False if it ended before."""
    arrived = asyncio.ensure_future(
        bench.fake.wait_for_requests(len(bench.fake.requests) + requests)
    )
    ended = asyncio.ensure_future(child.wait())
    await asyncio.wait({arrived, ended}, return_when=asyncio.FIRST_COMPLETED)
    # Some turns of the loop later, so that every step of an exchange is hit.
    for _ in range(turns):
        await asyncio.sleep(0)
    was_killed = child.returncode is None
    if was_killed:
        child.kill()
    arrived.cancel()
    await asyncio.gather(arrived, ended, return_exceptions=True)
    return was_killed


async def _invite_all(journal: Path, *, people: int, kills: int, seed: int) -> tuple[float, int]:
    """Run children until everyone is invited; return requests per invite, and the kills."""
    draw = random.Random(seed)
    async with FakeGather(seed=seed) as fake:
        bench = Bench(fake, None)
        await bench.open()
        fake.chaos(errors_500=0.03, html_503=0.02, cut_before=0.03, cut_after=0.06)
        killed = 0
        for _ in range(kills):
            child = await _start(bench, journal, people)
            requests = draw.randint(1, max(2, 4 * people // kills))
            killed += await _kill_after(bench, child, requests, draw.randint(0, 40))
        missing = people
        for _ in range(3):  # a row that luck gives up in one run ends in the next
            child = await _start(bench, journal, people)
            missing = await child.wait()
            if not missing:
                break
        assert missing == 0
        assert len(fake.invites_by_person) == people
        assert set(fake.invites_by_person.values()) == {1}
        assert len(fake.candidates) == people
        assert [path.name for path in journal.parent.iterdir()] == [journal.name]
        await bench.aclose()
        return len(bench.sent) / people, killed


@pytest.mark.parametrize(
    ("people", "kills"), [(20, 2), pytest.param(40, 4, marks=pytest.mark.slow)]
)
async def test_a_killed_job_goes_on_and_invites_no_one_twice(
    tmp_path: Path, people: int, kills: int
) -> None:
    """Some kills at seeded moments under a faulty wire: everyone exactly once."""
    per_invite, killed = await _invite_all(tmp_path / "j.db", people=people, kills=kills, seed=1)
    assert killed >= kills - 1
    assert 2.0 <= per_invite < 5.5


@pytest.mark.slow
async def test_thirty_kills_of_three_hundred_candidates(tmp_path: Path) -> None:
    """300 people, 14 % of requests going wrong, 30 kills: exactly once each."""
    per_invite, killed = await _invite_all(tmp_path / "j.db", people=300, kills=30, seed=2)
    _LOG.info("%.2f requests per invite, %d kills", per_invite, killed)
    assert killed >= 20
    assert 2.0 <= per_invite < 4.5
