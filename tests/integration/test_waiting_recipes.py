"""The recipes of the documentation, run as they stand."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gather_async import ClientClosedError, GatherClient
from gather_async.testing import FakeGather, VirtualClock

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def example(name: str) -> ModuleType:
    """Import an example from its file."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # taskiq looks itself up there
    spec.loader.exec_module(module)
    return module


def client_of(fake: FakeGather) -> GatherClient:
    """Return a client for the server, on its clock."""
    return fake.client(clock=fake.clock, user_id=fake.user_id)


@asynccontextmanager
async def a_server(audio_seconds: float) -> AsyncIterator[FakeGather]:
    """Open a server on a virtual clock."""
    async with FakeGather(clock=VirtualClock(), audio_seconds=audio_seconds) as fake:
        yield fake


async def test_fastapi_background_task() -> None:
    """The service tells that audio is processing, and later that it is ready."""
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    async with a_server(30.0) as fake:
        app = example("background_task").make_app(client_of(fake))
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service.invalid") as browser,
        ):
            # This transport returns when the background task has ended.
            created = asyncio.ensure_future(
                browser.post("/questions", json={"script": "Why do you want this job?"})
            )
            await fake.clock.sleep(10.0)
            question_id = fake.questions[0]["id"]
            assert (await browser.get(f"/questions/{question_id}")).json()["audio"] == "processing"
            assert (await created).status_code == 202
            assert (await browser.get(f"/questions/{question_id}")).json()["audio"] == "ready"
            assert (await browser.get("/questions/nowhere")).status_code == 404


async def test_fastapi_service_that_stops_while_it_waits() -> None:
    """Stopping the service ends its background tasks, which note that they were interrupted."""
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    async with a_server(3000.0) as fake:
        app = example("background_task").make_app(client_of(fake))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://s.invalid") as browser:
            async with app.router.lifespan_context(app):
                created = asyncio.ensure_future(browser.post("/questions", json={"script": "Why?"}))
                await fake.clock.sleep(10.0)
            question_id = (await created).json()["id"]
            state = (await browser.get(f"/questions/{question_id}")).json()["audio"]
            assert state == "interrupted"


async def test_aiohttp_worker() -> None:
    """The worker waits while the server serves, and ends with it although something waits."""
    async with a_server(30.0) as fake:
        app = example("aiohttp_service").make_app(client_of(fake))
        async with TestClient(TestServer(app)) as browser:
            answer = await browser.post("/questions", json={"script": "Why?"})
            question_id = (await answer.json())["id"]
            await fake.clock.sleep(10.0)
            answer = await browser.get(f"/questions/{question_id}")
            assert await answer.json() == {"audio": None}
            await fake.clock.sleep(60.0)  # 20 s until it is ready, and two polls at most
            answer = await browser.get(f"/questions/{question_id}")
            assert (await answer.json())["audio"].endswith(f"{question_id}.mp3")
            await browser.post("/questions", json={"script": "And why not?"})
            await fake.clock.sleep(1.0)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "audio worker"]


async def test_taskiq_job_resumes_after_a_restart(tmp_path: Path) -> None:
    """A worker that stopped while a job waited takes the job up when it starts again."""
    taskiq = pytest.importorskip("taskiq", reason="taskiq is not installed")
    jobs_of = example("taskiq_job").AudioJobs
    async with a_server(100.0) as fake:
        async with client_of(fake) as gather:
            question = await gather.questions.create(title="q", question_script="Why?")

        first = taskiq.InMemoryBroker()
        first.is_worker_process = True
        jobs = jobs_of(first, tmp_path / "awaited.db", client_of(fake))
        await first.startup()
        await jobs.follow(question.id)
        await fake.clock.sleep(20.0)
        assert jobs.outcome(question.id) is None
        await first.shutdown()

        second = taskiq.InMemoryBroker()
        second.is_worker_process = True
        jobs = jobs_of(second, tmp_path / "awaited.db", client_of(fake))
        await second.startup()
        await fake.clock.sleep(120.0)
        assert jobs.outcome(question.id).endswith(f"{question.id}.mp3")
        await second.shutdown()


async def test_a_client_of_a_job_that_was_closed_says_so() -> None:
    """What a stopping worker's jobs get is ClientClosedError, so that they stay undone."""
    async with a_server(100.0) as fake:
        gather = client_of(fake)
        question = await gather.questions.create(title="q", question_script="Why?")
        wait = asyncio.ensure_future(gather.questions.wait_until_audio_ready(question))
        await fake.clock.sleep(1.0)
        await gather.aclose()
        with pytest.raises(ClientClosedError):
            await wait
