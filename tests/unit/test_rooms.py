"""Half of a run's workers pause for a test that measures real time, and the others go on."""

import fcntl
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import rooms

Enter = Callable[..., Generator[None, object, object]]


@pytest.fixture
def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Begin a test in a worker, as far as its room goes; it ends as what is returned is closed."""

    def enter(worker: str, *, timed: bool = False) -> Generator[None, object, object]:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        folders = SimpleNamespace(getbasetemp=lambda: tmp_path / worker)
        item: Any = SimpleNamespace(
            config=SimpleNamespace(_tmp_path_factory=folders),
            get_closest_marker=lambda name: timed and name == "timed",
        )
        running = rooms.pytest_runtest_protocol(item)
        next(running)
        return running

    return enter


def _is_free(path: Path) -> bool:
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_test_keeps_its_room_from_being_emptied(enter: Enter, tmp_path: Path) -> None:
    """A timed test of the other room waits until it is over; other tests don't."""
    running = enter("gw1")
    enter("gw3").close()
    assert not _is_free(tmp_path / "room-1")
    assert _is_free(tmp_path / "door-1")
    running.close()
    assert _is_free(tmp_path / "room-1")


def test_a_timed_test_empties_the_other_room(enter: Enter, tmp_path: Path) -> None:
    """No test enters that one meanwhile; its own goes on."""
    timed = enter("gw2", timed=True)
    assert not _is_free(tmp_path / "door-1")
    assert not _is_free(tmp_path / "room-1")
    enter("gw0").close()
    timed.close()
    enter("gw1").close()


def test_two_timed_tests_do_not_wait_for_each_other(enter: Enter) -> None:
    """Each has the other's room, in which no other test is."""
    first = enter("gw0", timed=True)
    second = enter("gw1", timed=True)
    first.close()
    second.close()
