"""How many files of the package one thing enters on its way: what a reader has to follow.

``python -m benchmarks.trips`` also prints the files. Counted is every function that is
called, in any thread but the fake server's; what importing a module runs is not. A CSV row's
trip has the job's beginning and end in it, a body's the opening of the inbox's file.
"""

import asyncio
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

import gather_async
from benchmarks.figure import Figure
from gather_async import GatherClient
from gather_async.bulk import read_candidates
from gather_async.testing import FakeGather
from gather_async.webhooks import SQLiteInbox, WebhookReceiver, sample

__all__ = ["figures", "trips"]

_PACKAGE = str(Path(gather_async.__file__).parent)
_ROW = "first_name,last_name,email,phone\nAda,Doe,ada@example.com,+12025550123\n"
_TARGETS = {"CSV row to outcome": 40, "question id to audio": 25, "webhook body to handler": 15}


class _Entered:
    """The files of the package whose functions are called while this is entered.

    Threads that start meanwhile are looked at, too, and those that start before it is entered.
    """

    def __init__(self) -> None:
        self.files: set[str] = set()
        threading.setprofile(self._note)

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>" and _PACKAGE in code.co_filename:
            self.files.add(code.co_filename.removeprefix(_PACKAGE + "/"))


@asynccontextmanager
async def _server() -> AsyncIterator[FakeGather]:
    """Serve in a thread and a loop of its own, which nothing looks at."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def there(work: Awaitable[FakeGather | None]) -> FakeGather | None:
        async def run() -> FakeGather | None:
            return await work

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), loop))

    fake = FakeGather(audio_seconds=0.05)
    try:
        await there(fake.__aenter__())
        try:
            yield fake
        finally:
            await there(fake.aclose())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _row(fake: FakeGather, folder: Path) -> set[str]:
    """Return the files that one row of a CSV file enters until its outcome is reported."""
    file = folder / "candidates.csv"
    file.write_text(_ROW, encoding="utf-8")
    async with GatherClient(fake.api_key, base_url=fake.base_url) as gather:
        interview = await gather.interviews.create(title="t", question_ids=[])
        with _Entered() as entered:
            job = gather.bulk_invite(
                read_candidates(file),
                interview_id=interview.id,
                delivery_types=["email"],
                journal=folder / "invites.db",
            )
            outcomes = [outcome async for outcome in job]
    assert [outcome.status.value for outcome in outcomes] == ["invited"]
    return entered.files


async def _question(fake: FakeGather, _: Path) -> set[str]:
    """Return the files that a question's id enters until its audio is ready."""
    async with GatherClient(fake.api_key, base_url=fake.base_url) as gather:
        question = await gather.questions.create(
            title="t", question_script="?", user_id=fake.user_id
        )
    # A client of its own, as the first use builds what the wait needs.
    async with GatherClient(fake.api_key, base_url=fake.base_url) as gather:
        with _Entered() as entered:
            ready = await gather.questions.wait_until_audio_ready(question.id)
    assert ready.audio_url
    return entered.files


async def _body(_: FakeGather, folder: Path) -> set[str]:
    """Return the files that the bytes of a delivery enter until a handler has its event."""
    hooks = WebhookReceiver("secret", inbox=SQLiteInbox(folder / "events.db"))
    handled = asyncio.Event()

    @hooks.on("candidate_interview.completed")
    async def handle(_: Any) -> None:
        handled.set()

    delivery = sample("candidate_interview.completed", secret="secret")
    entered = _Entered()
    async with hooks:
        with entered:
            reply = await hooks.receive(delivery.body, delivery.headers)
            await handled.wait()
    assert reply.status == 200
    return entered.files


_TRIPS: dict[str, Callable[[FakeGather, Path], Awaitable[set[str]]]] = dict(
    zip(_TARGETS, (_row, _question, _body), strict=True)
)


async def _measure() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    async with _server() as fake:
        for name, trip in _TRIPS.items():
            with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
                await trip(fake, Path(first))  # what is only made once in a process
                found[name] = sorted(await trip(fake, Path(second)))
    return found


def trips() -> dict[str, list[str]]:
    """Return the files that each trip enters, by the trip's name."""
    return asyncio.run(_measure())


def figures() -> Iterator[Figure]:
    """Yield the number of files of each trip."""
    for name, files in trips().items():
        target = _TARGETS[name]
        yield Figure(f"{name}, files", str(len(files)), f"<= {target}", len(files) <= target)


if __name__ == "__main__":
    for trip_name, trip_files in trips().items():
        print(f"{trip_name}: {len(trip_files)}", *trip_files, sep="\n  ")
