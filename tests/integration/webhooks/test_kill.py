"""An event that was answered with 200 is never lost, whenever the process dies."""

import asyncio
import contextlib
import os
import random
import resource
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gather_async.webhooks import SignedSample, sample

SERVER = Path(__file__).parent / "kill_server.py"
SECRET = "kill-test-secret"
CONCURRENCY = 10


class Server:
    """The server process, started again after each kill, on a socket that stays open."""

    def __init__(self, folder: Path, listening: socket.socket) -> None:
        self.log = folder / "log.txt"
        self.arguments = (str(folder / "inbox.db"), str(self.log), str(listening.fileno()))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        self.nursery: asyncio.subprocess.Process | None = None
        self.pid = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the process that forks servers, and the first of them."""
        self.nursery = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SERVER),
            *self.arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[int(self.arguments[-1])],
        )
        await self.start()
        try:
            yield
        finally:
            self.kill()
            assert self.nursery.stdin is not None
            self.nursery.stdin.close()
            await self.nursery.communicate()

    async def start(self) -> None:
        """Start a server."""
        assert self.nursery is not None
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        self.nursery.stdin.write(b"start\n")
        self.pid = int(await self.nursery.stdout.readline())

    def kill(self) -> None:
        """Kill the server with no chance to say anything."""
        os.kill(self.pid, signal.SIGKILL)

    def runs(self, word: str) -> list[tuple[int, int]]:
        """Return event and process of each run that wrote this word."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(number), int(pid)) for said, number, pid in lines if said == word]


class Sender:
    """Delivers as the vendor does, until the answer is 200, and counts the answers."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url
        self.answered = 0
        self.progress = asyncio.Event()

    async def deliver(self, delivery: SignedSample) -> str:
        """Return the body of the answer 200."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                async with self.session.post(
                    self.url, data=delivery.body, headers=delivery.headers
                ) as response:
                    answer = await response.text()
                    if response.status == 200:
                        self.answered += 1
                        self.progress.set()
                        return answer
                    assert response.status == 503, answer

    async def wait_for(self, count: int) -> None:
        """Return once so many deliveries were answered."""
        while self.answered < count:
            self.progress.clear()
            await self.progress.wait()


async def test_nothing_is_lost_and_nothing_finished_runs_again(tmp_path: Path) -> None:
    """With 4 kills among 150 concurrent deliveries, 50 repeated, every handler succeeds."""
    await _deliver_all(tmp_path, events=100, repeated=50, kills=4)


@pytest.mark.slow
async def test_twenty_kills_of_a_thousand_deliveries(tmp_path: Path) -> None:
    """With 20 kills among 1000 concurrent deliveries, 300 repeated, every handler succeeds."""
    await _deliver_all(tmp_path, events=700, repeated=300, kills=20)


async def _deliver_all(folder: Path, *, events: int, repeated: int, kills: int) -> None:
    """Deliver all events at once while the server is killed; check what its handlers ran."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rng = random.Random(20)
    samples = [
        sample("interview.updated", secret=SECRET, data={"number": n}) for n in range(events)
    ]
    deliveries = samples + rng.sample(samples, repeated)
    rng.shuffle(deliveries)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        server = Server(folder, listening)
        connector = aiohttp.TCPConnector(limit=0)
        async with server.running(), aiohttp.ClientSession(connector=connector) as session:
            sender = Sender(session, server.url)
            sending = [asyncio.create_task(sender.deliver(each)) for each in deliveries]
            for moment in sorted(rng.sample(range(1, len(deliveries)), kills)):
                await sender.wait_for(moment)
                server.kill()
                await server.start()
            answers = Counter(await asyncio.gather(*sending))
            (await session.get(server.url + "finished")).release()
            _check_runs(server, events, kills)
            before = server.log.read_text()
            again = Counter(await asyncio.gather(*map(sender.deliver, samples)))
            (await session.get(server.url + "finished")).release()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(answers.values()) == events + repeated
    assert again == {'{"status": "duplicate"}': events}
    assert server.log.read_text() == before


def _check_runs(server: Server, events: int, kills: int) -> None:
    """Each handler succeeded on each event; it ran again only for a run that a kill cut off."""
    for word in ("plain-ends", "shaky-ends"):
        runs = server.runs(word)
        assert {number for number, _ in runs} == set(range(events))
        assert max(Counter(runs).values()) == 1, "a process ran a finished event again"
        assert len(runs) <= events + kills * CONCURRENCY
