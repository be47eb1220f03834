"""What time does in FakeGather: audio, summaries, quota, latency, webhook deliveries."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gather_async.protocol.rolling_windows import RateLimit
from gather_async.testing import AudioWords, FakeGather, VirtualClock

Call = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[FakeGather, Call]]:
    """A server, and a function that sends a request and returns status and body."""
    async with FakeGather(**options) as fake:
        headers = {"x-api-key": fake.api_key}
        async with aiohttp.ClientSession(fake.base_url, headers=headers) as session:

            async def call(method: str, path: str, **kwargs: Any) -> Any:
                async with session.request(method, f"/qsi/gather/{path}", **kwargs) as response:
                    return response, await response.json()

            yield fake, call


async def ask(call: Call, fake: FakeGather, **fields: Any) -> dict[str, Any]:
    """Create a question; returns it."""
    body = {"userId": fake.user_id, "title": "a", "questionScript": "b"} | fields
    _, answer = await call("POST", "questions", json=body)
    question: dict[str, Any] = answer["data"]["question"]
    return question


async def read(call: Call, question: dict[str, Any]) -> dict[str, Any]:
    """Read a question again."""
    _, answer = await call("GET", f"questions/{question['id']}")
    again: dict[str, Any] = answer["data"]["question"]
    return again


async def test_audio_is_generated_in_its_time() -> None:
    """A question is processing without audio, until exactly ``audio_seconds`` have passed."""
    clock = VirtualClock()
    async with serving(clock=clock, audio_seconds=30.0) as (fake, call):
        question = await ask(call, fake)
        assert (question["transcriptionStatus"], question["audioURL"]) == ("processing", None)
        await clock.sleep(29.0)
        assert (await read(call, question))["transcriptionStatus"] == "processing"
        await clock.sleep(1.0)
        ready = await read(call, question)
        assert ready["transcriptionStatus"] == "complete"
        assert ready["audioURL"].startswith("https://")


async def test_audio_fails_for_chosen_titles() -> None:
    """``fail_audio_for`` ends generation in ``error``, without audio."""
    clock = VirtualClock()
    async with serving(clock=clock, fail_audio_for={"bad"}) as (fake, call):
        bad, good = await ask(call, fake, title="bad"), await ask(call, fake, title="good")
        await clock.sleep(1.0)
        failed = await read(call, bad)
        assert (failed["transcriptionStatus"], failed["audioURL"]) == ("error", None)
        assert (await read(call, good))["transcriptionStatus"] == "complete"


async def test_audio_ends_when_the_test_says_so() -> None:
    """``finish_audio`` and ``fail_audio`` override the time and the end of one question."""
    clock = VirtualClock()
    async with serving(clock=clock, audio_seconds=float("inf")) as (fake, call):
        first, second, third = [await ask(call, fake) for _ in range(3)]
        fake.finish_audio(first["id"])
        fake.fail_audio(second["id"], after=5.0)
        states = [(await read(call, each))["transcriptionStatus"] for each in (first, second)]
        assert states == ["complete", "processing"]
        await clock.sleep(5.0)
        assert (await read(call, second))["transcriptionStatus"] == "error"
        assert (await read(call, third))["transcriptionStatus"] == "processing"


async def test_the_words_of_the_state_can_be_chosen() -> None:
    """They are documented nowhere, so a client must bear others."""
    words = AudioWords("queued", "done", "broken")
    async with serving(audio_words=words, audio_seconds=float("inf")) as (fake, call):
        question = await ask(call, fake)
        assert question["transcriptionStatus"] == "queued"
        fake.finish_audio(question["id"])
        assert (await read(call, question))["transcriptionStatus"] == "done"
        fake.fail_audio(question["id"])
        assert (await read(call, question))["transcriptionStatus"] == "broken"


async def test_audio_can_be_given_instead_of_generated() -> None:
    """``generateAudio`` false leaves the state null; a given ``audioURL`` is kept throughout."""
    async with serving(audio_seconds=0.0) as (fake, call):
        url = "https://example.com/a.mp3"
        own = await ask(call, fake, audioURL=url, generateAudio=False)
        assert (own["transcriptionStatus"], own["audioURL"]) == (None, url)
        sample = await ask(call, fake, audioURL=url)  # as the quickstart sends it
        assert sample["transcriptionStatus"] == "complete"
        assert sample["audioURL"] == url


async def test_each_question_can_take_its_own_time() -> None:
    """``audio_seconds`` may draw a time for each question."""
    clock, times = VirtualClock(), iter([10.0, 20.0])
    async with serving(clock=clock, audio_seconds=lambda: next(times)) as (fake, call):
        await ask(call, fake)
        await ask(call, fake)
        await clock.sleep(15.0)
        states = [question["transcriptionStatus"] for question in fake.questions]
        assert states == ["complete", "processing"]


async def test_the_summary_follows_the_candidate() -> None:
    """Results go from processing to complete, or to error, some time after the candidate's end."""
    clock = VirtualClock()
    async with serving(clock=clock, summary_seconds=60.0) as (fake, call):
        first, second = await invite_two(fake, call)
        fake.complete_interview(first)
        fake.complete_interview(second, summary_fails=True)
        _, answer = await call("GET", f"candidate-interviews/{first}")
        assert answer["data"]["status"] == "new_response"
        _, answer = await call("GET", f"candidate-interviews/{first}/results")
        assert answer["data"] == {
            "summary": None,
            "summaryStatus": "processing",
            "scoreCard": None,
        }
        await clock.sleep(60.0)
        _, answer = await call("GET", f"candidate-interviews/{first}/results")
        assert answer["data"]["summaryStatus"] == "complete"
        assert answer["data"]["summary"]
        assert answer["data"]["scoreCard"] == {"evaluationType": "ai_generated"}
        _, answer = await call("GET", f"candidate-interviews/{second}/results")
        assert answer["data"]["summaryStatus"] == "error"
        assert answer["data"]["summary"] is None


async def test_results_may_be_missing_before_the_end() -> None:
    """With ``early_results="missing"`` they are 404 until the candidate finished."""
    async with serving(early_results="missing", summary_seconds=0.0) as (fake, call):
        link, _ = await invite_two(fake, call)
        response, _ = await call("GET", f"candidate-interviews/{link}/results")
        assert response.status == 404
        fake.complete_interview(link)
        response, answer = await call("GET", f"candidate-interviews/{link}/results")
        assert (response.status, answer["data"]["summaryStatus"]) == (200, "complete")


async def invite_two(fake: FakeGather, call: Call) -> list[str]:
    """Invite two candidates; returns the candidate interviews' ids."""
    _, made = await call("POST", "interviews", json={"title": "a", "interviewType": "standard"})
    links = []
    for person in fake.add_candidates(2):
        pair = {"candidateId": person, "interviewId": made["data"]["id"]}
        body = pair | {"sendInvite": True, "deliveryTypes": ["sms"]}
        _, answer = await call("POST", "candidate-interviews", json=body)
        links.append(answer["data"]["id"])
    return links


async def test_both_windows_hold_on_the_servers_clock() -> None:
    """3 in 10 s and 4 in 100 s: the fourth waits for the one, the fifth for the other."""
    clock = VirtualClock()
    limits = [RateLimit(3, per=10), RateLimit(4, per=100)]
    async with serving(clock=clock, rate_limits=limits) as (_, call):
        for left in (2, 1, 0):
            response, _ = await call("GET", "narrators")
            assert response.headers["X-RateLimit-Remaining"] == str(left)
        response, answer = await call("GET", "narrators")
        assert response.status == 429
        assert answer["error"]["details"]["limit"] == 3
        assert int(response.headers["X-RateLimit-Reset"]) == clock.wall() + 10
        await clock.sleep(10.0)
        response, _ = await call("GET", "narrators")
        assert (response.status, response.headers["X-RateLimit-Limit"]) == (200, "4")
        response, answer = await call("GET", "narrators")
        assert (response.status, answer["error"]["details"]["limit"]) == (429, 4)
        await clock.sleep(89.0)
        assert (await call("GET", "narrators"))[0].status == 429
        await clock.sleep(1.0)
        assert (await call("GET", "narrators"))[0].status == 200


async def test_without_limits_no_headers_are_sent() -> None:
    """A server without limits sends no ``X-RateLimit-*``; one with limits does on every answer."""
    async with serving() as (_, call):
        response, _ = await call("GET", "narrators")
        assert not [name for name in response.headers if name.startswith("X-RateLimit")]
    async with serving(rate_limits=[RateLimit(5, per=60)]) as (fake, call):
        fake.html_next(path="*/teams")
        seen = [(await call("GET", path))[0] for path in ("narrators", "nowhere")]
        seen.append((await call("GET", "users", headers={"x-api-key": "qapi_wrong"}))[0])
        statuses = [(each.status, each.headers["X-RateLimit-Remaining"]) for each in seen]
        assert statuses == [(200, "4"), (404, "3"), (401, "3")]


async def test_latency_is_drawn_and_seeded() -> None:
    """Every exchange takes a time between the bounds, and a seed repeats it."""
    runs = []
    for _ in range(2):
        clock = VirtualClock()
        async with serving(clock=clock, seed=9) as (fake, call):
            fake.set_latency(0.02, 0.4)
            taken = []
            for _ in range(20):
                started = clock.monotonic()
                await call("GET", "narrators")
                taken.append(clock.monotonic() - started)
        runs.append(taken)
        assert all(0.0199 <= each <= 0.4001 for each in taken)
    assert runs[0] == pytest.approx(runs[1])
    assert max(runs[0]) - min(runs[0]) > 0.1


@asynccontextmanager
async def receiving(
    answer: Callable[[int], Awaitable[web.StreamResponse]],
) -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """A webhook endpoint on loopback; gives its URL and what arrives: signature and body."""
    arrived: list[tuple[str, bytes]] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        arrived.append((request.headers["X-Qualifi-Signature"], await request.read()))
        return await answer(len(arrived))

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hooks", arrived
    finally:
        await runner.cleanup()


async def accept(_: int) -> web.StreamResponse:
    """Answer 200."""
    return web.Response()


async def test_deliveries_are_signed() -> None:
    """The header is the HMAC of its timestamp, a full stop and the very bytes that are sent."""
    clock = VirtualClock(wall=1_700_000_000.0)
    async with receiving(accept) as (url, arrived), serving(clock=clock) as (fake, call):
        target = await fake.send_webhook_to(url, "sécret")
        await call("POST", "interviews", json={"title": "é", "interviewType": "standard"})
        await target.wait_until_settled()
    [(header, body)] = arrived
    signed = b"1700000000." + body
    digest = hmac.new("sécret".encode(), signed, hashlib.sha256).hexdigest()
    assert header == f"t=1700000000,v1={digest}"
    event = json.loads(body)
    assert event["event"] == "interview.created"
    assert event["data"] == {"interviewId": fake.interviews[0]["id"]}
    assert "sécret" not in repr(target)
    assert [(each.attempt, each.status) for each in target.deliveries] == [(1, 200)]


@pytest.mark.parametrize("fresh", [True, False])
async def test_a_refused_delivery_is_tried_three_times(fresh: bool) -> None:
    """At once, after 1 minute, after 5 more; the same bytes, signed anew if so configured."""
    clock = VirtualClock()

    async def refuse(_: int) -> web.StreamResponse:
        return web.Response(status=503)

    async with receiving(refuse) as (url, arrived), serving(clock=clock) as (fake, call):
        target = fake.send_webhook_to(url, "secret", fresh_signatures=fresh)
        started = clock.wall()
        await call("POST", "interviews", json={"title": "a", "interviewType": "standard"})
        await target.wait_until_settled()
    assert [each.at - started for each in target.deliveries] == [0.0, 60.0, 360.0]
    assert not any(each.was_accepted for each in target.deliveries)
    assert len({body for _, body in arrived}) == 1
    assert len({header for header, _ in arrived}) == (3 if fresh else 1)


async def test_a_slow_receiver_is_given_up_after_five_seconds() -> None:
    """No answer within 5 s counts as a failed attempt; the next one may succeed."""
    clock = VirtualClock()

    async def slow_at_first(count: int) -> web.StreamResponse:
        await clock.sleep(5.5 if count == 1 else 4.5)
        return web.Response()

    async with receiving(slow_at_first) as (url, _), serving(clock=clock) as (fake, call):
        target = fake.send_webhook_to(url, "secret")
        started = clock.wall()
        await call("POST", "interviews", json={"title": "a", "interviewType": "standard"})
        await target.wait_until_settled()
    assert [each.status for each in target.deliveries] == [None, 200]
    assert target.deliveries[1].at - started == 65.0


async def test_audio_events_come_when_the_audio_is_ready() -> None:
    """Once for each question, also for one begun before anybody listened; none for a failure."""
    clock = VirtualClock()
    async with receiving(accept) as (url, arrived), serving(clock=clock) as (fake, call):
        early, bad, late = [await ask(call, fake) for _ in range(3)]
        fake.fail_audio(bad["id"], after=1.0)
        target = fake.send_webhook_to(url, "secret", events=["question.audio_generated"])
        fake.send_webhook_to(url, "secret", events=["interview.updated"])
        fake.finish_audio(late["id"], after=30.0)
        fake.complete_interview((await invite_two(fake, call))[0])
        await clock.sleep(31.0)
        await target.wait_until_settled()
    ids = [json.loads(body)["data"]["questionId"] for _, body in arrived]
    assert ids == [early["id"], late["id"]]
    assert [each.at for each in target.deliveries] == sorted(each.at for each in target.deliveries)


async def test_closing_stops_timers_and_starting_sets_them_again() -> None:
    """A closed server holds no timer; audio still being made is announced after a restart."""
    clock = VirtualClock(autojump=False)
    async with (
        receiving(accept) as (url, arrived),
        serving(clock=clock, audio_seconds=60.0) as (fake, call),
    ):
        target = fake.send_webhook_to(url, "secret")
        question = await ask(call, fake)
        assert clock.sleepers == 1
        await fake.aclose()
        assert clock.sleepers == 0
        await fake.start()
        await clock.advance(60.0)
        await target.wait_until_settled()
        assert [json.loads(body)["data"] for _, body in arrived] == [{"questionId": question["id"]}]


async def test_an_unreachable_receiver_is_a_failed_attempt() -> None:
    """A refused connection is tried three times like any other failure."""
    async with receiving(accept) as (url, _):
        pass
    async with serving(clock=VirtualClock()) as (fake, call):
        target = fake.send_webhook_to(url, "secret")
        await call("POST", "interviews", json={"title": "a", "interviewType": "standard"})
        await target.wait_until_settled()
    assert [each.status for each in target.deliveries] == [None, None, None]


async def test_closing_gives_up_deliveries() -> None:
    """A delivery in progress, and one between attempts, end with the server; no task is left."""
    before = asyncio.all_tasks()
    stuck, release = asyncio.Event(), asyncio.Event()

    async def never(count: int) -> web.StreamResponse:
        if count == 1:
            return web.Response(status=500)
        stuck.set()
        await release.wait()
        return web.Response()

    async with receiving(never) as (url, _):
        async with serving() as (fake, call):
            target = fake.send_webhook_to(url, "secret")
            for _ in range(2):
                await call("POST", "interviews", json={"title": "a", "interviewType": "standard"})
            await stuck.wait()
        await target.wait_until_settled()
        release.set()
    assert asyncio.all_tasks() == before
