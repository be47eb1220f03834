"""A client over its life: configuration, loops, views, closing, secrets."""

import asyncio
import copy
import gc
import logging
import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import aiohttp
import pytest

from gather_async import (
    AuthenticationError,
    Candidate,
    ClientClosedError,
    ConfigurationError,
    GatherClient,
    GatherError,
    GatherTimeoutError,
    NewCandidate,
    RateLimit,
    ResponseDecodeError,
    RetryPolicy,
)
from gather_async.quota import InProcessLimiter
from gather_async.resources import Pager, Resources
from gather_async.testing import FakeGather

KEY = "qapi_very_secret_0123456789"
NEW = NewCandidate("Ada", "Lovelace", "ada@example.com", "+12025550123")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own settings out."""
    monkeypatch.delenv("GATHER_API_KEY", raising=False)
    monkeypatch.delenv("GATHER_BASE_URL", raising=False)


@pytest.mark.parametrize("key", [None, "", "  ", "qapi_x\n", " qapi_x", "qapi_é", "qapi\x00"])
def test_key_that_cannot_be_sent_is_refused_at_construction(key: str | None) -> None:
    """A missing, blank or unsendable key is refused before anything else happens."""
    with pytest.raises(ConfigurationError, match="key"):
        GatherClient(key)


def test_key_and_url_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the client takes GATHER_API_KEY and GATHER_BASE_URL."""
    monkeypatch.setenv("GATHER_API_KEY", KEY)
    monkeypatch.setenv("GATHER_BASE_URL", "https://api.dev.qualifi.hr")
    assert "https://api.dev.qualifi.hr" in repr(GatherClient())


@pytest.mark.parametrize("form", ["org-id:qapi_key", "no-prefix"])
async def test_key_is_sent_unchanged(form: str) -> None:
    """Whatever form the key has, the header carries it as given."""
    async with (
        FakeGather(api_key=form) as fake,
        GatherClient(form, base_url=fake.base_url) as gather,
    ):
        await gather.teams.list()


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"max_wait": -1},
        {"reserve": -1},
        {"rate_limits": [RateLimit(1, per=1)], "timeout": "soon"},
        {"retry": 3},
        {"phone_policy": "strict"},
        {"default_region": "XX"},
        {"default_region": "USA"},
        {"base_url": "http://example.com"},
        {"base_url": "ftp://example.com"},
        {"limiter": "redis://127.0.0.1"},
        {"limiter": InProcessLimiter},
        {"signals": "redis://127.0.0.1"},
        {"session": aiohttp.ClientSession},
        {"session": 5},
    ],
)
def test_senseless_option_is_refused_at_construction(options: dict[str, object]) -> None:
    """An option that can't work is refused when the client is made."""
    with pytest.raises(ConfigurationError):
        GatherClient(KEY, **options)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    "options", [{"timeout": -1}, {"retry": None}, {"phone_policy": "x"}, {"default_region": ""}]
)
def test_senseless_option_of_a_view_is_refused(options: dict[str, object]) -> None:
    """A view refuses at once what no call could work with."""
    with pytest.raises(ConfigurationError):
        GatherClient(KEY).with_options(**options)  # type: ignore[arg-type]  # as above


async def test_key_never_shows(caplog: pytest.LogCaptureFixture) -> None:
    """The key is in no repr, log line or error, chained ones included."""
    caplog.set_level(logging.DEBUG)
    async with FakeGather() as fake, GatherClient(KEY, base_url=fake.base_url) as gather:
        with pytest.raises(AuthenticationError) as caught:
            await gather.teams.list()
        error = caught.value
        shown = [repr(gather), str(error), repr(error), error.body, str(error.headers), caplog.text]
        shown += [repr(gather.questions), repr(gather._session)]
    assert not any(KEY in text for text in shown)


def test_module_level_client_works_in_loop_after_loop() -> None:
    """One client serves three asyncio.run calls in a row, and its quota history survives."""
    gather: GatherClient | None = None

    async def job() -> int:
        nonlocal gather
        async with FakeGather(api_key=KEY) as fake:
            if gather is None:
                gather = GatherClient(KEY, base_url=fake.base_url)
            else:
                gather._session.transport._base = fake.base_url
            await gather.teams.list()
            return gather.rate_limit_status.windows[0].used

    assert [asyncio.run(job()) for _ in range(3)] == [1, 2, 3]


async def _requests(gather: GatherClient) -> int:
    await gather.teams.list()
    return gather.rate_limit_status.windows[0].used


def test_client_works_on_in_a_loop_that_closed_its_generators() -> None:
    """The session that went with them is opened anew."""
    with asyncio.Runner() as runner:
        fake = runner.run(FakeGather().__aenter__())
        gather = fake.client()
        assert runner.run(_requests(gather)) == 1
        runner.run(runner.get_loop().shutdown_asyncgens())
        with pytest.warns(ResourceWarning, match="after loop.shutdown_asyncgens"):
            assert runner.run(_requests(gather)) == 2
        runner.run(gather.aclose())
        runner.run(fake.aclose())


async def test_use_after_closing_says_so() -> None:
    """A closed client refuses every call, and holds no slot for it."""
    async with FakeGather() as fake:
        gather = fake.client()
        await gather.teams.list()
        view = gather.with_options(timeout=1)
        await gather.aclose()
        await gather.aclose()
        for closed in (gather, view):
            with pytest.raises(ClientClosedError):
                await closed.teams.list()
        assert gather.rate_limit_status.in_flight == 0
        assert "closed" in repr(gather)


async def test_closed_client_is_not_entered_again() -> None:
    """``async with`` refuses a client that was closed."""
    gather = GatherClient(KEY)
    await gather.aclose()
    with pytest.raises(ClientClosedError):
        async with gather:
            pass


async def test_closing_ends_what_waits_for_the_quota() -> None:
    """Calls in the queue end at once when their client closes, and leave it empty."""
    async with FakeGather() as fake:
        gather = fake.client(rate_limits=[RateLimit(1, per=60)])
        await gather.teams.list()
        bulk = gather.with_options(priority="bulk")
        calls = [asyncio.ensure_future(each.teams.list()) for each in (gather, bulk, gather)]
        await asyncio.sleep(0)
        await gather.aclose()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in ended] == [ClientClosedError] * 3
        queued = gather.rate_limit_status.queued
        assert (queued.interactive, queued.bulk) == (0, 0)


async def test_closing_ends_a_pause_before_the_next_attempt() -> None:
    """A call between two attempts learns at once that its client closed."""
    async with FakeGather() as fake:
        slow = RetryPolicy(base=1000.0, cap=1000.0, total=9000.0)
        gather = fake.client(retry=slow)
        fake.fail_next(status=500, times=1)
        call = asyncio.ensure_future(gather.teams.list())
        while not (fake.requests and gather.rate_limit_status.in_flight == 0):  # noqa: ASYNC110 - the fake has no event
            await asyncio.sleep(0)
        await gather.aclose()
        with pytest.raises(ClientClosedError):
            await call


async def test_caller_who_cancels_as_the_client_closes_stays_cancelled() -> None:
    """Closing never hides a cancellation of the caller's own."""
    async with FakeGather() as fake:
        gather = fake.client(rate_limits=[RateLimit(1, per=60)])
        await gather.teams.list()
        call = asyncio.ensure_future(gather.teams.list())
        await asyncio.sleep(0)
        call.cancel()
        await gather.aclose()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_closing_with_more_calls_under_way_than_connections() -> None:
    """Every call of a client that closes ends with an error of this package."""
    async with FakeGather(rate_limits=[RateLimit(1000, per=60)]) as fake:
        gather = fake.client(rate_limits=[RateLimit(1000, per=60)])
        fake.slow_next(600.0, times=150)
        calls = [asyncio.ensure_future(gather.teams.list()) for _ in range(150)]
        while len(fake.requests) < 100:  # noqa: ASYNC110 - the fake has no event
            await asyncio.sleep(0)
        await gather.aclose()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, GatherError) for each in ended)


async def test_client_never_used_closes() -> None:
    """A client that sent nothing has nothing to close, and closes."""
    await GatherClient(KEY).aclose()


async def test_borrowed_session_is_left_open() -> None:
    """A lent aiohttp session carries the requests and outlives the client."""
    async with FakeGather() as fake, aiohttp.ClientSession() as session:
        async with fake.client(session=session) as gather:
            await gather.teams.list()
        assert not session.closed


async def test_view_shares_the_quota_and_changes_only_its_options() -> None:
    """A view counts in the same windows, and leaves its origin as it was."""
    async with (
        FakeGather() as fake,
        fake.client() as gather,
    ):
        hasty = gather.with_options(timeout=0.02, retry=RetryPolicy(attempts=1), priority="bulk")
        fake.slow_next(math.inf)
        with pytest.raises(GatherTimeoutError):
            await hasty.teams.list()
        await gather.teams.list()
        assert gather.rate_limit_status.windows[0].used == 2
        assert hasty.limiter is gather.limiter
        with pytest.raises(ConfigurationError):
            gather.with_options(priority="urgent")  # type: ignore[arg-type]  # the point


class TenantClient(GatherClient):
    """A client that knows whose it is."""

    def __init__(self, api_key: str, *, tenant: str) -> None:
        super().__init__(api_key)
        self.tenant = tenant
        self.teams_seen: list[str] = []


def test_view_of_a_subclass_keeps_its_attributes() -> None:
    """A view of a subclass, and a view of that, have what the subclass added, shared."""
    gather = TenantClient(KEY, tenant="t1")
    view = gather.with_options(timeout=5)
    assert type(view) is TenantClient
    assert view.tenant == view.with_options(priority="bulk").tenant == "t1"
    assert view.teams_seen is gather.teams_seen
    view.tenant = "t2"
    assert gather.tenant == "t1"


async def test_one_call_can_be_patched_and_comes_back() -> None:
    """A unit test replaces one call of one client as mock's users always do."""
    gather = GatherClient("qapi_test")
    for resource in (gather.questions, gather.candidates, gather.narrators, gather.users):
        with mock.patch.object(resource, "list", mock.Mock(return_value=[1])):
            assert resource.list() == [1]
        assert isinstance(resource.list(), Pager)
    with mock.patch.object(gather.candidates, "create") as create:
        await gather.candidates.create(NEW)
    create.assert_awaited_once_with(NEW)


async def test_mock_made_from_the_class_knows_the_resources_calls() -> None:
    """`create_autospec` finds each resource, its coroutines, and their signatures."""
    fake = mock.create_autospec(GatherClient, instance=True)
    fake.candidates.get.return_value = Candidate(id="c")
    assert await fake.candidates.get("c") == Candidate(id="c")
    with pytest.raises(TypeError):
        await fake.candidate_interviews.get()
    with pytest.raises(AttributeError):
        _ = fake.teams.remove
    real = {name for name in Resources.__annotations__ if hasattr(GatherClient("qapi_test"), name)}
    assert len(real) == 8
    for name in real:
        assert callable(getattr(mock.create_autospec(GatherClient), name).list)


async def test_a_view_has_resources_of_its_own_whichever_were_used_before() -> None:
    """A resource is made once for each client; a view's takes the view's options."""
    gather = GatherClient("qapi_test")
    assert gather.users is gather.users
    view = gather.with_options(default_region="US", timeout=1.0)
    assert view.users is view.users
    assert view.users is not gather.users
    assert (view.users._default_region, gather.users._default_region) == ("US", None)
    assert view.teams._endpoint.session is view._session
    await gather.aclose()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
async def test_copied_client_shares_the_quota(
    duplicate: Callable[[GatherClient], GatherClient],
) -> None:
    """A copy is a view: it spends from the same windows, and closes with the original."""
    async with GatherClient("qapi_test") as gather:
        again = duplicate(gather)
        assert again.limiter is gather.limiter
    with pytest.raises(ClientClosedError):
        await again.candidates.get("c")


async def test_default_user_is_sent_unless_reported_otherwise() -> None:
    """user_id of the client is the creator, unless a call names another or none."""
    async with (
        FakeGather(edition="B") as fake,
        fake.client(user_id=fake.user_id) as gather,
    ):
        await gather.questions.create(title="a", question_script="s")
        await gather.questions.create(title="b", question_script="s", user_id=None)
        sent = [request.json for request in fake.requests]
    assert sent[0]["userId"] == fake.user_id
    assert "userId" not in sent[1]


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "16 MiB"])
def test_senseless_max_response_is_refused(size: Any) -> None:
    """The most bytes of a response are a whole number from 1."""
    with pytest.raises(ConfigurationError, match="max_response"):
        GatherClient("qapi_test", max_response=size)


async def test_response_above_max_response_is_refused_and_asked_for_once() -> None:
    """What is too large once is too large again: it isn't tried a second time."""
    async with FakeGather() as fake, fake.client(max_response=10) as gather:
        with pytest.raises(ResponseDecodeError, match="max_response"):
            await gather.teams.list()
        assert len(fake.requests) == 1


async def test_threads_share_one_client_and_its_quota() -> None:
    """Eight threads with loops of their own use one client at once; no answer is a 429."""
    limits = [RateLimit(20, per=0.5)]
    async with (
        FakeGather(rate_limits=limits, audio_seconds=0.05) as fake,
        fake.client(rate_limits=limits) as gather,
    ):
        question = await gather.questions.create(
            title="t", question_script="?", user_id=fake.user_id
        )

        async def work() -> bool:
            await asyncio.gather(*(gather.teams.list() for _ in range(3)))
            ready = await gather.questions.wait_until_audio_ready(question.id, timeout=20)
            return ready.audio_url is not None

        work_in_threads = (asyncio.to_thread(asyncio.run, work()) for _ in range(8))
        assert await asyncio.gather(*work_in_threads, work()) == [True] * 9
        assert 429 not in [each.status for each in fake.requests]


async def test_a_loop_for_each_call_of_each_thread_works(fake_gather: FakeGather) -> None:
    """WSGI threads make a loop for each call, as `async_to_sync` and `asyncio.run` do."""
    gather = fake_gather.client()

    def view() -> int:
        async def read() -> int:
            return len((await gather.teams.list()).items)

        return [asyncio.run(read()) for _ in range(3)][-1]

    found = await asyncio.gather(*(asyncio.to_thread(view) for _ in range(8)))
    assert len(set(found)) == 1
    await gather.aclose()
    with pytest.raises(ClientClosedError):
        await asyncio.to_thread(view)


async def test_a_loop_that_is_about_to_end_keeps_its_session(
    fake_gather: FakeGather, caplog: pytest.LogCaptureFixture
) -> None:
    """A call of another loop, between a loop's last run and its close, takes nothing from it."""
    gather = fake_gather.client()

    def work() -> list[bool]:
        async def read() -> None:
            await gather.teams.list()

        with asyncio.Runner() as ending:
            ending.run(read())
            first = gather._session.transport._sessions.all()[0].session
            asyncio.run(read())
            gc.collect()
            is_kept = first is not None and not first.closed
        gc.collect()
        return [is_kept, first is not None and first.closed]

    assert await asyncio.to_thread(work) == [True, True]
    assert not caplog.records
    await gather.aclose()


async def test_closing_ends_calls_of_other_loops() -> None:
    """A call that waits for the quota in another thread ends when the client is closed here."""
    async with FakeGather() as fake:
        gather = fake.client(rate_limits=[RateLimit(1, per=60)])
        await gather.teams.list()

        async def wait() -> None:
            await gather.teams.list()

        waiting = asyncio.create_task(asyncio.to_thread(asyncio.run, wait()))
        while not gather.rate_limit_status.queued.interactive:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        await gather.aclose()
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(waiting, 20)
