"""The pytest plugin in other people's projects, and the server on its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from gather_async.errors import AuthenticationError
from gather_async.testing import FakeGather, VirtualClock
from tests.users_project import run_pytest

USER_TEST = """
async def test_invite(fake_gather, gather_client):
    candidate = await gather_client.candidates.create(
        first_name="Ann", last_name="Lee", email="ann@example.com", phone="+12025550123"
    )
    assert fake_gather.candidates[0]["id"] == candidate.id
    assert fake_gather.requests[0].status == 201
"""


ANY_LOOP_TESTS = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.asyncio
async def test_own_loop(fake_gather, gather_client):
    assert (await gather_client.teams.list()).items

@pytest.mark.asyncio(loop_scope="session")
async def test_loop_of_the_session(fake_gather, gather_client):
    assert (await gather_client.teams.list()).items

@pytest.mark.anyio
async def test_loop_of_anyio(fake_gather, gather_client):
    assert (await gather_client.teams.list()).items

@pytest.mark.asyncio
@pytest.mark.fake_gather(edition="B", api_key="qapi_of_the_marker")
async def test_marker(fake_gather, gather_client):
    assert (await gather_client.teams.list()).items
    assert fake_gather.api_key == "qapi_of_the_marker"
"""


def test_the_fixtures_run_in_the_loop_of_the_test(tmp_path: Path) -> None:
    """Whatever loop runs a test, and whatever is the default for fixtures, calls are answered."""
    (tmp_path / "test_user.py").write_text(ANY_LOOP_TESTS, encoding="utf-8")
    run = run_pytest(tmp_path, asyncio_mode="strict", asyncio_default_fixture_loop_scope="session")
    assert "4 passed" in run.stdout, run.stdout + run.stderr


def test_the_plugin_works_in_a_users_project(tmp_path: Path) -> None:
    """Both fixtures work in auto mode without any set-up; the docs' tests run in strict mode."""
    (tmp_path / "test_user.py").write_text(USER_TEST, encoding="utf-8")
    run = run_pytest(tmp_path, asyncio_mode="auto")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


def test_the_plugin_adds_nothing_heavy() -> None:
    """Loading it, as every run of pytest does, adds no server and no clock to the package."""
    code = (
        "import sys, gather_async, pytest, pytest_asyncio\n"
        "before = set(sys.modules)\n"
        "import gather_async.testing.plugin\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.split() == ["gather_async.testing", "gather_async.testing.plugin"]


def test_public_names_are_loaded_on_demand() -> None:
    """The package lists its names, and says which one it lacks."""
    import gather_async.testing as package  # noqa: PLC0415 - the package itself is tested

    assert {"FakeGather", "VirtualClock"} <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = package.NoSuchName


async def test_a_server_makes_its_own_client() -> None:
    """It has the server's key, address and clock, unless other ones are given."""
    clock = VirtualClock()
    async with FakeGather(clock=clock) as fake:
        async with fake.client(user_id=fake.user_id) as gather:
            created = await gather.questions.create(title="Strengths")
            assert gather.clock is clock
            assert fake.questions[0]["id"] == created.id
        async with fake.client(api_key="qapi_other", clock=VirtualClock()) as stranger:
            assert stranger.clock is not clock
            with pytest.raises(AuthenticationError):
                await stranger.teams.list()
    with pytest.raises(RuntimeError):
        FakeGather().client()
