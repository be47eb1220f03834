"""Kills and power cuts, again and again, beside a server that commits late and lists late."""

import asyncio
import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import define, field

from gather_async.clock import SystemClock

from .late_server import LateServer

_LOG = logging.getLogger(__name__)
_CHILD = Path(__file__).with_name("invite_child.py")
_SHIM = Path(__file__).with_name("synced.c")
_PAGE = 4096
_LATE = 0.3  # seconds by which the server commits late, and lists late
_IN_FLIGHT = 1.0
_SIZES = pytest.mark.parametrize(
    ("people", "times"), [(10, 2), pytest.param(15, 3, marks=pytest.mark.slow)]
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills and preloads as Linux does")


@define
class _Campaign:
    """One job, begun as often as it takes."""

    server: LateServer
    journal: Path
    people: int
    draw: random.Random
    environment: dict[str, str] = field(factory=lambda: {"PYTHONDONTWRITEBYTECODE": "1"})

    async def start(self) -> asyncio.subprocess.Process:
        """Begin the job in a process of its own."""
        arguments = [self.server.base_url, "key", "interview", str(self.journal)]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            str(_CHILD),
            *arguments,
            str(self.people),
            str(_IN_FLIGHT),
            env={**os.environ, **self.environment},
        )

    async def kill(self, most: int) -> bool:
        """Begin the job and kill it after so many requests at most; False if it ended before."""
        child = await self.start()
        # Each person without an invite costs one more request: the job can't end before.
        left = self.people - len(self.server.invites)
        total = self.server.requests.total() + self.draw.randint(1, max(1, min(most, left)))
        arrived = asyncio.ensure_future(self.server.wait_for_requests(total))
        ended = asyncio.ensure_future(child.wait())
        await asyncio.wait({arrived, ended}, return_when=asyncio.FIRST_COMPLETED)
        for _ in range(self.draw.randint(0, 60)):
            await asyncio.sleep(0)
        was_killed = child.returncode is None
        if was_killed:
            child.kill()
        arrived.cancel()
        await asyncio.gather(arrived, ended, return_exceptions=True)
        return was_killed

    async def finish(self) -> None:
        """Run the job to its end, and check that everyone has one candidate and one invite."""
        for _ in range(5):  # a row that luck defers in one run ends in the next
            child = await self.start()
            if not await child.wait():
                break
        assert sorted(self.server.candidates.values()) == [1] * self.people
        assert sorted(self.server.invites.values()) == [1] * self.people
        assert [path.name for path in self.journal.parent.iterdir()] == [self.journal.name]


def _late_server(seed: int) -> LateServer:
    return LateServer(SystemClock(), random.Random(seed), commits_after=_LATE, lists_after=_LATE)


async def _kill(journal: Path, *, people: int, kills: int, seed: int) -> int:
    """Return how many kills hit a running job."""
    async with _late_server(seed) as server:
        campaign = _Campaign(server, journal, people, random.Random(seed))
        most = max(2, 4 * people // kills)
        killed = 0
        for _ in range(kills):
            killed += await campaign.kill(most)
        await campaign.finish()
        _LOG.info("%d kills, %.2f requests a row", killed, server.requests.total() / people)
    return killed


@_SIZES
async def test_kills_beside_a_late_server(tmp_path: Path, people: int, times: int) -> None:
    """14 % faults, late commits and late lists, some kills: everyone exactly once."""
    assert await _kill(tmp_path / "j.db", people=people, kills=times, seed=3) >= times - 1


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_hundred_kills_beside_a_late_server(tmp_path: Path) -> None:
    """14 % faults, late commits and late lists, 100 kills: everyone exactly once."""
    assert await _kill(tmp_path / "j.db", people=200, kills=100, seed=4) >= 80


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that keeps what was flushed."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("shim") / "synced.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(_SHIM), "-ldl"], check=True
    )
    return library


def _cut_power(folder: Path, synced: Path, draw: random.Random) -> None:
    """Leave of each file what was flushed, and of later writes whichever pages got to the disk."""
    for path in sorted(folder.iterdir()):
        kept = synced / path.name
        if path.name.endswith("-shm") or not kept.exists():
            path.unlink()
            continue
        before, after = kept.read_bytes(), path.read_bytes()
        length = draw.choice([len(before), len(after)])
        pages = [
            draw.choice([before, after])[at : at + _PAGE] or before[at : at + _PAGE]
            for at in range(0, length, _PAGE)
        ]
        path.write_bytes(b"".join(pages)[:length])


async def _cut(folder: Path, shim: Path, *, people: int, cuts: int, seed: int) -> int:
    """Return how many power cuts hit a running job."""
    disk, synced = folder / "disk", folder / "synced"
    disk.mkdir()
    synced.mkdir()
    async with _late_server(seed) as server:
        campaign = _Campaign(server, disk / "j.db", people, random.Random(seed))
        campaign.environment |= {
            "LD_PRELOAD": str(shim),
            "SYNCED_FROM": str(disk),
            "SYNCED_TO": str(synced),
        }
        hit = 0
        for _ in range(cuts):
            if await campaign.kill(max(2, 4 * people // cuts)):
                hit += 1
                _cut_power(disk, synced, campaign.draw)
        await campaign.finish()
        _LOG.info("%d cuts, %.2f requests a row", hit, server.requests.total() / people)
    return hit


@_SIZES
async def test_power_cuts_beside_a_late_server(
    tmp_path: Path, shim: Path, people: int, times: int
) -> None:
    """What was not flushed is lost in part, some times over: everyone exactly once."""
    assert await _cut(tmp_path, shim, people=people, cuts=times, seed=5) >= times - 1


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_hundred_power_cuts_beside_a_late_server(tmp_path: Path, shim: Path) -> None:
    """What was not flushed is lost in part, 100 times over: everyone exactly once."""
    assert await _cut(tmp_path, shim, people=200, cuts=100, seed=6) >= 80
