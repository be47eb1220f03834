"""The events of a call: what they name, and how listeners are kept."""

import ast
import functools
import logging
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from gather_async import (
    CallSucceeded,
    ConfigurationError,
    GatherClient,
    GatherPool,
    NotFoundError,
    RequestStarted,
)
from gather_async.observability import (
    ClientEvent,
    EventListeners,
    log_level,
    operation_of,
    start_log,
    without_frames,
)
from gather_async.protocol.requests import Request
from gather_async.webhooks import HandlerEnded

ROOT = Path(__file__).parents[2]
SOURCES = [each.read_text("utf-8") for each in (ROOT / "gather_async").rglob("*.py")]
PAGE = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")

EVENT = RequestStarted(
    call=1,
    operation="teams.list",
    method="GET",
    route="/qsi/gather/teams",
    attempt=1,
    status=None,
    request_id=None,
    quota_wait=0.0,
    backoff=0.0,
    network=0.0,
)


@pytest.mark.parametrize("kind", [RequestStarted, CallSucceeded])
def test_an_event_without_fields_of_its_own(kind: type[ClientEvent]) -> None:
    """It is a value like the others: frozen, compared by class and fields, copied, shown."""
    fields = attrs.asdict(EVENT)
    event = kind(**fields)
    assert event == kind(**fields) != attrs.evolve(event, call=2)
    assert {event, kind(**fields)} == {event}
    assert event != ClientEvent(**fields)
    assert pickle.loads(pickle.dumps(event)) == event
    assert repr(event).startswith(f"{kind.__name__}(call=1, operation='teams.list'")
    assert not hasattr(event, "__dict__")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.call = 2  # type: ignore[misc]  # that is the test


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Give the package's logger back as it was."""
    logger = logging.getLogger("gather_async")
    level, handlers = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.mark.parametrize(
    ("method", "path", "operation", "route"),
    [
        ("GET", "questions", "questions.list", "/qsi/gather/questions"),
        ("GET", "questions/bulk-update", "questions.get", "/qsi/gather/questions/{id}"),
        ("POST", "message-groups", "message_groups.create", "/qsi/gather/message-groups"),
        ("PATCH", "interviews/bulk-update", "interviews.bulk_update", None),
        (
            "GET",
            "candidate-interviews/ann@example.com/results",
            "candidate_interviews.results",
            "/qsi/gather/candidate-interviews/{id}/results",
        ),
        ("DELETE", "questions/q-1", "request", "/{path}"),
        ("GET", "questions/q-1/q-2", "request", "/{path}"),
        ("GET", "questions/", "request", "/{path}"),
        ("GET", "questions//results", "request", "/{path}"),
        ("GET", "people/ann", "request", "/{path}"),
        ("GET", "/elsewhere/questions", "request", "/{path}"),
        ("GET", "/questions", "request", "/{path}"),
    ],
)
def test_a_path_becomes_a_template(
    method: str, path: str, operation: str, route: str | None
) -> None:
    """An id in a known path is named so; a path that isn't known shows nothing of itself."""
    full = path if path.startswith("/") else f"/qsi/gather/{path}"
    expected = (operation, route or full)
    assert operation_of(Request(method=method, path=full)) == expected


class _AsyncListener:
    async def __call__(self, event: ClientEvent) -> None:
        """Never be called."""


async def _listen(event: ClientEvent) -> None:
    """Never be called."""


@pytest.mark.parametrize("listener", [_listen, functools.partial(_listen), _AsyncListener()])
def test_an_async_listener_is_refused_with_a_reason(listener: object) -> None:
    """No call waits for a listener, so one that must be awaited would never run."""
    for make in (GatherClient, GatherPool):
        options = {"api_key": "qapi_test"} if make is GatherClient else {}
        with pytest.raises(ConfigurationError, match="can't be async: no call waits for it"):
            make(on_event=listener, **options)  # type: ignore[arg-type]  # that is the test


def test_a_listener_that_is_no_function_is_refused() -> None:
    """A mistake shows when the client is made, not when it calls."""
    with pytest.raises(ConfigurationError, match="on_event must be a function"):
        GatherClient("qapi_test", on_event="print")  # type: ignore[arg-type]  # that is the test


def test_a_subscription_ends_alone_and_once() -> None:
    """Each subscription of one listener is its own; to end it again changes nothing."""
    seen: list[ClientEvent] = []
    events = EventListeners[ClientEvent](seen.append)
    end = events.subscribe(seen.append)
    events(EVENT)
    end()
    end()
    events(EVENT)
    assert seen == [EVENT] * 3


def test_events_are_frozen_and_hold_no_id() -> None:
    """A listener can't change what the next one gets."""
    with pytest.raises(AttributeError):
        EVENT.status = 200  # type: ignore[misc]  # that is the test


def test_frames_are_taken_off_a_circle_of_errors() -> None:
    """A chain of causes that comes back to its start ends, too."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - its message is of no interest
        int("x")
    first = raised.value
    first.__cause__ = second = NotFoundError.__new__(NotFoundError)
    second.__cause__ = first
    assert without_frames(first).__traceback__ is None


@pytest.mark.parametrize(
    ("word", "level"),
    [("debug", logging.DEBUG), ("INFO", logging.INFO), (" 1 ", logging.INFO), ("", None)],
)
def test_gather_log_names_a_level(
    monkeypatch: pytest.MonkeyPatch, word: str, level: int | None
) -> None:
    """A word that is no level asks for what most want to see."""
    monkeypatch.setenv("GATHER_LOG", word)
    assert log_level() == level


def test_gather_log_writes_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program without logging of its own shows the package's, once, however many clients."""
    monkeypatch.setenv("GATHER_LOG", "debug")
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest has one
    GatherClient("qapi_test")
    GatherClient("qapi_test")
    logging.getLogger("gather_async.session").debug("seen")
    assert capsys.readouterr().err.count("DEBUG gather_async.session: seen\n") == 1
    logging.root.handlers = [logging.StreamHandler(sys.stdout)]
    logging.getLogger("gather_async.session").debug("seen by the program's own")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("seen by the program's own\n", "")


def test_gather_log_leaves_a_handler_of_the_program_alone(
    monkeypatch: pytest.MonkeyPatch, logger: logging.Logger
) -> None:
    """Who logs the package already decides where, and from which level."""
    own = logging.NullHandler()
    logger.addHandler(own)
    level = logger.level
    monkeypatch.setenv("GATHER_LOG", "debug")
    start_log()
    assert (logger.handlers[-1], logger.level) == (own, level)


def _logged_fields() -> set[str]:
    """Return the names of all fields that the package's records have."""
    found = {each.name for each in attrs.fields(HandlerEnded)} | {"operation", "method", "route"}
    for source in SOURCES:
        found.update(re.findall(r'"gather_(?!async)(\w+)": ', source))
        for node in ast.walk(ast.parse(source)) if "_fields(" in source else ():
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id in {"log_fields", "_log_failure"}:
                found.update(each.arg for each in node.keywords if each.arg)
    return found


def test_the_page_names_every_field_of_a_record() -> None:
    """Each field of a record stands in the documentation, and no other does."""
    assert set(re.findall(r"gather_(?!async)(\w+)", PAGE)) == _logged_fields()


def test_the_page_names_every_logger() -> None:
    """Each logger of the package stands in the documentation's table, and no other."""
    used: set[str] = set()
    for source in SOURCES:
        used.update(re.findall(r'getLogger\("(gather_async[.\w]*)"\)', source))
    assert set(re.findall(r"^\| `(gather_async\.\w+)` \|", PAGE, re.MULTILINE)) == used - {
        "gather_async"
    }


def test_the_page_names_every_metric_and_attribute() -> None:
    """What is exported is found in the documentation by its name, and no other name is."""
    source = (ROOT / "gather_async" / "otel.py").read_text(encoding="utf-8")
    pattern = r"((?:gather|http|url|server|error)\.[a-z_.]+)"
    used = set(re.findall(f'"{pattern}"', source))
    assert len(used) > 15
    section = PAGE.partition("## OpenTelemetry")[2]
    assert set(re.findall(f"`{pattern}`", section)) - {"url.full", "gather.request"} == used
