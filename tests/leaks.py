"""The check that a test leaves nothing behind: no thread, task, child process or socket.

What is left slows or fails a later test, far from its cause: virtual time, for one, waits
for every thread. A fixture of a wider scope may hold such things, as the throw-away servers do.
"""

import asyncio
import inspect
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.servers import SERVER_IDS

GRACE = 2.0  # real seconds for what is ending: an executor's thread, aiohttp's lingering close
_POLL = 0.002
_TASKS = Path("/proc/self/task")  # Linux only

_before = pytest.StashKey[set[object]]()
_shared = pytest.StashKey[AbstractSet[object]]()


@pytest.fixture(autouse=True)
def leaves_no_task(request: pytest.FixtureRequest) -> None:
    """Check the tasks of an asynchronous test."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_checked_tasks")


@pytest_asyncio.fixture
async def _checked_tasks() -> AsyncIterator[None]:
    """Fail the test if a task of its loop is left when the other fixtures are done."""
    before = asyncio.all_tasks()
    yield
    ends = time.monotonic() + GRACE
    while left := asyncio.all_tasks() - before - {asyncio.current_task()}:
        if time.monotonic() > ends:
            pytest.fail(f"The test leaves tasks behind: {sorted(map(repr, left))}", pytrace=False)
        await asyncio.sleep(_POLL)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Note what is there before a test's own fixtures."""
    item.stash[_before] = set(_things())
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Note what a fixture of several tests holds."""
    if fixturedef.scope == "function":
        return (yield)
    before = set(_things())
    result = yield
    stash = request.config.stash
    stash[_shared] = stash.get(_shared, frozenset()) | (_things().keys() - before)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Fail the test if a thread, a child process or a socket is left after its fixtures."""
    result = yield
    allowed = item.stash[_before] | item.config.stash.get(_shared, frozenset())
    ends = time.monotonic() + GRACE
    while left := sorted(name for thing, name in _things().items() if thing not in allowed):
        if time.monotonic() > ends:
            pytest.fail(f"The test leaves behind: {', '.join(left)}.", pytrace=False)
        time.sleep(_POLL)
    return result


def _things() -> dict[object, str]:
    """Return what this process holds, by identity, with its name."""
    things: dict[object, str] = {thread: repr(thread) for thread in threading.enumerate()}
    things |= {("child", pid): f"child process {pid}" for pid in _children() - SERVER_IDS}
    return things | {("socket", inode): f"socket {fd}" for fd, inode in _sockets()}


def _sockets() -> Iterator[tuple[int, int]]:
    """Yield file descriptor and inode of each open socket."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - a fifth of Path's time, twice a test
        with suppress(OSError):  # the descriptor that lists the folder is closed by now
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                yield int(name), status.st_ino


def _children() -> set[int]:
    """Return the ids of child processes, ended ones that were never waited for included."""
    ids: set[int] = set()
    for thread in threading.enumerate():
        with suppress(OSError):  # the thread has ended, or this isn't Linux
            ids.update(map(int, (_TASKS / str(thread.native_id) / "children").read_text().split()))
    return ids
