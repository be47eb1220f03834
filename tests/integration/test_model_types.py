"""Models as types of web frameworks and serializers."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import cattrs
import httpx
import msgspec
import pytest

from gather_async import Interview, InterviewQuestion, InterviewStatus, Question

QUESTION = Question(
    id="q-1",
    audio_url="https://audio.invalid/1.mp3",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    extra={"flavour": "salty"},
)
INTERVIEW = Interview(
    id="i-1",
    status=InterviewStatus("brand_new"),
    questions=(InterviewQuestion(id="q-1", ordinal=1),),
)


def client_of(app: Any) -> httpx.AsyncClient:
    """Return a client of an ASGI application, without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def test_fastapi_returns_and_takes_models() -> None:
    """An endpoint returns one by its annotation or `response_model`, and reads one as a body."""
    # Here, or each worker of a run would take 0.2 s for the two frameworks.
    from fastapi import Body, FastAPI  # noqa: PLC0415

    app = FastAPI()

    @app.get("/question")
    async def question() -> Question:
        return QUESTION

    @app.get("/interviews", response_model=list[Interview])
    async def interviews() -> Any:
        return [INTERVIEW]

    @app.post("/title")
    async def title(sent: Annotated[Question, Body()]) -> str | None:
        return sent.title

    async with client_of(app) as client:
        shown = (await client.get("/question")).json()
        assert shown["audio_url"] == "https://audio.invalid/1.mp3"
        assert shown["flavour"] == "salty"
        assert Question.from_dict(shown) == QUESTION
        listed = (await client.get("/interviews")).json()
        assert [Interview.from_dict(each) for each in listed] == [INTERVIEW]
        taken = await client.post("/title", json={"id": "q", "title": "Why?"})
        assert taken.json() == "Why?"
        refused = await client.post("/title", json={"title": "Why?"})
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"][-1] == "id"
        document = (await client.get("/openapi.json")).json()
    answer = document["paths"]["/question"]["get"]["responses"]["200"]["content"]
    reference = answer["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    assert schema["required"] == ["id"]
    assert {"id", "title", "audio_url", "transcription_status"} <= schema["properties"].keys()


async def test_litestar_returns_models() -> None:
    """It reads attrs classes by itself, in its schema as well."""
    from litestar import Litestar, get  # noqa: PLC0415 - as above

    @get("/question")
    async def question() -> Question:
        return QUESTION

    app = Litestar([question], logging_config=None)
    async with client_of(app) as client:
        shown = (await client.get("/question")).json()
    assert shown["audio_url"] == "https://audio.invalid/1.mp3"
    assert shown["extra"] == {"flavour": "salty"}
    schemas = app.openapi_schema.components.schemas
    assert any("audio_url" in (schema.properties or {}) for schema in schemas.values())


@pytest.mark.parametrize("model", [QUESTION, INTERVIEW], ids=lambda model: type(model).__name__)
def test_msgspec_and_cattrs_write_models(model: Any) -> None:
    """Both take attrs classes as they are."""
    encoded = json.loads(msgspec.json.encode(model))
    unstructured = cattrs.unstructure(model)
    assert encoded["id"] == unstructured["id"] == model.id
    assert encoded["extra"] == unstructured["extra"] == model.extra
