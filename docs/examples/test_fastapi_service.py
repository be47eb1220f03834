"""A test suite: the FastAPI service against a fake of the API, without waiting or patching.

With `pip install 'gather-async' fastapi httpx pytest pytest-asyncio`, beside the service:

    python -m pytest -q test_fastapi_service.py -o asyncio_mode=auto

No server has to be started: `FakeGather` runs inside the tests, on a clock that jumps.
"""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from fastapi_service import make_app

from gather_async import GatherClient
from gather_async.testing import FakeGather, VirtualClock
from gather_async.webhooks import WebhookReceiver, sample

SECRET = "whsec_test"
INTERVIEW = {"title": "Engineer", "scripts": ["Tell me about yourself.", "Why this job?"]}
ADA = {
    "first_name": "Ada",
    "last_name": "Doe",
    "email": "ada@example.com",
    "phone": "+12025550123",
}


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeGather]:
    """The API; audio takes half a minute, and no time passes but on its clock."""
    async with FakeGather(audio_seconds=30.0, clock=VirtualClock()) as fake:
        yield fake


@pytest_asyncio.fixture
async def browser(fake: FakeGather) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of the service, which runs for the length of a test."""
    hooks = WebhookReceiver(SECRET)
    gather: GatherClient = fake.client(signals=hooks)
    app = make_app(gather, hooks)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service.invalid") as browser,
    ):
        yield browser


async def completed(browser: httpx.AsyncClient, invite_id: str) -> httpx.Response:
    """Deliver the webhook that the API sends when a candidate has finished."""
    data = {"candidateInterviewId": invite_id}
    delivery = sample("candidate_interview.completed", secret=SECRET, data=data)
    return await browser.post("/webhooks/gather", content=delivery.body, headers=delivery.headers)


@pytest.mark.asyncio
async def test_from_texts_to_results(fake: FakeGather, browser: httpx.AsyncClient) -> None:
    """An interview is made of texts, a person is invited, and the results arrive."""
    # This transport returns when the background task has ended: the audio is ready by then.
    assert (await browser.post("/interviews", json=INTERVIEW)).status_code == 202
    invite = (await browser.post("/interviews/1/invites", json=ADA)).json()
    assert fake.invites_by_person == {"person-ada@example.com": 1}

    fake.complete_interview(invite["id"])
    assert (await completed(browser, invite["id"])).status_code == 200
    await fake.clock.sleep(5.0)  # the handler waits for the summary
    state = (await browser.get("/interviews/1")).json()
    assert state["results"][invite["id"]]["summary_status"] == "complete"


@pytest.mark.asyncio
async def test_nobody_is_invited_twice(fake: FakeGather, browser: httpx.AsyncClient) -> None:
    """A second request for the same person returns the first one's invite."""
    await browser.post("/interviews", json=INTERVIEW)
    first = (await browser.post("/interviews/1/invites", json=ADA)).json()
    again = (await browser.post("/interviews/1/invites", json=ADA)).json()
    assert again["id"] == first["id"]
    assert fake.invites.total() == 1


@pytest.mark.asyncio
async def test_a_lost_response_makes_no_second_invite(
    fake: FakeGather, browser: httpx.AsyncClient
) -> None:
    """The API carries the invite out and its response is lost: the client looks it up."""
    await browser.post("/interviews", json=INTERVIEW)
    fake.drop_next(method="POST", path="/qsi/gather/candidate-interviews")
    assert (await browser.post("/interviews/1/invites", json=ADA)).status_code == 201
    assert fake.invites.total() == 1


@pytest.mark.asyncio
async def test_a_wrong_number_is_the_callers_mistake(browser: httpx.AsyncClient) -> None:
    """A phone number that can't be one is refused with 422, and isn't repeated."""
    await browser.post("/interviews", json=INTERVIEW)
    reply = await browser.post("/interviews/1/invites", json={**ADA, "phone": "555-0123"})
    assert reply.status_code == 422
    assert "555" not in reply.text


@pytest.mark.asyncio
async def test_a_failing_api_is_a_bad_gateway(fake: FakeGather, browser: httpx.AsyncClient) -> None:
    """What the API refuses for good is answered with 502."""
    await browser.post("/interviews", json=INTERVIEW)
    fake.revoke_key()
    assert (await browser.post("/interviews/1/invites", json=ADA)).status_code == 502


@pytest.mark.asyncio
async def test_a_forged_webhook_is_refused(browser: httpx.AsyncClient) -> None:
    """A delivery that is signed with another secret is answered with 401."""
    delivery = sample("candidate_interview.completed", secret="another")
    reply = await browser.post("/webhooks/gather", content=delivery.body, headers=delivery.headers)
    assert reply.status_code == 401
