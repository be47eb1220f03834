"""The check for what tests leave behind finds each kind, and nothing where nothing is left."""

import re
from pathlib import Path

import pytest

from tests.users_project import run_pytest

ROOT = Path(__file__).parents[2]

CONFTEST = """
import socket
import pytest

pytest_plugins = ["tests.servers", "tests.leaks"]

def pytest_configure():
    import tests.leaks
    tests.leaks.GRACE = 0.1

@pytest.fixture(scope="module")
def shared():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server
"""

TESTS = """
import asyncio, socket, subprocess, sys, threading

KEPT = []

def test_thread():
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def test_child():
    KEPT.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

def test_ended_child_that_was_not_waited_for():
    KEPT.append(subprocess.Popen([sys.executable, "-c", ""]))

def test_socket():
    KEPT.append(socket.create_server(("127.0.0.1", 0)))

async def test_task():
    KEPT.append(asyncio.create_task(asyncio.sleep(1000)))

async def test_nothing(shared):
    with socket.create_server(("127.0.0.1", 0)):
        await asyncio.to_thread(int)
        await (await asyncio.create_subprocess_exec(sys.executable, "-c", "")).wait()
        await asyncio.create_task(asyncio.sleep(0))
"""


def test_each_kind_fails_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread, a child, a socket and a task fail the test that leaves them, and no other."""
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = run_pytest(tmp_path, asyncio_mode="auto")
    left = re.findall(r"^ERROR test_it.py::test_(\w+) .*", run.stdout, re.MULTILINE)
    kinds = ["thread", "child", "ended_child_that_was_not_waited_for", "socket", "task"]
    assert left == kinds, run.stdout + run.stderr
    assert "6 passed, 5 errors" in run.stdout
