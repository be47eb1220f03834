"""A taskiq job that waits for audio, and goes on after the worker was restarted.

In one terminal, beside a Redis server:

    gather-async fake-server --port 8800 --api-key qapi_try --audio-seconds 1

In another (`pip install 'gather-async[cli]' taskiq taskiq-redis`):

    export GATHER_BASE_URL=http://127.0.0.1:8800 GATHER_API_KEY=qapi_try
    export REDIS_URL=redis://localhost:6379/0
    taskiq worker taskiq_job:broker --workers 1

In a third:

    export GATHER_BASE_URL=http://127.0.0.1:8800 GATHER_API_KEY=qapi_try
    export REDIS_URL=redis://localhost:6379/0
    user=$(gather-async list users | cut -f 1 | tail -n 1)
    id=$(gather-async create question --title Yourself --question-script "Tell me." --user-id $user)
    python taskiq_job.py $id

What is awaited stands in an SQLite file from before the job is sent until it is
over. A worker that starts sends every job that is still in the file again, so
no crash and no broker loses one; a job that runs twice only reads twice.
"""

import asyncio
import os
import sqlite3
import sys
from pathlib import Path

from taskiq import AsyncBroker, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

from gather_async import AudioGenerationError, GatherClient, NotFoundError

SCHEMA = "CREATE TABLE IF NOT EXISTS awaited (question_id TEXT PRIMARY KEY, outcome TEXT)"


class AudioJobs:
    """Jobs of one broker, one client and one file."""

    def __init__(self, broker: AsyncBroker, file: Path, gather: GatherClient | None = None) -> None:
        """Register the job, and what happens when a worker starts and stops."""
        self._gather = gather
        self._file = sqlite3.connect(file, isolation_level=None)
        self._file.execute(SCHEMA)

        async def wait_for_audio(question_id: str) -> str:
            return await self._wait(question_id)  # taskiq takes functions, no methods

        self.wait_for_audio = broker.register_task(wait_for_audio, task_name="wait_for_audio")
        broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, self._start)
        broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, self._stop)

    async def follow(self, question_id: str) -> None:
        """Note that a question is awaited, then send the job."""
        self._file.execute("INSERT OR IGNORE INTO awaited VALUES (?, NULL)", [question_id])
        await self.wait_for_audio.kiq(question_id)

    def outcome(self, question_id: str) -> str | None:
        """Return what came of it; None while it is awaited."""
        row = self._file.execute("SELECT outcome FROM awaited WHERE question_id = ?", [question_id])
        return next(row, [None])[0]

    async def _start(self, _: TaskiqState) -> None:
        self._gather = self._gather or GatherClient()
        rows = self._file.execute("SELECT question_id FROM awaited WHERE outcome IS NULL")
        for (question_id,) in rows.fetchall():
            await self.wait_for_audio.kiq(question_id)

    async def _stop(self, _: TaskiqState) -> None:
        if self._gather is not None:
            await self._gather.aclose()  # jobs that still wait end, and stay in the file
        self._file.close()

    async def _wait(self, question_id: str) -> str:
        """Wait as long as it takes. A timeout or a stopping worker leaves the row as it is."""
        if self._gather is None:
            raise RuntimeError("Jobs run in a worker: start the broker first.")
        try:
            question = await self._gather.questions.wait_until_audio_ready(
                question_id, timeout=24 * 3600.0
            )
            outcome = question.audio_url or "ready"
        except (AudioGenerationError, NotFoundError) as error:
            outcome = type(error).__name__
        self._file.execute(
            "UPDATE awaited SET outcome = ? WHERE question_id = ?", [outcome, question_id]
        )
        return outcome


def make_jobs() -> tuple[AsyncBroker, AudioJobs]:
    """Return the broker that workers run, and its jobs."""
    broker = RedisStreamBroker(os.environ["REDIS_URL"])
    return broker, AudioJobs(broker, Path("awaited.db"))


async def follow(question_id: str) -> str:
    """Send a job from another process, and return what came of it."""
    broker, jobs = make_jobs()
    await broker.startup()
    await jobs.follow(question_id)
    while (outcome := jobs.outcome(question_id)) is None:  # noqa: ASYNC110 - a worker sets it
        await asyncio.sleep(0.2)
    await broker.shutdown()
    return outcome


def __getattr__(name: str) -> AsyncBroker:
    """Make the broker when the worker asks for it, so that tests can import this file."""
    if name == "broker":
        return make_jobs()[0]
    raise AttributeError(name)


if __name__ == "__main__":
    print(asyncio.run(follow(sys.argv[1])))
