"""The webhook commands, against each other and against endpoints that are wrong."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web

from gather_async.cli import main

SECRET = "hush"


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `webhooks listen` and return its address."""
    monkeypatch.setenv("GATHER_WEBHOOK_SECRET", SECRET)
    with subprocess.Popen(
        [sys.executable, "-m", "gather_async", "webhooks", "listen", "--port", "0"],
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


@pytest.fixture
async def careless() -> AsyncIterator[str]:
    """Serve an endpoint that takes anything."""

    async def take(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


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
