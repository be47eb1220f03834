"""Lists that leave out the keys of their objects: no one is made twice for it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from attrs import define, field

from gather_async import GatherClient, RateLimit, ResponseDecodeError, RetryPolicy

PERSON = {
    "first_name": "Ada",
    "last_name": "Lovelace",
    "email": "ada@example.com",
    "phone": "+12025550123",
}
Row = dict[str, Any]
Show = Callable[[Row], Row]

ID_ALONE = pytest.param(lambda row: {"id": row["id"]}, id="id alone")
NESTED = pytest.param(
    lambda row: {"id": row["id"], "candidate": {"id": row.get("candidateId")}}, id="nested"
)
SNAKE_CASE = pytest.param(
    lambda row: {"id": row["id"], "external_id": row.get("externalId")}, id="snake case"
)
NUMBERS = pytest.param(
    lambda row: {"id": row["id"], "externalId": 7, "candidateId": 7, "interviewId": 7}, id="numbers"
)


@define
class Server:
    """People and links, honestly filtered, of which a list shows no more than it likes."""

    show: Show
    read_show: Show = lambda row: row
    rows: dict[str, list[Row]] = field(
        factory=lambda: {"candidates": [], "candidate-interviews": []}
    )

    async def answer(self, request: web.Request) -> web.Response:
        """Create, list, or read one object."""
        kind, *rest = request.path.removeprefix("/qsi/gather/").split("/")
        rows = self.rows[kind]
        if request.method == "POST":
            rows.append({"id": f"{kind}-{len(rows)}", **await request.json()})
            return web.json_response({"data": rows[-1]}, status=201)
        if rest:
            found = next(row for row in rows if row["id"] == rest[0])
            return web.json_response({"data": self.read_show(found)})
        names = {"externalId", "candidateId", "interviewId"} & request.query.keys()
        listed = [row for row in rows if all(row[name] == request.query[name] for name in names)]
        return web.json_response({"data": [self.show(row) for row in listed], "meta": {}})


Serve = Callable[..., Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Give a function that starts a server, and returns it with a function that makes clients."""
    runners: list[web.AppRunner] = []
    clients: list[GatherClient] = []

    async def start(
        show: Show, read_show: Show = lambda row: row
    ) -> tuple[Server, Callable[[], GatherClient]]:
        server, app = Server(show, read_show), web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        runners.append(web.AppRunner(app, shutdown_timeout=0.1))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runners[-1].addresses[0][1]}"

        def client() -> GatherClient:
            clients.append(
                GatherClient(
                    "qapi_key_of_the_tests",
                    base_url=url,
                    retry=RetryPolicy(attempts=1),
                    rate_limits=[RateLimit(10**6, per=60)],
                )
            )
            return clients[-1]

        return server, client

    yield start
    for each in clients:
        await each.aclose()
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize("show", [ID_ALONE, NESTED, SNAKE_CASE, NUMBERS])
async def test_another_client_finds_what_a_list_hides(serve: Serve, show: Show) -> None:
    """What the list leaves out, a single read shows: no one is made or invited twice."""
    server, client = await serve(show)
    for _ in range(2):
        gather = client()
        person = await gather.candidates.get_or_create(**PERSON, external_id="x1")
        await gather.candidate_interviews.get_or_create(
            candidate_id=person.id, interview_id="i", send_invite=True, delivery_types=["email"]
        )
    assert [len(rows) for rows in server.rows.values()] == [1, 1]


@pytest.mark.parametrize("show", [ID_ALONE, NUMBERS])
async def test_a_job_without_its_journal_finds_what_a_list_hides(serve: Serve, show: Show) -> None:
    """A list read whole that shows no external id proves no one absent: each is asked for."""
    server, client = await serve(show)
    rows = [{**PERSON, "email": f"ada{number}@example.com"} for number in range(3)]
    first = await client().bulk_invite(rows, interview_id="i")
    again = await client().bulk_invite(rows, interview_id="i")
    assert (first.invited, again.already_invited) == (3, 3)
    assert [len(rows) for rows in server.rows.values()] == [3, 3]


async def test_what_not_even_a_single_read_shows_is_unproven(serve: Serve) -> None:
    """Where nothing shows whose an object is, the call raises instead of making a second."""
    server, client = await serve(lambda row: {"id": row["id"]}, lambda row: {"id": row["id"]})
    await client().candidates.create(**PERSON, external_id="x1")
    with pytest.raises(ResponseDecodeError, match="may exist"):
        await client().candidates.get_or_create(**PERSON, external_id="x1")
    assert len(server.rows["candidates"]) == 1


async def test_one_who_shows_no_external_id_among_others_has_none(serve: Serve) -> None:
    """Servers in JavaScript leave out what is not set: that alone makes nothing unproven."""
    server, client = await serve(lambda row: {k: v for k, v in row.items() if v is not None})
    for number, external_id in enumerate((None, "x1", None, None, None)):
        server.rows["candidates"].append({"id": f"c{number}", "externalId": external_id})
    found = await client().candidates.list().find(lambda person: person.external_id == "x2")
    assert found is None
