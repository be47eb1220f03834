"""Rooms that share out the workers of a run: one is emptied for a test that measures real time.

There are more workers than cores. Who gets how much of a quota would depend on whose turn it is
on a core, so half of the workers pause while a test with the mark ``timed`` runs.
"""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test in its worker's room, or with the other room empty; no time limit counts yet."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return (yield)
    folder: Path = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    own = int(worker.removeprefix("gw")) % 2
    with ExitStack() as stack:
        if item.get_closest_marker("timed"):
            stack.enter_context(_locked(folder / f"door-{1 - own}", fcntl.LOCK_EX))
            stack.enter_context(_locked(folder / f"room-{1 - own}", fcntl.LOCK_EX))
        else:
            # Through the door, or a room that tests enter all the time would never be empty.
            with _locked(folder / f"door-{own}", fcntl.LOCK_EX):
                stack.enter_context(_locked(folder / f"room-{own}", fcntl.LOCK_SH))
        return (yield)


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, kind)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing wouldn't: a forked child may have it open
