"""A taskiq job that waits for audio, and goes on after the worker was restarted.

    pip install gather-async taskiq
    GATHER_API_KEY=qapi_... taskiq worker taskiq_job:broker

What is awaited stands in an SQLite file from before the job is sent until it is
over. A worker that starts sends every job that is still in the file again, so
no crash and no in-memory queue loses one; a job that runs twice only reads
twice. With a broker that keeps its messages, such as taskiq-redis, the file
remains the record of what is done.
"""

import sqlite3
from pathlib import Path

from taskiq import AsyncBroker, InMemoryBroker, TaskiqEvents, TaskiqState

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


def make_broker() -> AsyncBroker:
    """Return the broker that the worker runs; put taskiq-redis or another here."""
    broker = InMemoryBroker()
    AudioJobs(broker, Path("awaited.db"))
    return broker


def __getattr__(name: str) -> AsyncBroker:
    """Make the broker when the worker asks for it, so that tests can import this file."""
    if name == "broker":
        return make_broker()
    raise AttributeError(name)
