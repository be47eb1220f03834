"""The recipes for brokers, run as they stand: a tenant's bulk invite in slices."""

import asyncio
import csv
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gather_async import GatherPool, RateLimit
from gather_async.testing import FakeGather
from tests.integration.test_waiting_recipes import example

ROWS = 100
SLICE = 1.0  # seconds; the whole takes a second and a half at least


class Campaign:
    """A fake server with an interview, and the file of one tenant's candidates."""

    def __init__(self, fake: FakeGather, folder: Path, interview_id: str) -> None:
        self.fake, self.folder, self.interview_id = fake, folder, interview_id
        self.keys = {"acme": fake.api_key}

    def pool(self) -> GatherPool:
        """Return a worker's pool."""
        limits = [RateLimit(100_000, per=60)]
        return GatherPool(base_url=self.fake.base_url, rate_limits=limits)

    @property
    def invited(self) -> int:
        """How many are invited; no one twice."""
        counts = self.fake.invites_by_person
        assert set(counts.values()) <= {1}
        return len(counts)


@pytest.fixture
async def campaign(tmp_path: Path) -> AsyncIterator[Campaign]:
    """A campaign that takes several slices."""
    with (tmp_path / "acme.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["first_name", "last_name", "email", "phone"])
        writer.writerows(
            ["P", str(n), f"p{n}@example.com", f"+1202555{n:04d}"] for n in range(ROWS)
        )
    async with FakeGather(rate_limits=None) as fake:
        async with fake.client() as gather:
            question = await gather.questions.create(
                title="q",
                question_script="s",
                user_id=fake.user_id,
                audio_url="https://e.com/a.mp3",
            )
            interview = await gather.interviews.create(
                title="i", display_name="i", question_ids=[question.id]
            )
        fake.set_latency(0.1, 0.1)
        yield Campaign(fake, tmp_path, interview.id)


async def test_taskiq_invites(redis_url: str, campaign: Campaign) -> None:
    """Two workers share a tenant's job slice by slice; a repeated message runs nothing."""
    taskiq = pytest.importorskip("taskiq", reason="taskiq is not installed")
    taskiq_redis = pytest.importorskip("taskiq_redis", reason="taskiq-redis is not installed")
    api = pytest.importorskip("taskiq.api")
    results: list[str] = []
    before = asyncio.all_tasks()

    class Results(taskiq.TaskiqMiddleware):  # type: ignore[misc,name-defined]  # as above
        def post_execute(self, message: Any, result: Any) -> None:
            """Keep what a job returned."""
            results.append(result.return_value)

    workers, jobs = [], []
    for _ in range(2):
        broker = taskiq_redis.RedisStreamBroker(redis_url, xread_block=50)
        broker.add_middlewares(Results())
        broker.is_worker_process = True
        jobs.append(
            example("taskiq_invites").Campaigns(
                broker,
                redis_url,
                campaign.folder,
                campaign.keys,
                campaign.pool(),
                seconds=SLICE,
            )
        )
        await broker.startup()
        workers.append((broker, asyncio.create_task(api.run_receiver_task(broker))))
    for _ in range(2):
        await jobs[0].invite.kiq("acme", campaign.interview_id)
    try:
        async with asyncio.timeout(25):
            while "done" not in results:  # noqa: ASYNC110 - of the workers
                await asyncio.sleep(0.02)
    finally:
        for broker, worker in workers:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker
            await broker.shutdown()
        # Its reader waits by redis-py's socket_timeout, which swallows cancellations (3.11).
        while left := asyncio.all_tasks() - before:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.1)
    assert campaign.invited == ROWS
    assert "goes on" in results
    assert "runs elsewhere" in results


# arq is made for redis-py 5, and newer ones call its options deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_arq_invites(
    redis_url: str, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers share a tenant's job slice by slice; a second job of it runs nothing."""
    arq = pytest.importorskip("arq", reason="arq is not installed")
    monkeypatch.setenv("REDIS_URL", redis_url)
    recipe = example("arq_invites")
    settings = recipe.WorkerSettings
    results: list[str] = []

    async def after_job_end(ctx: dict[str, Any]) -> None:
        results.append(ctx["job_id"])

    workers = [
        arq.Worker(
            settings.functions,
            redis_settings=settings.redis_settings,
            on_startup=settings.on_startup,
            on_shutdown=settings.on_shutdown,
            after_job_end=after_job_end,
            max_jobs=settings.max_jobs,
            poll_delay=0.02,
            handle_signals=False,
            ctx={
                "url": redis_url,
                "folder": campaign.folder,
                "keys": campaign.keys,
                "pool": campaign.pool(),
                "slice": SLICE,
            },
        )
        for _ in range(2)
    ]
    running = [asyncio.create_task(each.async_run()) for each in workers]
    queue = await arq.create_pool(settings.redis_settings)
    for _ in range(2):
        await queue.enqueue_job("invite", "acme", campaign.interview_id)
    try:
        async with asyncio.timeout(25):
            while await queue.zcard("arq:queue") or campaign.invited < ROWS:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        for worker, task in zip(workers, running, strict=True):
            await worker.close()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await queue.aclose()
    assert campaign.invited == ROWS
    # A refused one, and at least two slices.
    assert len(results) >= 3
