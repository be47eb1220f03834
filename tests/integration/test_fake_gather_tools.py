"""The pytest plugin in other people's projects, and the server on its own."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from gather_async.errors import ConfigurationError
from gather_async.testing import FakeGather, VirtualClock
from gather_async.testing.serve import serve

USER_TEST = """
async def test_invite(fake_gather, gather_client):
    candidate = await gather_client.candidates.create(
        first_name="Ann", last_name="Lee", email="ann@example.com", phone="+12025550123"
    )
    assert fake_gather.candidates[0]["id"] == candidate.id
    assert fake_gather.requests[0].status == 201
"""


def test_the_plugin_works_in_a_users_project(tmp_path: Path) -> None:
    """Both fixtures work in auto mode without any set-up; the docs' tests run in strict mode."""
    (tmp_path / "test_user.py").write_text(USER_TEST, encoding="utf-8")
    options = ["-W", "error", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, "test_user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
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


async def test_serving_lasts_until_it_is_cancelled() -> None:
    """``serve`` tells when it listens; cancelling it frees the port and is not swallowed."""
    started: asyncio.Future[FakeGather] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(limited=True, edition="B", on_started=started.set_result))
    fake = await started
    async with aiohttp.ClientSession(headers={"x-api-key": fake.api_key}) as session:
        async with session.get(f"{fake.base_url}/qsi/gather/users") as response:
            assert response.headers["X-RateLimit-Limit"] == "100"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(f"{fake.base_url}/qsi/gather/users")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one child")
def test_the_server_runs_on_its_own() -> None:
    """``python -m gather_async.testing.serve`` prints URL and key; Ctrl-C ends it with status 0."""
    command = [sys.executable, "-m", "gather_async.testing.serve", "--api-key", "qapi_mine"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(b"GATHER_BASE_URL=http://127.0.0.1:")
        assert server.stdout.readline() == b"GATHER_API_KEY=qapi_mine\n"
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=30)
    assert (server.returncode, out, err) == (0, b"", b"")


def test_a_server_that_cannot_start_says_why() -> None:
    """A blank key ends the command with status 1 and one line that names it."""
    command = [sys.executable, "-m", "gather_async.testing.serve", "--api-key", " "]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    assert len(run.stderr.splitlines()) == 1
    assert "api_key" in run.stderr


async def test_a_blank_key_is_refused() -> None:
    """``serve`` raises before it listens."""
    with pytest.raises(ConfigurationError):
        await serve(api_key="")


async def test_ten_thousand_invites_on_the_virtual_clock() -> None:
    """The state stays fast as it grows: requests cost the same after 10 000 objects."""
    async with FakeGather(clock=VirtualClock()) as fake:
        people = fake.add_candidates(10_000)
        headers = {"x-api-key": fake.api_key}
        async with aiohttp.ClientSession(fake.base_url, headers=headers) as session:
            url = "/qsi/gather/interviews"
            body = {"title": "a", "interviewType": "standard"}
            async with session.post(url, json=body) as response:
                interview = (await response.json())["data"]["id"]
            url = "/qsi/gather/candidate-interviews"
            for person in people[:200]:
                pair = {"candidateId": person, "interviewId": interview}
                invite = pair | {"sendInvite": True, "deliveryTypes": ["email"]}
                async with session.post(url, json=invite) as response:
                    assert response.status == 201
                async with session.get(url, params=pair) as response:
                    assert len((await response.json())["data"]) == 1
        assert set(fake.invites.values()) == {1}
        assert len(fake.invites_by_person) == 200
