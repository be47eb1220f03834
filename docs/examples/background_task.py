"""A background task of a FastAPI service: answer at once, wait for the audio afterwards.

In one terminal:

    gather-async fake-server --port 8800 --api-key qapi_try --audio-seconds 0.5

In another (`pip install gather-async fastapi uvicorn`):

    export GATHER_BASE_URL=http://127.0.0.1:8800 GATHER_API_KEY=qapi_try
    export GATHER_USER_ID=$(gather-async list users | cut -f 1 | tail -n 1)
    uvicorn --factory background_task:make_app --port 8000

In a third:

    curl -sSf -H 'Content-Type: application/json' http://127.0.0.1:8000/questions \
        -d '{"script": "Tell me about yourself."}' | tee question.json
    id=$(cut -d '"' -f 4 question.json)
    until curl -sSf http://127.0.0.1:8000/questions/$id | grep ready; do sleep 0.2; done

All background tasks of the process share one client, so a hundred of them
that wait cost little more than one.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, Body, FastAPI, HTTPException

from gather_async import (
    AudioGenerationError,
    AudioTimeoutError,
    ClientClosedError,
    GatherClient,
    GatherError,
)


def make_app(gather: GatherClient | None = None) -> FastAPI:
    """Return the service. Tests pass a client of their own."""
    client = gather or GatherClient()
    states: dict[str, str] = {}  # use your database instead

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:  # closing it ends what still waits
            yield

    app = FastAPI(lifespan=lifespan)

    async def follow(question_id: str) -> None:
        """Note how the audio ends. An exception here would be lost."""
        try:
            await client.questions.wait_until_audio_ready(question_id, timeout=3600.0)
            states[question_id] = "ready"
        except AudioGenerationError:
            states[question_id] = "failed"
        except AudioTimeoutError:
            states[question_id] = "late"
        except ClientClosedError:
            states[question_id] = "interrupted"  # the service is stopping: wait again later
        except GatherError as error:
            states[question_id] = type(error).__name__

    @app.post("/questions", status_code=202)
    async def create(
        script: Annotated[str, Body(embed=True)], background: BackgroundTasks
    ) -> dict[str, str]:
        question = await client.questions.create(title=script[:60], question_script=script)
        states[question.id] = "processing"
        background.add_task(follow, question.id)
        return {"id": question.id, "audio": "processing"}

    @app.get("/questions/{question_id}")
    async def read(question_id: str) -> dict[str, str]:
        if question_id not in states:
            raise HTTPException(404)
        return {"id": question_id, "audio": states[question_id]}

    return app
