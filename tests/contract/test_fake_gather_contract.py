"""Every answer of FakeGather against the OpenAPI document, in both editions."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gather_async.protocol.rolling_windows import RateLimit
from gather_async.testing import FakeGather, VirtualClock

EDITIONS = pytest.mark.parametrize("edition", ["A", "B"])


class CheckedHTTP:
    """A bare HTTP client that checks each answer, and knows which operations it has seen."""

    def __init__(self, session: aiohttp.ClientSession, contract: Any) -> None:
        self._session = session
        self._contract = contract
        self.seen: set[tuple[str, int]] = set()

    async def __call__(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> tuple[int, Any]:
        """Return status and body of an answer that is as documented."""
        path = f"/qsi/gather/{path}"
        name = self._contract.find(method, path)
        async with self._session.request(method, path, headers=headers, **kwargs) as response:
            body = json.loads(await response.read())
            self._contract.check_answer(name, response.status, response.headers, body)
            self.seen.add((name, response.status))
            return response.status, body

    async def good(self, method: str, path: str, **kwargs: Any) -> Any:
        """Return ``data`` of an answer that must be a success."""
        status, body = await self(method, path, **kwargs)
        assert 200 <= status < 300, body
        return body["data"]

    async def bad(self, status: int, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        """Return ``error`` of an answer that must have this status."""
        got, body = await self(method, path, **kwargs)
        assert got == status, body
        error: dict[str, Any] = body["error"]
        return error


@asynccontextmanager
async def checked(contract: Any, **options: Any) -> AsyncIterator[tuple[FakeGather, CheckedHTTP]]:
    """A server and a checking client with its key."""
    async with FakeGather(**options) as fake:
        headers = {"x-api-key": fake.api_key}
        async with aiohttp.ClientSession(fake.base_url, headers=headers) as session:
            yield fake, CheckedHTTP(session, contract)


def person(**changes: Any) -> dict[str, Any]:
    """A candidate's body with every documented field."""
    return {
        "firstName": "Ann",
        "lastName": "Lee",
        "email": "ann@example.com",
        "phone": "+12025550123",
        "externalId": "crm-1",
        "timezone": "America/New_York",
        "smsOptIn": True,
    } | changes


async def make_all(fake: FakeGather, http: CheckedHTTP, edition: str) -> dict[str, str]:
    """Create one object of each kind by documented requests; returns their ids."""
    narrators = await http.good("GET", "narrators")
    question = await http.good(
        "POST",
        "questions",
        json={
            "userId": fake.user_id,
            "title": "Strengths",
            "description": "Open question",
            "audioURL": "https://example.com/a.mp3",
            "narratorId": narrators[0]["id"],
            "questionScript": "What are your strengths?",
            "generateAudio": True,
        },
    )
    body = {
        "title": "Engineer",
        "displayName": "Engineer",
        "interviewType": "standard",
        "description": "First round",
        "language": "en",
        "questionIds": [question["question"]["id"]],
    }
    if edition == "B":
        body |= {"surveyQuestions": [{"id": "s-1", "knockout": True}], "keywords": ["python"]}
    interview = await http.good("POST", "interviews", json=body)
    candidate = await http.good("POST", "candidates", json=person())
    ids = {
        "question": question["question"]["id"],
        "interview": (interview if edition == "A" else interview["interview"])["id"],
        "candidate": candidate["id"],
        "narrator": narrators[0]["id"],
    }
    link = await http.good(
        "POST",
        "candidate-interviews",
        json={
            "candidateId": ids["candidate"],
            "interviewId": ids["interview"],
            "sendInvite": True,
            "deliveryTypes": ["email", "sms"],
            "expiryDays": 7,
            "externalRedirectUri": "https://example.com/thanks",
        },
    )
    groups = await http.good("GET", "message-groups")
    return ids | {"link": link["id"], "group": groups["messageGroups"][0]["id"]}


@EDITIONS
async def test_every_documented_operation_succeeds(contract: Any, edition: str) -> None:
    """Each operation but the internal ones is served, and its success is as documented."""
    async with checked(contract, edition=edition) as (fake, http):
        ids = await make_all(fake, http, edition)
        link = f"candidate-interviews/{ids['link']}"
        await http.good("GET", f"questions/{ids['question']}")
        questions = await http.good("GET", "questions", params={"page": "1"})
        await http.good("GET", f"interviews/{ids['interview']}")
        await http.good(
            "GET",
            "interviews",
            params={
                "page": "1",
                "limit": "100",
                "archived": "true",
                "interviewType": "standard",
                "status": "active",
            },
        )
        await http.good(
            "PATCH",
            "interviews/bulk-update",
            json={"interviewIds": [ids["interview"], "absent"], "mode": "merge", "title": "New"},
        )
        await http.good("GET", f"candidates/{ids['candidate']}")
        query = {"page": "1", "pageSize": "100", "archived": "false", "externalId": "crm-1"}
        await http.good("GET", "candidates", params=query)
        await http.good("GET", link)
        query = {"candidateId": ids["candidate"], "interviewId": ids["interview"]}
        query |= {"status": "invite_sent", "page": "1", "limit": "100"}
        assert len(await http.good("GET", "candidate-interviews", params=query)) == 1
        moved = await http.good("PATCH", f"{link}/status", json={"status": "hired"})
        await http.good("GET", f"{link}/results")
        resent = await http.good("POST", f"{link}/resend-invite", json={"deliveryTypes": ["sms"]})
        await http.good("GET", f"narrators/{ids['narrator']}")
        await http.good("GET", f"message-groups/{ids['group']}")
        teams = await http.good("POST", "teams", json={"teams": [{"name": "North"}]})
        await http.good("GET", "teams", params={"userId": fake.user_id})
        user = {"firstName": "Bo", "lastName": "Li", "email": "bo@example.com"}
        user_body = {"users": [user | {"teamIds": [teams["teams"][0]["id"]]}]}
        users = await http.good("POST", "users", json=user_body)
        await http.good("GET", "users", params={"teamId": fake.team_id, "includeTeams": "false"})

        contract.check_schema("Question", questions["questions"][0])
        contract.check_schema("CandidateInterview", moved)
        contract.check_schema("CandidateInterview", resent)
        contract.check_schema("Team", teams["teams"][0])
        contract.check_schema("User", users["users"][0])
        assert {name for name, status in http.seen if status < 300} == contract.public_operations


@EDITIONS
async def test_single_reads_carry_every_documented_property(contract: Any, edition: str) -> None:
    """What the documentation names is there, so that a client can rely on the double."""
    async with checked(contract, edition=edition) as (fake, http):
        ids = await make_all(fake, http, edition)
        question = (await http.good("GET", f"questions/{ids['question']}"))["question"]
        interview = await http.good("GET", f"interviews/{ids['interview']}")
        interview = interview if edition == "A" else interview["interview"]
        group = (await http.good("GET", f"message-groups/{ids['group']}"))["messageGroup"]
        candidate = await http.good("GET", f"candidates/{ids['candidate']}")
        link = await http.good("GET", f"candidate-interviews/{ids['link']}")
        narrator = await http.good("GET", f"narrators/{ids['narrator']}")
        team = (await http.good("GET", "teams"))["teams"][0]

        assert question.keys() == contract.properties("Question")
        assert interview.keys() == contract.properties("Interview")
        assert interview["status"] == ("active" if edition == "A" else 0)
        assert group.keys() == contract.properties("MessageGroup")
        assert group["messages"][0].keys() == contract.properties("Message")
        assert candidate.keys() == contract.properties("Candidate")
        assert link.keys() == contract.properties("CandidateInterview")
        assert narrator.keys() == contract.properties("Narrator")
        assert narrator["voices"][0].keys() == contract.properties("Voice")
        assert team.keys() == contract.properties("Team")


def requests_of(contract: Any, ids: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return each operation's method and a path of existing objects."""
    names = {
        "questionId": ids["question"],
        "interviewId": ids["interview"],
        "candidateId": ids["candidate"],
        "candidateInterviewId": ids["link"],
        "narratorId": ids["narrator"],
        "messageGroupId": ids["group"],
    }
    found = {}
    for name in contract.public_operations:
        method, template = contract.operations[name]
        found[name] = (method, template.format(**names).removeprefix("/qsi/gather/"))
    return found


@EDITIONS
async def test_every_operation_refuses_as_documented(contract: Any, edition: str) -> None:
    """Each operation answers 401, 400, 404 and 500 in the documented envelope."""
    async with checked(contract, edition=edition) as (fake, http):
        requests = requests_of(contract, await make_all(fake, http, edition))
        for name, (method, path) in requests.items():
            error = await http.bad(401, method, path, headers={"x-api-key": "qapi_wrong"})
            assert error["code"] == "UNAUTHORIZED"
            assert "details" not in error
            error = await http.bad(400, method, path, params={"invented": "1"})
            assert error["code"] == "VALIDATION_ERROR"
            assert error["details"].keys() == {"field", "reason"}
            if method != "GET":
                error = await http.bad(400, method, path, json={"invented": 1})
                assert error["details"]["field"] != "body"
                error = await http.bad(400, method, path, data=b'{"title": ')
                assert error["details"]["field"] == "body"
            fake.fail_next(500)
            error = await http.bad(500, method, path)
            assert error["code"] == "INTERNAL_ERROR"
            if "{" in contract.operations[name][1]:
                head, _, tail = path.partition("/")
                _, slash, action = tail.partition("/")
                body = {"status": {"status": "hired"}, "resend-invite": {"deliveryTypes": ["sms"]}}
                error = await http.bad(
                    404, method, f"{head}/absent{slash}{action}", json=body.get(action)
                )
                assert error["code"] == "NOT_FOUND"
                assert error["details"].keys() == {"resource", "id"}
                assert error["details"]["id"] == "absent"
        expected = {(name, status) for name in requests for status in (400, 401, 500)}
        assert expected <= http.seen


async def test_missing_key_names_the_expected_format(contract: Any) -> None:
    """A request without the header gets 401 with ``expectedFormat``."""
    async with FakeGather() as fake, aiohttp.ClientSession(fake.base_url) as session:
        error = await CheckedHTTP(session, contract).bad(401, "GET", "candidates")
        assert error["details"].keys() == {"expectedFormat"}


@EDITIONS
async def test_every_operation_is_refused_over_the_limit(contract: Any, edition: str) -> None:
    """Each operation answers 429 with limit, remaining and reset, in headers and details."""
    clock = VirtualClock()
    options = {"rate_limits": [RateLimit(30, per=60)], "clock": clock}
    async with checked(contract, edition=edition, **options) as (fake, http):
        requests = requests_of(contract, await make_all(fake, http, edition))
        while (await http("GET", "narrators"))[0] == 200:
            pass
        for method, path in requests.values():
            error = await http.bad(429, method, path)
            assert error["code"] == "RATE_LIMIT_EXCEEDED"
            assert error["details"]["limit"] == 30
            assert error["details"]["remaining"] == 0
        assert {(name, 429) for name in requests} <= http.seen


@EDITIONS
async def test_webhook_deliveries_are_as_documented(contract: Any, edition: str) -> None:
    """All five events are delivered, with a signature header of the documented form."""
    arrived: dict[str, tuple[str, Any]] = {}
    everything = asyncio.Event()

    async def receive(request: web.BaseRequest) -> web.Response:
        body = json.loads(await request.read())
        arrived[body["event"]] = (request.headers["X-Qualifi-Signature"], body)
        if len(arrived) == 5:
            everything.set()
        return web.Response()

    async with (
        listening(receive) as url,
        checked(contract, edition=edition, clock=VirtualClock()) as (fake, http),
    ):
        fake.send_webhook_to(url, "secret")
        ids = await make_all(fake, http, edition)
        await http.good(
            "PATCH",
            "interviews/bulk-update",
            json={"interviewIds": [ids["interview"]], "displayName": "Engineer"},
        )
        fake.complete_interview(ids["link"])
        await everything.wait()
    assert arrived.keys() == contract.document["webhooks"].keys()
    for event, (signature, body) in arrived.items():
        contract.check_event(event, signature, body)
    completed = arrived["candidate_interview.completed"][1]["data"]
    assert completed.keys() == {
        "candidateInterviewId",
        "candidateId",
        "interviewId",
        "status",
        "takenAt",
    }


@asynccontextmanager
async def listening(handler: Callable[[web.BaseRequest], Any]) -> AsyncIterator[str]:
    """An HTTP server for webhooks on loopback; gives its URL."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def test_the_contract_can_fail(contract: Any) -> None:
    """The checks notice an undocumented property, a wrong type and a bad time."""
    headers = {"Content-Type": "application/json"}
    good = {"data": {"id": "1", "createdAt": "2026-01-01T00:00:00Z"}}
    contract.check_answer("getCandidate", 200, headers, good)
    wrongs: tuple[dict[str, Any], ...] = (
        {"data": {"id": "1", "invented": 1}},
        {"data": {"id": 1}},
        {"data": {"id": "1", "createdAt": "yesterday"}},
        {"data": {"id": "1"}, "meta": {"invented": 1}},
        {"candidate": {}},
    )
    for wrong in wrongs:
        with pytest.raises(AssertionError):
            contract.check_answer("getCandidate", 200, headers, wrong)
    with pytest.raises(AssertionError):
        contract.check_request("GET", "/qsi/gather/candidates", {"search": ["x"]}, None)
    with pytest.raises(AssertionError):
        contract.check_request("POST", "/qsi/gather/candidates", {}, {"phone": "0123"})


def test_the_document_is_self_contained(contract: Any) -> None:
    """The copy in this repository names no path of a machine, and nothing outside itself."""
    text = json.dumps(contract.document)
    for place in ("/work/", "/tmp/", "/home/", "/root/", "file:", '"$ref": "http'):
        assert place not in text
