"""A webhook server that the kill test starts and kills; handlers write down what they finished.

Run as ``python kill_server.py INBOX LOG FD``: for each line on its standard input it
forks a process that serves on the listening socket FD, and prints the process's id.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from aiohttp import web

from gather_async.webhooks import (
    EventState,
    HandlerPolicy,
    Inbox,
    SQLiteInbox,
    WebhookEvent,
    WebhookReceiver,
)

SECRET = "kill-test-secret"
INBOX = web.AppKey("inbox", Inbox)


def build(inbox: Path, log: Path) -> WebhookReceiver:
    """Return a receiver with two handlers, of which the second sometimes fails first."""
    handling = HandlerPolicy(lease=0.3, base=0.01, cap=0.05, poll=0.05, attempts=1000)
    hooks = WebhookReceiver(SECRET, inbox=SQLiteInbox(inbox), handling=handling)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    failed: set[str] = set()

    def note(word: str, event: WebhookEvent) -> None:
        number = event.data["number"]
        os.write(output, f"{word} {number} {os.getpid()}\n".encode())

    @hooks.on("*", name="plain")
    async def plain(event: WebhookEvent) -> None:
        note("plain-begins", event)
        await asyncio.sleep(0)
        note("plain-ends", event)

    @hooks.on("*", name="shaky")
    async def shaky(event: WebhookEvent) -> None:
        if event.data["number"] % 5 == 0 and event.dedupe_key not in failed:
            failed.add(event.dedupe_key)
            raise OSError("passing")
        note("shaky-ends", event)

    return hooks


async def serve(inbox: Path, log: Path, fd: int) -> None:
    """Serve until killed."""
    hooks = build(inbox, log)
    app = web.Application()
    app.router.add_post("/", hooks.aiohttp_handler())
    app.router.add_get("/finished", finished)
    app[INBOX] = hooks.inbox
    app.cleanup_ctx.append(hooks.cleanup_ctx)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, socket.socket(fileno=fd), backlog=1024).start()
    await asyncio.Event().wait()


async def finished(request: web.Request) -> web.Response:
    """Answer once nothing waits in the inbox any more."""
    while (await request.app[INBOX].counts())[EventState.WAITING]:  # noqa: ASYNC110 - as others do
        await asyncio.sleep(0.02)
    return web.Response()


def main(inbox: Path, log: Path, fd: int) -> None:
    """Fork a server for each line of input; imports are paid for once."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.getLogger("gather_async.webhooks").setLevel(logging.ERROR)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        pid = os.fork()
        if not pid:
            try:
                asyncio.run(serve(inbox, log, fd))
            finally:
                os._exit(1)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
