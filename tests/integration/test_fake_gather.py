"""FakeGather's life, its log of requests, and its faults, seen by a bare HTTP client."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gather_async.errors import ConfigurationError
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.testing import FakeGather, VirtualClock

CANDIDATES = "/qsi/gather/candidates"
PERSON = {
    "firstName": "Ann",
    "lastName": "Lee",
    "email": "ann@example.com",
    "phone": "+12025550123",
    "externalId": "crm-1",
}


@asynccontextmanager
async def session_of(fake: FakeGather) -> AsyncIterator[aiohttp.ClientSession]:
    """A bare session with the server's key."""
    headers = {"x-api-key": fake.api_key}
    async with aiohttp.ClientSession(fake.base_url, headers=headers) as session:
        yield session


async def post(session: aiohttp.ClientSession, body: Any = PERSON) -> tuple[int, bytes]:
    """Create a candidate; POST is never sent again by aiohttp itself."""
    async with session.post(CANDIDATES, json=body) as response:
        return response.status, await response.read()


async def test_it_lives_on_a_port_of_its_own(fake_gather: FakeGather) -> None:
    """Two servers have two ports, on loopback only, and keys of the documented form."""
    async with FakeGather(seed=1) as other:
        assert other.base_url != fake_gather.base_url
        assert other.base_url.startswith("http://127.0.0.1:")
        assert other.api_key.startswith("qapi_")
        assert other.api_key != fake_gather.api_key


async def test_a_seed_repeats_everything() -> None:
    """The same requests to the same seed make the same key and the same ids."""
    seen = []
    for seed in (5, 5, 6):
        async with FakeGather(seed=seed) as fake, session_of(fake) as session:
            _, body = await post(session)
            seen.append((fake.api_key, json.loads(body)["data"]["id"]))
    assert seen[0] == seen[1]
    assert seen[0][0] != seen[2][0]
    assert seen[0][1] != seen[2][1]


async def test_a_restart_keeps_port_and_state() -> None:
    """Closing looks like an outage: the address stays, and nothing is forgotten."""
    fake = FakeGather()
    with pytest.raises(RuntimeError, match="async with"):
        _ = fake.base_url
    async with fake, session_of(fake) as session:
        base_url = fake.base_url
        assert (await post(session))[0] == 201
        await fake.aclose()
        await fake.aclose()
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(session)
        await fake.start()
        await fake.start()
        assert fake.base_url == base_url
        assert (await post(session))[0] == 201
    assert len(fake.candidates) == 2


async def test_a_taken_port_is_refused_without_leaks() -> None:
    """Starting on another server's port raises OSError and leaves nothing open."""
    async with FakeGather() as fake:
        port = int(fake.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            await FakeGather(port=port).start()


async def test_closing_does_not_wait_for_slow_answers() -> None:
    """Answers that would take for ever are cut, at once, and no task is left."""
    before = asyncio.all_tasks()
    fake = await FakeGather().start()
    fake.slow_next(float("inf"), times=20)
    async with session_of(fake) as session:
        calls = [asyncio.create_task(post(session)) for _ in range(20)]
        await fake.wait_for_requests(20)
        started = time.monotonic()
        await fake.aclose()
        took = time.monotonic() - started
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, aiohttp.ClientConnectionError) for result in results)
    assert took < 1.0
    assert asyncio.all_tasks() == before
    assert len(fake.candidates) == 20


async def test_closing_does_not_wait_for_half_a_request() -> None:
    """A connection that never sends its whole body is cut as well, and no task is left."""
    before = asyncio.all_tasks()
    async with FakeGather() as fake:
        port = int(fake.base_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /qsi/gather/candidates HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
        )
        await writer.drain()
        async with session_of(fake) as session:
            assert (await post(session))[0] == 201
        started = time.monotonic()
    assert time.monotonic() - started < 1.0
    assert asyncio.all_tasks() == before
    assert await reader.read() == b""
    writer.close()


async def test_requests_are_logged_without_the_key(fake_gather: FakeGather) -> None:
    """The log has method, path, query, body, headers, time and answer, and not the key."""
    async with session_of(fake_gather) as session:
        await post(session)
        async with session.get(CANDIDATES, params={"externalId": "crm-1"}) as response:
            await response.read()
        async with session.get("/qsi/gather/a%2Fb") as response:
            await response.read()
    created, listed, nowhere = fake_gather.requests
    assert (created.method, created.path, created.status) == ("POST", CANDIDATES, 201)
    assert created.json == PERSON
    assert created.was_processed
    assert listed.query == {"externalId": ["crm-1"]}
    assert (listed.json, listed.status) == (None, 200)
    assert (nowhere.path, nowhere.status) == ("/qsi/gather/a%2Fb", 404)
    assert not nowhere.was_processed
    assert created.headers["content-type"] == "application/json"
    assert created.at <= listed.at <= nowhere.at
    for request in fake_gather.requests:
        assert "x-api-key" not in request.headers
        assert fake_gather.api_key not in repr(vars_of(request))
        assert "ann@example.com" not in repr(request)


def vars_of(request: Any) -> list[Any]:
    """All values of a slotted record."""
    return [getattr(request, name) for name in request.__slots__ if not name.startswith("__")]


async def test_requests_in_progress_are_in_the_log(fake_gather: FakeGather) -> None:
    """A request is seen when it arrives, before it is answered; waiting can be cancelled."""
    fake_gather.slow_next(float("inf"))
    async with session_of(fake_gather) as session:
        call = asyncio.create_task(post(session))
        await fake_gather.wait_for_requests(1, path="*/candidates", method="post")
        assert fake_gather.requests[0].status is None
        waiting = asyncio.create_task(fake_gather.wait_for_requests(1, method="DELETE"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def test_the_log_can_be_started_anew(fake_gather: FakeGather) -> None:
    """After ``clear_requests`` only later requests are there, whatever was in progress."""
    fake_gather.slow_next(float("inf"))
    async with session_of(fake_gather) as session:
        early = asyncio.create_task(post(session))
        await fake_gather.wait_for_requests(1)
        fake_gather.clear_requests()
        assert not fake_gather.requests
        assert (await post(session))[0] == 201
        await fake_gather.aclose()
        await asyncio.gather(early, return_exceptions=True)
    assert [request.status for request in fake_gather.requests] == [201]


async def test_an_error_status_is_answered_as_often_as_asked(fake_gather: FakeGather) -> None:
    """``fail_next`` fails the next requests of that path, and carries none of them out."""
    fake_gather.fail_next(status=500, times=2, path=CANDIDATES)
    async with session_of(fake_gather) as session:
        async with session.get("/qsi/gather/narrators") as response:
            assert response.status == 200
        statuses = [(await post(session))[0] for _ in range(3)]
    assert statuses == [500, 500, 201]
    assert len(fake_gather.candidates) == 1
    assert [request.was_processed for request in fake_gather.requests] == [True, False, False, True]


async def test_an_error_may_hide_a_success(fake_gather: FakeGather) -> None:
    """With ``after_processing``, the error is answered and the request carried out."""
    fake_gather.fail_next(502, after_processing=True, headers={"Retry-After": "3"}, code="BAD")
    async with session_of(fake_gather) as session, session.post(CANDIDATES, json=PERSON) as answer:
        assert answer.status == 502
        assert answer.headers["Retry-After"] == "3"
        assert (await answer.json())["error"]["code"] == "BAD"
    assert len(fake_gather.candidates) == 1
    assert fake_gather.requests[0].was_processed


async def test_a_refusal_over_quota_can_be_asked_for(fake_gather: FakeGather) -> None:
    """``fail_next(429)`` looks like the documented refusal, without any limits configured."""
    fake_gather.fail_next(429, headers={"Retry-After": "1"})
    async with session_of(fake_gather) as session:
        status, body = await post(session)
    details = json.loads(body)["error"]["details"]
    assert status == 429
    assert details.keys() == {"limit", "remaining", "resetAt"}


async def test_a_read_with_a_body_is_refused(fake_gather: FakeGather) -> None:
    """No documented GET has a body, so one is a mistake of the client."""
    body = {"page": 1}
    async with session_of(fake_gather) as session, session.get(CANDIDATES, json=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["details"]["field"] == "body"


@pytest.mark.parametrize("after_processing", [True, False])
async def test_an_answer_can_be_lost(after_processing: bool) -> None:
    """``drop_next`` cuts the connection, before or after the request is carried out."""
    async with FakeGather() as fake, session_of(fake) as session:
        fake.drop_next(after_processing=after_processing)
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(session)
        assert len(fake.candidates) == after_processing
        request = fake.requests[0]
        assert request.status is None
        assert request.was_processed is after_processing
        assert request.fault == f"cut {'after' if after_processing else 'before'} processing"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "questions"),
        ("POST", "interviews"),
        ("PATCH", "interviews/bulk-update"),
        ("POST", "candidates"),
        ("POST", "candidate-interviews"),
        ("PATCH", "candidate-interviews/{id}/status"),
        ("POST", "candidate-interviews/{id}/resend-invite"),
        ("POST", "teams"),
        ("POST", "users"),
    ],
)
async def test_every_write_can_lose_its_answer(method: str, path: str) -> None:
    """A write of any operation is carried out once although its answer is cut off."""
    async with FakeGather() as fake, session_of(fake) as session:

        async def call(method: str, path: str, body: Any) -> Any:
            async with session.request(method, f"/qsi/gather/{path}", json=body) as response:
                return (await response.json())["data"]

        interview = await call("POST", "interviews", {"title": "a", "interviewType": "standard"})
        person = fake.add_candidates(1)[0]
        pair = {"candidateId": person, "interviewId": interview["id"]}
        link = await call("POST", "candidate-interviews", pair)
        user = {"firstName": "a", "lastName": "b", "email": "a@b.c", "teamIds": [fake.team_id]}
        bodies: dict[str, Any] = {
            "questions": {"userId": fake.user_id, "title": "a", "questionScript": "b"},
            "interviews": {"title": "b", "interviewType": "standard"},
            "interviews/bulk-update": {"interviewIds": [interview["id"]], "title": "new"},
            "candidates": PERSON,
            "candidate-interviews": pair | {"sendInvite": True, "deliveryTypes": ["email"]},
            "candidate-interviews/{id}/status": {"status": "hired"},
            "candidate-interviews/{id}/resend-invite": {"deliveryTypes": ["email"]},
            "teams": {"teams": [{"name": "b"}]},
            "users": {"users": [user]},
        }
        fake.drop_next(method=method)
        with pytest.raises(aiohttp.ClientConnectionError):
            await call(method, path.replace("{id}", link["id"]), bodies[path])
        assert fake.requests[-1].was_processed
        assert fake.requests[-1].status is None
        assert fake.invites.total() == (1 if bodies[path].get("deliveryTypes") else 0)
        assert len(fake.questions) == (path == "questions")
        assert len(fake.interviews) == 1 + (path == "interviews")
        assert (fake.interviews[0]["title"] == "new") == path.endswith("update")
        assert (fake.candidate_interviews[0]["status"] == "hired") == path.endswith("status")


async def test_an_answer_can_be_cut_in_half(fake_gather: FakeGather) -> None:
    """``truncate_next`` announces the whole length, sends half, and has done the work."""
    fake_gather.truncate_next()
    async with session_of(fake_gather) as session:
        with pytest.raises(aiohttp.ClientPayloadError):
            await post(session)
    assert len(fake_gather.candidates) == 1
    assert fake_gather.requests[0].status == 201


async def test_an_answer_can_be_a_proxys_page(fake_gather: FakeGather) -> None:
    """``html_next`` answers HTML, which no JSON client can read."""
    fake_gather.html_next()
    async with session_of(fake_gather) as session, session.post(CANDIDATES, json=PERSON) as answer:
        assert (answer.status, answer.content_type) == (503, "text/html")
        assert (await answer.read()).startswith(b"<!DOCTYPE html>")
    assert not fake_gather.candidates


@pytest.mark.parametrize("after_processing", [True, False])
async def test_an_answer_can_be_late(after_processing: bool) -> None:
    """``slow_next`` answers rightly after that time on the server's clock."""
    clock = VirtualClock()
    async with FakeGather(clock=clock) as fake, session_of(fake) as session:
        fake.slow_next(90.0, after_processing=after_processing)
        started = clock.monotonic()
        created = asyncio.create_task(post(session))
        await fake.wait_for_requests(1)
        assert len(fake.candidates) == after_processing
        assert (await created)[0] == 201
        assert clock.monotonic() - started == 90.0
        assert len(fake.candidates) == 1


async def test_chaos_is_repeatable_and_counted() -> None:
    """One seed breaks the same requests each time, and the log says how many were done."""
    runs = []
    for _ in range(2):
        async with FakeGather(seed=3) as fake, session_of(fake) as session:
            fake.chaos(errors_500=0.1, html_503=0.1, cut_before=0.1, cut_after=0.2, truncated=0.1)
            for _ in range(60):
                try:
                    await post(session)
                except aiohttp.ClientError:
                    continue
            runs.append([(request.status, request.fault) for request in fake.requests])
            assert len(fake.candidates) == sum(each.was_processed for each in fake.requests)
            fake.clear_faults()
            assert (await post(session))[0] == 201
    assert runs[0] == runs[1]
    assert {status for status, _ in runs[0]} == {None, 201, 500, 503}


async def test_faults_use_quota() -> None:
    """A request that goes wrong has arrived, so it counts against the windows."""
    async with (
        FakeGather(clock=VirtualClock(), rate_limits=[RateLimit(2, per=60)]) as fake,
        session_of(fake) as session,
    ):
        fake.fail_next(500)
        fake.drop_next(after_processing=False)
        assert (await post(session))[0] == 500
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(session)
        assert (await post(session))[0] == 429


@pytest.mark.parametrize(
    "wrong",
    [
        lambda fake: fake.fail_next(200),
        lambda fake: fake.fail_next(times=0),
        lambda fake: fake.html_next(100),
        lambda fake: fake.slow_next(-1),
        lambda fake: fake.drop_next(path="candidates"),
        lambda fake: fake.chaos(cut_after=1.5),
        lambda fake: fake.set_latency(2, 1),
        lambda fake: fake.send_webhook_to("http://127.0.0.1:1/", ""),
        lambda fake: fake.send_webhook_to("http://127.0.0.1:1/", "s", events=["x"]),
    ],
)
def test_senseless_arguments_are_refused(wrong: Any) -> None:
    """A value that can't work raises at once, before anything is changed."""
    fake = FakeGather()
    with pytest.raises(ConfigurationError):
        wrong(fake)


@pytest.mark.parametrize(
    "options",
    [
        {"created_status": 404},
        {"api_key": " "},
        {"edition": "C"},
        {"questions_list": "gone"},
        {"headers_describe": "both"},
        {"early_results": "soon"},
        {"questions_page_size": 0},
        {"duplicate_status": 200},
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    """An option with a value that it can't have is refused at construction, by name."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        FakeGather(**options)


async def test_unknown_objects_are_named() -> None:
    """Controls of an object that isn't there raise KeyError with its id."""
    fake = FakeGather()
    for control in (fake.finish_audio, fake.fail_audio, fake.complete_interview, fake.archive):
        with pytest.raises(KeyError, match="absent"):
            control("absent")


async def test_hundreds_of_connections_at_once(fake_gather: FakeGather) -> None:
    """300 connections opened in one tick are all served."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    headers = {"x-api-key": fake_gather.api_key}
    async with aiohttp.ClientSession(
        fake_gather.base_url, headers=headers, connector=connector
    ) as session:
        answers = await asyncio.gather(*(post(session) for _ in range(300)))
    assert {status for status, _ in answers} == {201}


def test_its_repr_shows_state_and_no_key() -> None:
    """``repr`` tells edition and state, and can be published."""
    fake = FakeGather(edition="B")
    assert repr(fake) == "<FakeGather edition B, not listening, 0 requests>"
    assert fake.api_key not in repr(fake)
