"""``webhooks listen`` and ``webhooks send``: receive deliveries, and send samples."""

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web

from gather_async.cli.context import add_secret, secret_of
from gather_async.cli.output import ExitStatus, Output
from gather_async.webhooks import MemoryInbox, PutResult, StoredEvent, WebhookReceiver
from gather_async.webhooks.events import EVENT_CLASSES
from gather_async.webhooks.signing import SignedSample, sample

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add both commands to the program."""
    parser = commands.add_parser(
        "webhooks", help="receive webhooks, or send signed samples", allow_abbrev=False
    )
    inner = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_listen_to(inner)
    _add_send_to(inner)


def _add_listen_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "listen",
        help="print verified events as they come",
        description="Receive webhooks at any path until Ctrl-C, or until the reader of standard"
        " output leaves. Standard output gets each new event as its JSON, standard error a line"
        " for each delivery.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="0: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1 by default")
    add_secret(parser)
    parser.set_defaults(command=_run_listen)


def _run_listen(options: argparse.Namespace, output: Output) -> int:
    if not 0 <= options.port < 65_536:
        output.error("--port takes a number from 0 to 65535.")
        return ExitStatus.USAGE
    return asyncio.run(_listen(options, secret_of(options), output))


async def _listen(options: argparse.Namespace, secret: str, output: Output) -> int:
    """Serve until cancelled, or until standard output takes nothing more."""
    inbox = _Printer(output)
    hooks = WebhookReceiver(secret, inbox=inbox)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _print_replies(hooks.aiohttp_handler(), output))
    runner = web.AppRunner(app, access_log=None)
    async with hooks:
        await runner.setup()
        try:
            await web.TCPSite(runner, options.host, options.port).start()
            port = runner.addresses[0][1]
            host = f"[{options.host}]" if ":" in options.host else options.host
            output.info(f"Listening on http://{host}:{port}/ until Ctrl-C.")
            while not (output.is_lost or output.has_no_reader()):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(inbox.failed.wait(), _READER_CHECK)
        except OSError as error:
            output.error(f"{options.host}:{options.port} can't be used: {error.strerror}.")
            return ExitStatus.FAILURE
        finally:
            await runner.cleanup()
    return ExitStatus.OK


class _Printer(MemoryInbox):
    """An inbox that prints: an event that can't be printed is answered 503, and comes again."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output
        self.failed = asyncio.Event()

    async def put(self, event: StoredEvent) -> PutResult:
        """Print a new event, with every field that was sent."""
        if self._output.has_no_reader():
            self.failed.set()
            raise BrokenPipeError
        result = await super().put(event)
        if result is PutResult.NEW:
            self._output.json(json.loads(event.text))
            if self._output.is_lost:
                self.failed.set()
                raise BrokenPipeError
        return result


def _print_replies(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], output: Output
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler that also prints the status of each delivery, and the reason."""

    async def take(request: web.Request) -> web.StreamResponse:
        response = await handler(request)
        text = response.text if isinstance(response, web.Response) else None
        output.info(f"{request.method} {request.path}: {response.status} {text or ''}".rstrip())
        return response

    return take


# Seconds between checks whether the reader of standard output is still there.
_READER_CHECK = 0.5
# The sender waits so long. Source: /api-reference/webhooks
_TIMEOUT = 5.0
# Above what any endpoint should tolerate; five minutes are usual.
_OLD = 3600.0


def _add_send_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "send",
        help="send a signed sample event to an endpoint",
        description="Send a sample event as Gather would, and print what came back. A good"
        " endpoint answers 2xx within 5 seconds, and 401 to --tamper and --old.",
        epilog=f"events: {', '.join(sorted(EVENT_CLASSES))}, or any other name",
        allow_abbrev=False,
    )
    parser.add_argument("event", metavar="EVENT")
    parser.add_argument("--to", required=True, type=_url, metavar="URL")
    add_secret(parser)
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="the same event N times, as retries are"
    )
    parser.add_argument("--tamper", action="store_true", help="change the body after signing it")
    parser.add_argument("--old", action="store_true", help="sign it an hour ago")
    parser.set_defaults(command=_run_send)


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("the address must start with http:// or https://")
    return text


def _run_send(options: argparse.Namespace, output: Output) -> int:
    if options.repeat < 1:
        output.error("--repeat takes a number from 1.")
        return ExitStatus.USAGE
    delivery = sample(
        options.event,
        secret=secret_of(options),
        tamper=options.tamper,
        age=_OLD if options.old else 0.0,
    )
    is_forged = options.tamper or options.old
    return asyncio.run(_send(options, delivery, is_forged=is_forged, output=output))


async def _send(
    options: argparse.Namespace, delivery: SignedSample, *, is_forged: bool, output: Output
) -> int:
    """Send it as often as asked; a failure is any answer that a good endpoint wouldn't give."""
    failed = 0
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for number in range(1, options.repeat + 1):
            start = time.monotonic()
            try:
                async with session.post(
                    options.to, data=delivery.body, headers=delivery.headers, allow_redirects=False
                ) as response:
                    answer, status = str(response.status), response.status
            except TimeoutError:
                answer, status = f"no answer within {_TIMEOUT:.0f} s", 0
            except (aiohttp.ClientError, ValueError) as error:
                answer, status = f"no answer: {error}", 0
            took = (time.monotonic() - start) * 1e3
            is_right = status == 401 if is_forged else 200 <= status < 300
            failed += not is_right
            wanted = "" if is_right else f"  (expected {'401' if is_forged else '2xx'})"
            output.print(
                f"{number}/{options.repeat}  {answer}  {took:.0f} ms{wanted}",
                style="" if is_right else "red",
            )
    return ExitStatus.FAILURE if failed else ExitStatus.OK
