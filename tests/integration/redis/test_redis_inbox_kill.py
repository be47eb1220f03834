"""Workers on one Redis server, of which one is killed, and whose clocks disagree."""

import asyncio
import os
import signal
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from gather_async.redis import RedisInbox
from gather_async.webhooks import EventState, HandlerPolicy, WebhookReceiver, sample

# What it writes: one line each for the begin of a run and for a completion that is recorded.
_WORKERS = """
    import asyncio, os, sys, time
    from contextlib import suppress
    from gather_async.clock import SystemClock
    from gather_async.redis import RedisInbox
    from gather_async.webhooks import HandlerPolicy, WebhookReceiver

    url, log = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
    for ahead in sys.argv[3:]:  # a worker each; what they import is imported once
        if os.fork() == 0:
            break
    else:
        with suppress(ChildProcessError):
            while True:
                os.wait()
        sys.exit()

    class Clock(SystemClock):
        def wall(self):
            return time.time() + float(ahead)

        def monotonic(self):
            return time.monotonic() + 1000 * float(ahead)

    policy = HandlerPolicy(lease=2.0, poll=0.05, base=0.05, cap=0.05)
    hooks = WebhookReceiver("s", inbox=RedisInbox(url), handling=policy, clock=Clock())

    def note(word, event, handler):
        os.write(log, f"{word} {event.data['number']} {handler} {os.getpid()}\\n".encode())

    async def run(event, handler):
        note("begin", event, handler)
        await asyncio.sleep(1.0 if event.data["number"] == 60 else 0.01)
        await hooks.complete()
        note("kept", event, handler)

    @hooks.on("interview.updated")
    async def mail(event):
        await run(event, "mail")

    @hooks.on("interview.updated")
    async def crm(event):
        await run(event, "crm")

    async def main():
        async with hooks:
            os.write(1, b"ready\\n")  # at once: the pipe is shared
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""
_HANDLERS = ("mail", "crm")


@pytest.mark.parametrize(
    "ahead",
    [
        pytest.param((0, 0, 0, 0), id="one time", marks=pytest.mark.slow),
        pytest.param((60, 0, -60, 0), id="60 s apart"),
    ],
)
async def test_a_killed_worker_loses_nothing_and_repeats_nothing_that_was_recorded(
    ahead: tuple[int, ...], redis_url: str, tmp_path: Path
) -> None:
    """Of 200 events, 2 handlers and 4 workers, one killed, none is missing or begun too often."""
    log = tmp_path / "log"
    log.touch()
    workers = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(_WORKERS), redis_url, str(log), *map(str, ahead)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    # Receives only: it has no handlers, and is never started.
    hooks = WebhookReceiver("s", inbox=RedisInbox(redis_url), handling=HandlerPolicy())
    killed = 0
    try:
        assert workers.stdout is not None
        for _ in ahead:
            assert await workers.stdout.readline() == b"ready\n"
        for number in range(200):
            signed = sample("interview.updated", secret="s", data={"number": number})
            assert (await hooks.receive(signed.body, signed.headers)).status == 200
            if number == 60:
                killed = await _runner_of(log, number)
                os.kill(killed, signal.SIGKILL)
        while (await hooks.inbox.counts())[EventState.WAITING]:  # noqa: ASYNC110 - of others
            await asyncio.sleep(0.05)
        assert (await hooks.inbox.counts())[EventState.DONE] == 200
        _check(log.read_text().split("\n"), killed)
    finally:
        os.killpg(workers.pid, signal.SIGKILL)
        await workers.communicate()
        await hooks.aclose()


async def _runner_of(log: Path, number: int) -> int:
    """Return the process that began an event whose handlers take long, so that a kill cuts in."""
    while True:
        for line in log.read_text().split("\n")[:-1]:
            if line.startswith(f"begin {number} "):
                return int(line.split()[3])
        await asyncio.sleep(0.001)


def _check(lines: list[str], killed: int) -> None:
    """Each handler succeeded on each event, and only the killed process's runs were repeated."""
    recorded: set[tuple[str, str]] = set()
    begun: Counter[tuple[str, str]] = Counter()
    of_the_killed: set[tuple[str, str]] = set()
    for line in filter(None, lines):
        word, number, handler, pid = line.split()
        if word == "kept":
            recorded.add((number, handler))
            continue
        assert (number, handler) not in recorded, "it was begun after it had been recorded"
        begun[number, handler] += 1
        if int(pid) == killed:
            of_the_killed.add((number, handler))
    everything = {(str(number), handler) for number in range(200) for handler in _HANDLERS}
    assert set(begun) == everything
    # It may have recorded a completion, and died before it wrote that down.
    assert everything - recorded <= of_the_killed
    repeated = {each for each, runs in begun.items() if runs > 1}
    assert repeated <= of_the_killed
    assert len(repeated) <= HandlerPolicy().concurrency
    assert max(begun.values()) <= 2
