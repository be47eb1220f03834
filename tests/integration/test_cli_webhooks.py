"""The webhook commands, against each other and against endpoints that are wrong."""

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from gather_async.cli import main
from gather_async.cli.output import Stream
from gather_async.postgres import PostgresInbox
from gather_async.redis import RedisInbox
from gather_async.webhooks import (
    ClaimReport,
    HandlerFailure,
    Inbox,
    SQLiteInbox,
    StoredEvent,
    verify,
)
from gather_async.webhooks.events import decode_event

SECRET = "hush"


@contextlib.contextmanager
def _listening(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `webhooks listen` and return its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "gather_async", "webhooks", "listen", "--port", "0", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads here
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        try:
            yield first.split()[2], process
        finally:
            process.kill()


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `webhooks listen` and return its address."""
    monkeypatch.setenv("GATHER_WEBHOOK_SECRET", SECRET)
    with _listening() as started:
        yield started


def test_what_send_sends_listen_prints_once(
    listening: tuple[str, subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A repeated event is answered 200 each time and printed once; forgeries are not printed."""
    url, process = listening
    send = ["webhooks", "send", "question.audio_generated", "--to", url]
    assert main([*send, "--repeat", "3"]) == 0
    answers = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert answers == [["1/3", "200"], ["2/3", "200"], ["3/3", "200"]]
    assert main([*send, "--tamper"]) == 0
    assert main([*send, "--old"]) == 0
    assert "is none of" not in capsys.readouterr().err
    assert main([*send, "--secret", "wrong"]) == 1
    assert "401" in capsys.readouterr().out
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["question.audio_generated"]
    assert events[0]["data"]["questionId"]
    reported = [line.split()[2] for line in err.splitlines() if line.startswith("POST")]
    assert reported == ["200", "200", "200", "401", "401", "401"]


def test_listen_ends_with_its_reader(listening: tuple[str, subprocess.Popen[str]]) -> None:
    """What can't be printed is answered 503, so that it comes again, and the command ends."""
    url, process = listening
    assert process.stdout is not None
    process.stdout.close()
    assert main(["webhooks", "send", "interview.created", "--to", url]) == 1
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


async def test_listen_forwards_what_it_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint behind gets the body and its signature, and its answer is the sender's."""
    monkeypatch.setenv("GATHER_WEBHOOK_SECRET", SECRET)
    received: list[str] = []

    async def take(request: web.Request) -> web.Response:
        signature = request.headers["X-Qualifi-Signature"]
        received.append(verify(await request.read(), signature, secret=SECRET).event)
        return web.Response(status=204 if len(received) == 1 else 418)

    async with _served(take) as behind:
        with _listening("--forward-to", behind) as (url, _):
            send = ["webhooks", "send", "interview.created", "--to", url]
            assert await asyncio.to_thread(main, send) == 0
            assert await asyncio.to_thread(main, [*send, "--tamper"]) == 0
            assert await asyncio.to_thread(main, send) == 1
    assert received == ["interview.created"] * 2


async def test_listen_answers_503_where_the_endpoint_behind_is_gone(
    unused_tcp_port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be forwarded isn't acknowledged, so that it comes again."""
    monkeypatch.setenv("GATHER_WEBHOOK_SECRET", SECRET)
    with _listening("--forward-to", f"http://127.0.0.1:{unused_tcp_port}/") as (url, _):
        send = ["webhooks", "send", "interview.created", "--to", url]
        assert await asyncio.to_thread(main, send) == 1
    assert "1/1  503" in capsys.readouterr().out


def test_an_event_that_is_not_known_is_sent_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any name can be sent; one that is misspelt is not taken for known in silence."""
    monkeypatch.setenv("GATHER_WEBHOOK_SECRET", SECRET)
    closed = "http://127.0.0.1:1/"
    assert main(["webhooks", "send", "question.audio_generatd", "--to", closed]) == 1
    said = capsys.readouterr()
    assert "did you mean question.audio_generated?" in said.err
    assert "interview.created" in said.err
    assert "no answer" in said.out


def test_send_takes_the_data_of_a_file(
    listening: tuple[str, subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """--data sends data of one's own, also a whole event as listen prints it, also from stdin."""
    url, process = listening
    send = ["webhooks", "send", "interview.created", "--to", url, "--data"]
    (tmp_path / "data.json").write_text('{"interviewId": "mine", "new": [1]}')
    assert main([*send, str(tmp_path / "data.json")]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO('{"event": "x", "data": {"interviewId": "2"}}'))
    assert main([*send, "-"]) == 0
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    events = [json.loads(line) for line in out.splitlines()]
    assert [each["data"] for each in events] == [
        {"interviewId": "mine", "new": [1]},
        {"interviewId": "2"},
    ]
    assert {each["event"] for each in events} == {"interview.created"}


def _stored(event: str, **data: object) -> StoredEvent:
    text = json.dumps({"event": event, "timestamp": "2026-01-01T00:00:00Z", "data": data})
    return StoredEvent.of(decode_event(text), text, received_at=1_767_225_600.0)


async def _fill(inbox: Inbox) -> None:
    """Put a dead, an ignored and a waiting event into an inbox, in this order."""
    await inbox.put(_stored("interview.created", interviewId="1"))
    await inbox.put(_stored("question.audio_generated", questionId="2"))
    claimed = await inbox.claim("", ["email"], limit=2, lease=60.0)
    dead = {"email": HandlerFailure(failures=5, error="RuntimeError: the server is away")}
    first, second = claimed.events
    await inbox.report(
        [ClaimReport(claimed=first, dead=dead), ClaimReport(claimed=second, is_ignored=True)]
    )
    await inbox.put(_stored("candidate_interview.completed", candidateInterviewId="3"))
    await inbox.aclose()


@pytest.fixture
def inbox(tmp_path: Path) -> str:
    """Return the path of an inbox with a dead, an ignored and a waiting event."""
    path = str(tmp_path / "in.db")
    asyncio.run(_fill(SQLiteInbox(path)))
    return path


INBOX = ["webhooks", "inbox"]


@pytest.mark.parametrize("form", ["sqlite:{}", "sqlite://{}", "{}"])
def test_an_inbox_is_listed(inbox: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each event is a line with its key, name, state, and the handlers that failed."""
    assert main([*INBOX, "list", "--inbox", form.format(inbox)]) == 0
    shown = capsys.readouterr()
    rows = [line.split("\t") for line in shown.out.splitlines()]
    assert [row[1:3] for row in rows] == [
        ["interview.created", "dead"],
        ["question.audio_generated", "ignored"],
        ["candidate_interview.completed", "waiting"],
    ]
    assert [row[5] for row in rows] == ["email", "", ""]
    assert "in all 1 waiting, 0 done, 1 ignored, 1 dead" in shown.err


def test_dead_letters_are_listed_with_their_errors(
    inbox: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The everyday question has a command of its own; --json has bodies and tracebacks."""
    monkeypatch.setenv("GATHER_INBOX", inbox)
    assert main(["webhooks", "dead-letters", "--json"]) == 0
    (letter,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (letter["event"], letter["state"]) == ("interview.created", "dead")
    assert letter["failed_handlers"] == {"email": "RuntimeError: the server is away"}
    assert letter["body"]["data"] == {"interviewId": "1"}


def _states(inbox: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main([*INBOX, "list", "--inbox", inbox]) == 0
    return [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("action", "options", "states"),
    [
        ("replay", ["--state", "dead"], ["waiting", "ignored", "waiting"]),
        ("replay", ["--event", "interview.created"], ["waiting", "ignored", "waiting"]),
        ("replay", ["--state", "ignored"], ["dead", "waiting", "waiting"]),
        ("discard", ["--state", "waiting"], ["dead", "ignored", "done"]),
        ("discard", ["--event", "interview.created"], ["done", "ignored", "waiting"]),
        ("discard", ["--state", "dead", "--handler", "sms"], ["dead", "ignored", "waiting"]),
        ("discard", ["--state", "dead", "--handler", "email"], ["done", "ignored", "waiting"]),
        ("replay", ["--tenant", "another"], ["dead", "ignored", "waiting"]),
    ],
)
def test_events_are_replayed_and_discarded(
    inbox: str,
    capsys: pytest.CaptureFixture[str],
    action: str,
    options: list[str],
    states: list[str],
) -> None:
    """What matches changes its state, and nothing else does."""
    command = ["webhooks"] if "--event" in options else INBOX  # both ways are one
    assert main([*command, action, "--inbox", inbox, *options]) == 0
    assert _states(inbox, capsys) == states


@pytest.mark.parametrize("options", [["--tenant", "acme"], ["--state", "dead"]])
def test_keys_are_not_chosen_from(
    inbox: str, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """Keys beside a filter would be changed whether they match it or not: both are refused."""
    assert main([*INBOX, "list", "--inbox", inbox, "--state", "dead"]) == 0
    key = capsys.readouterr().out.split("\t")[0]
    assert main([*INBOX, "discard", "--inbox", inbox, key, *options]) == 2
    assert "not both" in capsys.readouterr().err
    assert _states(inbox, capsys) == ["dead", "ignored", "waiting"]


@pytest.mark.parametrize("name", [None, "other"])
@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_inboxes_on_servers_are_worked_on_alike(
    kind: str,
    name: str | None,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The URL chooses the inbox; --name is what it was called where it was made."""
    url = request.getfixturevalue(f"{kind}_url")
    if kind == "redis":
        inbox: Inbox = RedisInbox(url) if name is None else RedisInbox(url, name=name)
    else:
        inbox = PostgresInbox(url) if name is None else PostgresInbox(url, schema=name)
    asyncio.run(_fill(inbox))
    options = ["--inbox", url, *([] if name is None else ["--name", name])]
    assert main([*INBOX, "list", *options]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[2] for row in rows] == ["dead", "ignored", "waiting"]
    assert main(["webhooks", "dead-letters", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["failed_handlers"].keys() == {"email"}
    assert main(["webhooks", "replay", rows[0][0], *options]) == 0
    assert main(["webhooks", "discard", "--state", "ignored", *options]) == 0
    capsys.readouterr()
    assert main([*INBOX, "list", *options]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[2] for row in rows] == ["waiting", "done", "waiting"]


def test_single_events_are_named_by_their_keys(
    inbox: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that names nothing is a failure, beside what was changed."""
    assert main([*INBOX, "list", "--inbox", inbox, "--state", "dead"]) == 0
    key = capsys.readouterr().out.split("\t")[0]
    assert main([*INBOX, "replay", "--inbox", inbox, key, "misspelt", "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"replayed": 1}
    assert "1 of the keys" in shown.err
    assert _states(inbox, capsys) == ["waiting", "ignored", "waiting"]


@pytest.mark.parametrize("width", ["80", "120"])
def test_a_terminal_shows_keys_whole(
    inbox: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    """A key is there to be copied, into `replay`."""
    assert main([*INBOX, "list", "--inbox", inbox]) == 0
    keys = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    monkeypatch.setattr(Stream, "isatty", lambda _: True)
    monkeypatch.setenv("COLUMNS", width)
    assert main([*INBOX, "list", "--inbox", inbox]) == 0
    shown = capsys.readouterr().out
    assert [key for key in keys if key not in shown] == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "GATHER_INBOX"),
        ("sqlite:absent.db", "no inbox absent.db"),
        ("mongodb://me:hush@127.0.0.1/", "no mongodb inboxes"),
        ("redis://me:hush@127.0.0.1:1/", "127.0.0.1:1"),
        ("postgresql://me:hush@127.0.0.1:1/x", "127.0.0.1"),
        ("postgresql://me:hush@[", "connection string"),
    ],
)
def test_an_inbox_that_is_none_is_wrong_usage(
    address: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The message says what is wrong, makes no file, and shows no password."""
    assert main([*INBOX, "list", "--inbox", address]) == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert "hush" not in shown
    assert not Path("absent.db").exists()
    text = tmp_path / "text"
    text.write_text("no database, but long enough to be read as the head of one" * 9)
    assert main([*INBOX, "list", "--inbox", str(text)]) == 2


@pytest.mark.parametrize(
    ("scheme", "extra"), [("redis", "redis"), ("rediss", "redis"), ("postgresql", "postgres")]
)
def test_a_missing_extra_is_named(
    scheme: str,
    extra: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An inbox on a server says which extra its commands need."""
    monkeypatch.setitem(sys.modules, f"gather_async.{extra}", None)
    assert main([*INBOX, "list", "--inbox", f"{scheme}://me:hush@127.0.0.1:1/"]) == 2
    shown = capsys.readouterr().err
    assert f"pip install 'gather-async[{extra}]'" in shown
    assert "hush" not in shown


@contextlib.asynccontextmanager
async def _served(
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> AsyncIterator[str]:
    """Serve an endpoint, and return its address."""
    app = web.Application()
    app.router.add_post("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.fixture
async def careless() -> AsyncIterator[str]:
    """Serve an endpoint that takes anything."""

    async def take(_: web.Request) -> web.Response:
        return web.Response()

    async with _served(take) as url:
        yield url


@pytest.mark.parametrize("forgery", ["--tamper", "--old"])
async def test_an_endpoint_that_takes_a_forgery_fails(
    careless: str, capsys: pytest.CaptureFixture[str], forgery: str
) -> None:
    """An endpoint that answers 200 to a forgery is not good."""
    send = ["webhooks", "send", "x", "--to", careless, "--secret", SECRET]
    assert await asyncio.to_thread(main, send) == 0
    assert await asyncio.to_thread(main, [*send, forgery]) == 1
    assert "(expected 401)" in capsys.readouterr().out


def test_an_endpoint_that_is_not_there_fails(
    unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """No answer is a failure, reported in a line."""
    url = f"http://127.0.0.1:{unused_tcp_port}/"
    assert main(["webhooks", "send", "x", "--to", url, "--secret", SECRET]) == 1
    assert "no answer: " in capsys.readouterr().out


async def test_a_taken_port_is_reported(careless: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A port that is in use gives one line and 1."""
    port = careless.rpartition(":")[2].rstrip("/")
    listen = ["webhooks", "listen", "--port", port, "--secret", SECRET]
    assert await asyncio.to_thread(main, listen) == 1
    assert "can't be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["listen", "--port", "70000", "--secret", SECRET], "65535"),
        (["listen"], "GATHER_WEBHOOK_SECRET"),
        (["send", "x", "--to", "ftp://example", "--secret", SECRET], "http://"),
        (["send", "x", "--to", "http://127.0.0.1:1/"], "GATHER_WEBHOOK_SECRET"),
        (["send", "x", "--to", "http://127.0.0.1:1/", "--repeat", "0"], "--repeat"),
        (["send", "x", "--to", "http://[::1/", "--secret", SECRET], "no address"),
        (["send", "x", "--to", "http://a/", "--secret", SECRET, "--data", "absent"], "absent"),
        (["listen", "--host", "", "--secret", SECRET], "--host"),
        (["listen", "--host", "no such host", "--secret", SECRET], "--host"),
        (["listen", "--forward-to", "nowhere", "--secret", SECRET], "--forward-to"),
        ([], "COMMAND"),
    ],
)
def test_wrong_usage_sends_nothing(
    argv: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A command that can't work gives 2 and says why."""
    monkeypatch.delenv("GATHER_WEBHOOK_SECRET", raising=False)
    assert main(["webhooks", *argv]) == 2
    assert words in capsys.readouterr().err
