"""A fake server and a client that live in one virtual time."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gather_async.bulk import BulkInvite
from gather_async.client import GatherClient
from gather_async.protocol.retry import RetryPolicy
from gather_async.testing import FakeGather, VirtualClock


class Bench:
    """One fake server, one clock, an interview, and jobs over them."""

    def __init__(self, fake: FakeGather, clock: VirtualClock | None) -> None:
        self.fake = fake
        self._clock = clock
        self.interview_id = ""
        self.before = 0
        self._clients: list[GatherClient] = []

    @property
    def clock(self) -> VirtualClock:
        """The time that client and server live in."""
        assert self._clock is not None
        return self._clock

    def client(self, **options: Any) -> GatherClient:
        """Return a client of the fake server."""
        client = GatherClient(
            options.pop("api_key", self.fake.api_key),
            base_url=self.fake.base_url,
            clock=self._clock,
            rng=random.Random(0),
            **options,
        )
        self._clients.append(client)
        return client

    def job(
        self, candidates: Any, *, client: GatherClient | None = None, **options: Any
    ) -> BulkInvite:
        """Return a job; of a new client, if none is given."""
        options.setdefault("interview_id", self.interview_id)
        return BulkInvite(client or self.client(), candidates, **options)

    @property
    def sent(self) -> list[tuple[str, str]]:
        """Method and path of each request since the interview was made."""
        return [(each.method, each.path) for each in self.fake.requests[self.before :]]

    @property
    def invited(self) -> dict[str, int]:
        """How many invites each person got, by external id."""
        return dict(self.fake.invites_by_person)

    async def open(self) -> None:
        """Make the interview."""
        client = self.client()
        question = await client.questions.create(
            title="Why?",
            question_script="Why?",
            user_id=self.fake.user_id,
            audio_url="https://e.com/a.mp3",
        )
        interview = await client.interviews.create(
            title="Job", display_name="Job", question_ids=[question.id]
        )
        self.interview_id = interview.id
        self.before = len(self.fake.requests)

    async def aclose(self) -> None:
        """Close every client."""
        for client in self._clients:
            await client.aclose()


def people(count: int, *, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Return rows of different people."""
    return [
        {
            "first_name": "Person",
            "last_name": str(number),
            "email": f"row-{number}@example.com",
            "phone": f"+1202{number:07d}",
            **more,
        }
        for number in range(first, first + count)
    ]


def names_in(folder: Path) -> list[str]:
    """Return the names of a folder's files."""
    return sorted(path.name for path in folder.iterdir())


def content(file: Path) -> bytes:
    """Return a file's bytes."""
    return file.read_bytes()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A server without limits and with a quiet wire."""
    clock = VirtualClock()
    async with FakeGather(clock=clock) as fake:
        bench = Bench(fake, clock)
        await bench.open()
        yield bench
        await bench.aclose()


NO_RETRY = RetryPolicy(attempts=1)
