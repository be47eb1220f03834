"""An aiohttp service with a worker that waits for audio while the service runs.

In one terminal:

    gather-async fake-server --port 8800 --api-key qapi_try --audio-seconds 0.5

In another (`pip install gather-async`):

    export GATHER_BASE_URL=http://127.0.0.1:8800 GATHER_API_KEY=qapi_try
    export GATHER_USER_ID=$(gather-async list users | cut -f 1 | tail -n 1)
    python -m aiohttp.web aiohttp_service:main --port 8000

In a third:

    curl -sSf http://127.0.0.1:8000/questions \
        -d '{"script": "Tell me about yourself."}' | tee question.json
    id=$(cut -d '"' -f 4 question.json)
    until curl -sSf http://127.0.0.1:8000/questions/$id | grep mp3; do sleep 0.2; done

`cleanup_ctx` starts the worker with the server and ends it before the server
has gone, whatever it was waiting for.
"""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from gather_async import AudioTimeoutError, GatherClient, GatherError, Question

GATHER = web.AppKey("gather", GatherClient)
TO_DO = web.AppKey("to_do", asyncio.Queue[str])
READY = web.AppKey("ready", dict[str, str])


async def work(app: web.Application) -> None:
    """Wait for each question that comes in, all at the same time."""

    async def follow(question_id: str) -> None:
        try:
            question: Question = await app[GATHER].questions.wait_until_audio_ready(
                question_id, timeout=600.0
            )
        except AudioTimeoutError:
            await app[TO_DO].put(question_id)  # at the end of the line again
        except GatherError as error:
            app[READY][question_id] = type(error).__name__
        else:
            app[READY][question_id] = question.audio_url or ""

    async with asyncio.TaskGroup() as tasks:
        while True:
            tasks.create_task(follow(await app[TO_DO].get()))


async def run_worker(app: web.Application) -> AsyncIterator[None]:
    """Start the worker; end it when the server stops. Its own failure would be raised here."""
    worker = asyncio.create_task(work(app), name="audio worker")
    yield
    worker.cancel()
    try:
        await worker
    except asyncio.CancelledError:
        if not worker.cancelled():
            raise


async def open_client(app: web.Application) -> AsyncIterator[None]:
    """Open the client before the worker starts, and close it after the worker has ended."""
    async with app[GATHER]:
        yield


async def create(request: web.Request) -> web.Response:
    """Create a question and hand it to the worker."""
    script = (await request.json())["script"]
    question = await request.app[GATHER].questions.create(title=script[:60], question_script=script)
    await request.app[TO_DO].put(question.id)
    return web.json_response({"id": question.id}, status=202)


async def read(request: web.Request) -> web.Response:
    """Say what came of a question."""
    return web.json_response({"audio": request.app[READY].get(request.match_info["id"])})


def make_app(gather: GatherClient | None = None) -> web.Application:
    """Return the server. Tests pass a client of their own."""
    app = web.Application()
    app[GATHER], app[TO_DO], app[READY] = gather or GatherClient(), asyncio.Queue(), {}
    app.cleanup_ctx.extend([open_client, run_worker])
    app.add_routes([web.post("/questions", create), web.get("/questions/{id}", read)])
    return app


def main(_: list[str]) -> web.Application:
    """Return the service, for ``python -m aiohttp.web``."""
    return make_app()
