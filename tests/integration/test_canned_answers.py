"""Answers that no documented server gives, one canned answer a test, by aioresponses."""

import asyncio
import copy
import inspect
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from traceback import TracebackException
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses

from gather_async import (
    BulkUpdateResult,
    GatherAPIError,
    GatherClient,
    InterviewStatus,
    InvalidRequestError,
    NewCandidate,
    NewTeam,
    NotFoundError,
    ResponseDecodeError,
    RetryPolicy,
    ServerError,
    Team,
)
from gather_async.pager import Page, Pager

BASE = "https://api.example.test"
KEY = "qapi_key_of_the_tests"
Can = Callable[..., None]


class CannedResponse(aiohttp.ClientResponse):
    """Has the argument that aioresponses 0.7.9 doesn't give to aiohttp 3.14."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
            kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **kwargs)


@pytest.fixture
def can() -> Iterator[Can]:
    """Give a function that cans the next answer of a method and path."""
    with aioresponses() as canned:

        def add(method: str, path: str, **answer: Any) -> None:
            canned.add(
                f"{BASE}/qsi/gather/{path}",
                method=method,
                response_class=CannedResponse,
                **answer,
            )

        yield add


@pytest.fixture
async def gather() -> AsyncIterator[GatherClient]:
    """Give a client that sends once."""
    async with GatherClient(
        KEY, base_url=BASE, retry=RetryPolicy(attempts=1), user_id="u"
    ) as gather:
        yield gather


@pytest.mark.parametrize("data", [[{"id": "i", "status": 2}], {"interviews": [{"id": "i"}]}])
async def test_list_may_be_bare_or_keyed_and_without_meta(
    gather: GatherClient, can: Can, data: object
) -> None:
    """Both forms of a list are read, with a number or no status, and no meta."""
    can("GET", "interviews?limit=100&page=1", payload={"data": data})
    page = await gather.interviews.list()
    assert [item.id for item in page.items] == ["i"]
    assert page.total is None
    assert page.items[0].status in {None, InterviewStatus.CLOSED}


async def test_bulk_update_without_meta_shows_a_partial_failure(
    gather: GatherClient, can: Can
) -> None:
    """A 200 that reports errors is distinguished from success."""
    data = {"success": True, "updatedCount": 1, "errors": [{"id": "b"}]}
    can("PATCH", "interviews/bulk-update", payload={"data": data})
    result = await gather.interviews.bulk_update(["a", "b"], mode="merge", title="t")
    assert result == BulkUpdateResult(success=True, updated_count=1, errors=({"id": "b"},))
    assert not result.is_complete


@pytest.mark.parametrize("answer", [{"status": 204}, {"payload": {"data": {"ok": True}}}])
async def test_status_change_without_an_object_is_read_again(
    gather: GatherClient, can: Can, answer: dict[str, Any]
) -> None:
    """Whatever the undocumented answer is, the caller gets the object."""
    can("PATCH", "candidate-interviews/x/status", **answer)
    can("GET", "candidate-interviews/x", payload={"data": {"id": "x", "status": "hired"}})
    changed = await gather.candidate_interviews.update_status("x", "hired")
    assert (changed.id, changed.status) == ("x", "hired")


@pytest.mark.parametrize(
    "answer",
    [
        {"payload": {"data": {"teams": [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}]}}},
        {"payload": {"data": [{"id": "2", "name": "b"}, {"id": "1", "name": "a"}]}},
        {"status": 201, "body": ""},
    ],
)
async def test_created_teams_come_in_the_order_asked_for(
    gather: GatherClient, can: Can, answer: dict[str, Any]
) -> None:
    """A batch's answer may be keyed, bare, shuffled or empty; then the list is read."""
    can("POST", "teams", **answer)
    listed = [{"id": "1", "name": "a"}, {"id": "0", "name": "old"}, {"id": "2", "name": "b"}]
    can("GET", "teams", payload={"data": {"teams": listed}})
    teams = await gather.teams.create([NewTeam("a"), NewTeam("b")])
    assert [team.id for team in teams] == ["1", "2"]


async def test_one_created_team_may_be_answered_alone(gather: GatherClient, can: Can) -> None:
    """A single object under ``data.team`` is the one that was created."""
    can("POST", "teams", payload={"data": {"team": {"id": "1", "name": "a"}}})
    team = await gather.teams.create(name="a")
    assert team == Team(id="1", name="a")


async def test_created_team_that_is_nowhere_to_be_seen_is_reported(
    gather: GatherClient, can: Can
) -> None:
    """A creation that can't be confirmed says so, and that it may have happened."""
    can("POST", "teams", status=201, body="")
    can("GET", "teams", payload={"data": {"teams": []}})
    with pytest.raises(ResponseDecodeError) as caught:
        await gather.teams.create(name="a")
    assert caught.value.maybe_processed is True


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        ({"body": ""}, "$"),
        ({"body": "null"}, "$"),
        ({"body": "[]"}, "$"),
        ({"body": "{"}, "$"),
        ({"body": "<html>"}, "$"),
        ({"body": "[" * 100_000}, "$"),
        ({"payload": {}}, "$.data"),
        ({"payload": {"data": None}}, "$.data"),
        ({"payload": {"data": {"question": None}}}, "$.data.question"),
        ({"payload": {"data": {"question": {}}}}, "$.data.question.id"),
        ({"payload": {"data": {"question": {"id": 7}}}}, "$.data.question.id"),
    ],
)
async def test_senseless_answer_names_its_place(
    gather: GatherClient, can: Can, answer: dict[str, Any], path: str
) -> None:
    """Whatever is wrong with a 2xx body, the error says where."""
    can("GET", "questions/q", **answer)
    with pytest.raises(ResponseDecodeError) as caught:
        await gather.questions.get("q")
    assert caught.value.path == path


@pytest.mark.parametrize(("status", "kind"), [(302, GatherAPIError), (418, GatherAPIError)])
async def test_undocumented_status_is_an_api_error(
    gather: GatherClient, can: Can, status: int, kind: type[GatherAPIError]
) -> None:
    """A status that no page lists goes by its class, and is never followed."""
    can("GET", "questions/q", status=status, headers={"Location": "/elsewhere"})
    with pytest.raises(kind) as caught:
        await gather.questions.get("q")
    assert type(caught.value) is GatherAPIError
    assert caught.value.status == status


async def test_error_page_of_a_proxy_keeps_its_text(gather: GatherClient, can: Can) -> None:
    """A 502 in HTML is a ServerError with the body for the log."""
    can("GET", "questions/q", status=502, body="<h1>Bad Gateway</h1>", content_type="text/html")
    with pytest.raises(ServerError) as caught:
        await gather.questions.get("q")
    assert caught.value.body == "<h1>Bad Gateway</h1>"
    assert caught.value.code is None


@pytest.mark.parametrize(
    "body", [f"<html>{KEY}", f'{{"data": "{KEY}"}}', f'{{"headers": {{"x-api-key": "{KEY}"}}}}']
)
async def test_answer_that_repeats_the_key_leaves_it_out_of_the_error(
    gather: GatherClient, can: Can, body: str
) -> None:
    """A server that mirrors its request, and says 200, doesn't bring the key into a log."""
    can("GET", "candidates/c", body=body)
    with pytest.raises(ResponseDecodeError) as caught:
        await gather.candidates.get("c")
    assert KEY not in repr(vars(caught.value))
    assert "[redacted]" in str(caught.value.body)


@pytest.mark.parametrize("status", [200, 204])
async def test_answer_without_a_body_names_where_it_should_be(
    gather: GatherClient, can: Can, status: int
) -> None:
    """An empty answer to a read is a decode error at the root, in its text as well."""
    can("GET", "candidates/c", status=status, body="")
    with pytest.raises(ResponseDecodeError, match=r"at \$") as caught:
        await gather.candidates.get("c")
    assert caught.value.path == "$"


async def test_creation_whose_list_cannot_be_read_is_not_reported_as_unsent(
    gather: GatherClient, can: Can
) -> None:
    """Teams that were created without being shown may exist, whatever happens next."""
    can("POST", "teams", body="")
    can("GET", "teams", status=404, body="")
    with pytest.raises(ResponseDecodeError, match="before you do it again") as caught:
        await gather.teams.create([NewTeam(name="n", display_name="d")])
    assert caught.value.maybe_processed


async def test_change_whose_object_cannot_be_read_is_not_reported_as_unsent(
    gather: GatherClient, can: Can
) -> None:
    """A status that was changed says so, though reading the object failed."""
    can("PATCH", "candidate-interviews/i/status", body="")
    can("GET", "candidate-interviews/i", status=500, body="")
    with pytest.raises(ResponseDecodeError, match="the status was changed") as caught:
        await gather.candidate_interviews.update_status("i", "hired")
    assert caught.value.maybe_processed


async def test_results_of_another_person_are_refused(gather: GatherClient, can: Can) -> None:
    """Where results name whose they are, they are those that were asked for."""
    for owner, is_theirs in (("ci-1", True), ("CI-1", True), ("ci-2", False), (7, False)):
        data = {"candidateInterviewId": owner, "summaryStatus": "complete"}
        can("GET", "candidate-interviews/ci-1/results", payload={"data": data})
        if is_theirs:
            assert (await gather.candidate_interviews.results("ci-1")).summary_status == "complete"
            continue
        with pytest.raises(ResponseDecodeError, match="another object"):
            await gather.candidate_interviews.results("ci-1")


async def test_what_a_changed_status_was_answered_with_is_in_no_frame(
    gather: GatherClient, can: Can
) -> None:
    """The answer may show a person and an invite token; error reporters print locals."""
    can("PATCH", "candidate-interviews/i/status", payload={"data": {"email": "ann@example.com"}})
    can("GET", "candidate-interviews/i", status=500, body="")
    with pytest.raises(ResponseDecodeError) as caught:
        await gather.candidate_interviews.update_status("i", "hired")
    report = TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame.locals for frame in report.stack if "gather_async/resources" in frame.filename]
    assert ours
    assert "ann@example.com" not in str(ours)


async def test_object_read_back_that_makes_no_sense_names_its_path(
    gather: GatherClient, can: Can
) -> None:
    """Where the second answer is nonsense, the error says where, and that the first was not."""
    can("PATCH", "candidate-interviews/i/status", body="")
    can("GET", "candidate-interviews/i", body='{"data": {"id": 5}}')
    with pytest.raises(ResponseDecodeError, match=r"at \$\.data\.id") as caught:
        await gather.candidate_interviews.update_status("i", "hired")
    assert caught.value.path == "$.data.id"
    assert caught.value.maybe_processed


async def test_error_envelope_under_200_is_raised_at_once(gather: GatherClient, can: Can) -> None:
    """A refusal is no lost answer: nothing is looked up or sent again, and it names its code."""
    error = {"code": "INTERVIEW_CLOSED", "message": "The interview is closed."}
    can("POST", "candidate-interviews", payload={"error": error, "meta": {"requestId": "r-9"}})
    with pytest.raises(GatherAPIError, match="INTERVIEW_CLOSED: The interview") as caught:
        await gather.candidate_interviews.create(candidate_id="c", interview_id="i")
    assert (caught.value.code, caught.value.request_id) == ("INTERVIEW_CLOSED", "r-9")
    assert not caught.value.maybe_processed


def _people(*numbers: int, total: int) -> dict[str, Any]:
    """Return one page of a list of candidates, whose total is of the whole list."""
    items = [{"id": f"c{number}", "externalId": f"x{number}"} for number in numbers]
    return {"data": {"candidates": items}, "meta": {"pagination": {"total": total}}}


async def test_short_list_proves_no_absence(gather: GatherClient, can: Can) -> None:
    """Anyone who wasn't listed may exist where fewer came than are counted: no one is created."""
    new = NewCandidate("Ada", "Lovelace", "ada@example.com", "+12025550123", external_id="x7")
    query = "candidates?externalId=x7&page={}&pageSize=100"
    can("GET", query.format(1), payload=_people(1, 2, total=3))
    can("GET", query.format(2), payload=_people(total=3))
    with pytest.raises(ResponseDecodeError, match="may exist") as caught:
        await gather.candidates.get_or_create(new)  # a POST would find nothing canned
    assert not caught.value.maybe_processed
    can("GET", query.format(1), payload=_people(1, 7, total=3))
    assert (await gather.candidates.get_or_create(new)).id == "c7"
    can("GET", query.format(1), payload=_people(total=0))
    assert await gather.candidates.find_by_external_id("x7") is None


async def test_a_404_beyond_the_last_page_is_the_end_of_the_list(
    gather: GatherClient, can: Can
) -> None:
    """A list without counts may end so, which proves nothing; one that promised more failed."""
    for total, is_complete in ((None, False), (2, True)):
        meta = {} if total is None else {"pagination": {"total": total}}
        page = {**_people(1, 2, total=0), "meta": meta}
        can("GET", "candidates?page=1&pageSize=100", payload=page)
        can("GET", "candidates?page=2&pageSize=100", status=404, payload={"detail": "No page."})
        pager = gather.candidates.list()
        assert [each.id async for each in pager] == ["c1", "c2"]
        assert pager.is_complete is is_complete
    more = {**_people(1, 2, total=0), "meta": {"pagination": {"total": 3}}}
    can("GET", "candidates?page=1&pageSize=100", payload=more)
    can("GET", "candidates?page=2&pageSize=100", status=404, payload={"detail": "No page."})
    with pytest.raises(NotFoundError):
        assert [each.id async for each in gather.candidates.list()]
    can("GET", "teams", status=404, payload={})
    with pytest.raises(NotFoundError):
        await gather.teams.list()


async def test_pager_says_whether_the_list_came_whole(gather: GatherClient, can: Can) -> None:
    """After a loop, the pager knows; before the end, no page claims it."""
    can("GET", "candidates?page=1&pageSize=100", payload=_people(1, 2, total=3))
    can("GET", "candidates?page=2&pageSize=100", payload=_people(3, total=3))
    pager = gather.candidates.list()
    assert not pager.is_complete
    pages = [page async for page in pager.pages()]
    assert [page.is_complete for page in pages] == [False, True]
    assert pager.is_complete


async def test_page_can_be_pickled_and_copied(gather: GatherClient, can: Can) -> None:
    """A pickle has the items and no client; a copy goes on as the original does."""
    can("GET", "candidates?page=1&pageSize=100", payload=_people(1, total=2))
    page = await gather.candidates.list()
    again = pickle.loads(pickle.dumps(page))
    assert again == page
    with pytest.raises(InvalidRequestError, match="page 2"):
        await again.next()
    for duplicate in (copy.copy(page), copy.deepcopy(page)):
        assert duplicate == page
        can("GET", "candidates?page=2&pageSize=100", payload=_people(2, total=2))
        following = await duplicate.next()
        assert following is not None
        assert [each.id for each in following.items] == ["c2"]
        assert await pickle.loads(pickle.dumps(following)).next() is None


async def test_page_that_is_asked_for_again_is_the_same(gather: GatherClient, can: Can) -> None:
    """Reading on from a page that was kept gives what it gave the first time."""
    can("GET", "candidates?page=1&pageSize=100", payload=_people(1, total=3))
    page = await gather.candidates.list()
    for _ in range(2):
        can("GET", "candidates?page=2&pageSize=100", payload=_people(1, 2, total=3))
        can("GET", "candidates?page=3&pageSize=100", payload=_people(3, total=3))
        second = await page.next()
        assert second is not None
        assert [each.id for each in second.items] == ["c2"]
        third = await second.next()
        assert third is not None
        assert ([each.id for each in third.items], third.is_complete) == (["c3"], True)


async def test_pagers_can_be_given_to_tasks(gather: GatherClient, can: Can) -> None:
    """`create_task` and task groups take a pager as it is, many times, and its errors come out."""
    for _ in range(4):
        can("GET", "candidates?page=1&pageSize=100", payload=_people(1, total=1))
    pager = gather.candidates.list()
    async with asyncio.TaskGroup() as group:
        first, second = group.create_task(pager), group.create_task(pager)
    assert first.result().items == second.result().items == (await pager).items
    assert (await asyncio.create_task(pager)).items[0].id == "c1"
    can("GET", "candidates?page=1&pageSize=100", payload={"data": 7})
    with pytest.raises(ResponseDecodeError):
        await asyncio.create_task(pager)


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_task_that_runs_a_pager_can_be_cancelled(steps: int) -> None:
    """Before its first step or while its request is on the wire; the pager can be used again."""
    arrived = asyncio.Event()

    async def fetch(number: int) -> Page[int]:
        await arrived.wait()
        return Page(items=(number,), page=number, total=None, has_next=False)

    pager = Pager(fetch)
    task = asyncio.create_task(pager)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    arrived.set()
    assert (await asyncio.create_task(pager)).items == (1,)


async def test_pager_that_a_task_group_refuses_is_closed(gather: GatherClient) -> None:
    """Closing one that never ran does nothing, and closing one that runs ends it."""
    pager = gather.candidates.list()
    group = asyncio.TaskGroup()
    with pytest.raises(RuntimeError):
        group.create_task(pager)
    pager.close()
    pager.send(None)
    pager.close()
    with pytest.raises(KeyError):
        pager.throw(KeyError("x"))


async def test_jobs_can_be_given_to_tasks(gather: GatherClient) -> None:
    """A bulk invite runs in a task of its own, and is over for the one who awaits it too."""
    job = gather.bulk_invite([], interview_id="i", dry_run=True)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(job)
    assert task.result() is await job


async def test_another_object_than_the_one_asked_for_is_refused(
    gather: GatherClient, can: Can
) -> None:
    """A response to another request is no answer to this one; an id's case doesn't matter."""
    can("GET", "candidates/a", payload={"data": {"id": "b", "email": "eve@example.com"}})
    with pytest.raises(ResponseDecodeError, match="another object") as caught:
        await gather.candidates.get("a")
    assert caught.value.path == "$.data.id"
    can("GET", "candidates/a", payload={"data": {"id": "A"}})
    assert (await gather.candidates.get("a")).id == "A"
