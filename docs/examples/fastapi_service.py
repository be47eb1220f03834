"""A FastAPI service: an interview from texts, invites, results by webhook.

In one terminal, a server that calls the service back and lets people finish after a second:

    gather-async fake-server --port 8800 --api-key qapi_try --audio-seconds 0.2 \
        --complete-after 1 --webhook http://127.0.0.1:8000/webhooks/gather --secret whsec_try

In another (`pip install gather-async fastapi uvicorn`):

    export GATHER_BASE_URL=http://127.0.0.1:8800 GATHER_API_KEY=qapi_try
    export GATHER_WEBHOOK_SECRET=whsec_try
    uvicorn --factory fastapi_service:make_app --port 8000

In a third:

    curl -sSf -H 'Content-Type: application/json' http://127.0.0.1:8000/interviews \
        -d '{"title": "Engineer", "scripts": ["Tell me about yourself.", "Why this job?"]}'
    curl -sSf -H 'Content-Type: application/json' http://127.0.0.1:8000/interviews/1/invites \
        --retry 9 --retry-all-errors --retry-delay 1 -d '{"first_name": "Ada",
        "last_name": "Doe", "email": "ada@example.com", "phone": "+12025550123"}'
    until curl -sSf http://127.0.0.1:8000/interviews/1 | grep complete; do sleep 0.2; done
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from gather_async import GatherClient, GatherError, InvalidRequestError, QuotaWaitError
from gather_async.models import CandidateInterview, InterviewResults
from gather_async.webhooks import CandidateInterviewCompleted, WebhookReceiver


class NewInterview(BaseModel):
    """What is to be asked."""

    title: str
    scripts: list[str]


class Person(BaseModel):
    """Who is to be invited. The client checks the address and the number."""

    first_name: str
    last_name: str
    email: str
    phone: str


class State(BaseModel):
    """How far an interview is."""

    state: Literal["preparing", "ready", "failed"] = "preparing"
    interview_id: str | None = None
    results: dict[str, InterviewResults | None] = {}


class Service:
    """What the service does with the API."""

    def __init__(self, gather: GatherClient) -> None:
        """Begin with no interview."""
        self.gather = gather
        self.interviews: dict[int, State] = {}  # use your database instead

    async def prepare(self, number: int, new: NewInterview) -> None:
        """Create questions and interview, in the background: an exception would be lost."""
        state = self.interviews[number]
        try:
            questions = [await self._ask(script) for script in new.scripts]
            for question_id in questions:  # one poll serves all waits of a client
                await self.gather.questions.wait_until_audio_ready(question_id)
            interview = await self.gather.interviews.create(title=new.title, question_ids=questions)
        except GatherError:
            state.state = "failed"
        else:
            state.interview_id, state.state = interview.id, "ready"

    async def _ask(self, script: str) -> str:
        user = (await self.gather.users.list()).items[0]
        question = await self.gather.questions.create(
            title=script[:60], question_script=script, user_id=user.id
        )
        return question.id

    async def invite(self, number: int, person: Person) -> CandidateInterview:
        """Invite a person, once, however often they are sent."""
        state = self.interviews.get(number)
        if state is None or state.interview_id is None:
            raise HTTPException(409, "The interview is not ready.")
        candidate = await self.gather.candidates.get_or_create(
            **person.model_dump(), external_id=f"person-{person.email.lower()}"
        )
        invite = await self.gather.candidate_interviews.get_or_create(
            candidate_id=candidate.id,
            interview_id=state.interview_id,
            send_invite=True,
            delivery_types=["email"],
        )
        state.results.setdefault(invite.id, None)
        return invite

    async def completed(self, event: CandidateInterviewCompleted) -> None:
        """Read the results of who has finished; after an exception the event comes again."""
        invite_id = event.candidate_interview_id
        for state in self.interviews.values():
            if invite_id in state.results:
                wait = self.gather.candidate_interviews.wait_until_summarized
                state.results[invite_id] = await wait(invite_id)


def service_of(request: Request) -> Service:
    """Return the service of the application that a request came to."""
    service: Service = request.app.state.service
    return service


router = APIRouter()
TheService = Annotated[Service, Depends(service_of)]


@router.post("/interviews", status_code=202)
async def create(
    new: NewInterview, service: TheService, background: BackgroundTasks
) -> dict[str, int]:
    """Answer at once, and prepare the interview afterwards."""
    number = len(service.interviews) + 1
    service.interviews[number] = State()
    background.add_task(service.prepare, number, new)
    return {"number": number}


@router.post("/interviews/{number}/invites", status_code=201)
async def invite(number: int, person: Person, service: TheService) -> CandidateInterview:
    """Invite a person."""
    return await service.invite(number, person)


@router.get("/interviews/{number}")
async def read(number: int, service: TheService) -> State:
    """Show how far the interview is, with the results that came."""
    if number not in service.interviews:
        raise HTTPException(404)
    return service.interviews[number]


async def failed(_: Request, error: Exception) -> JSONResponse:
    """Turn what the client raises into a response; its messages are safe to show."""
    if isinstance(error, QuotaWaitError):  # nothing was sent
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": f"{error.wait:.0f}"})
    status = 422 if isinstance(error, InvalidRequestError) else 502
    return JSONResponse({"detail": str(error)}, status)


def make_app(gather: GatherClient | None = None, hooks: WebhookReceiver | None = None) -> FastAPI:
    """Return the application. Tests pass a client and a receiver of their own."""
    receiver = hooks or WebhookReceiver(os.environ["GATHER_WEBHOOK_SECRET"])
    client = gather or GatherClient(signals=receiver, max_wait=5.0)
    service = Service(client)
    receiver.on("candidate_interview.completed")(service.completed)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client, receiver:  # the handlers end before the client does
            yield

    app = FastAPI(lifespan=lifespan, exception_handlers={GatherError: failed})
    app.state.service = service
    app.include_router(router)
    app.add_route("/webhooks/gather", receiver.asgi())
    return app
