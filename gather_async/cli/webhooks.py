"""``webhooks listen`` and ``webhooks send``: receive deliveries, and send samples."""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from gather_async.cli.context import (
    add_common,
    add_json,
    add_secret,
    count,
    format_bind_error,
    host,
    port,
    secret_of,
    url,
)
from gather_async.cli.inbox import add_inbox_to
from gather_async.cli.output import ExitStatus, Output
from gather_async.exchange import connection_reason
from gather_async.webhooks import MemoryInbox, PutResult, StoredEvent, WebhookReceiver
from gather_async.webhooks.events import EVENT_CLASSES
from gather_async.webhooks.handlers import nearest_event
from gather_async.webhooks.signing import SignedSample, sample

__all__ = ["add_to"]

# Seconds between checks whether the reader of standard output is still there.
_READER_CHECK = 0.5
# The sender waits so long. Source: /api-reference/webhooks
_TIMEOUT = 5.0
# Leaves the sender's five seconds time to pass the status on.
_FORWARD_TIMEOUT = 4.5
# Above what any endpoint should tolerate; five minutes are usual.
_OLD = 3600.0
# What an endpoint needs to verify a delivery and to read it.
_FORWARDED = ("Content-Type", "X-Qualifi-Signature")


def add_to(commands: Any) -> None:
    """Add the commands to the program."""
    parser = commands.add_parser(
        "webhooks", help="receive webhooks, or send signed samples", allow_abbrev=False
    )
    inner = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_listen_to(inner)
    _add_send_to(inner)
    add_inbox_to(inner)


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
    parser.add_argument(
        "--port", type=port, default=8080, metavar="N", help="8080 by default; 0: any free one"
    )
    parser.add_argument(
        "--host", type=host, default="127.0.0.1", help="127.0.0.1 by default; ::1 works"
    )
    parser.add_argument(
        "--forward-to",
        type=url,
        metavar="URL",
        help="send each verified delivery on, signature and all, and answer what this answers",
    )
    add_secret(parser)
    add_json(parser, "changes nothing: events are always printed as JSON")
    add_common(parser, connects=False)
    parser.set_defaults(command=_run_listen)


def _run_listen(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_listen(options, secret_of(options), output))


async def _listen(options: argparse.Namespace, secret: str, output: Output) -> int:
    """Serve until cancelled, or until standard output takes nothing more."""
    inbox = _Printer(output)
    hooks = WebhookReceiver(secret, inbox=inbox)
    name = f"[{options.host}]" if ":" in options.host else options.host
    async with hooks, aiohttp.ClientSession(timeout=_timeout(_FORWARD_TIMEOUT)) as session:
        handler = hooks.aiohttp_handler()
        if options.forward_to is not None:
            handler = _forwarding(handler, options.forward_to, session)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", _print_replies(handler, output))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, options.host, options.port).start()
            output.info(f"Listening on http://{name}:{runner.addresses[0][1]}/ until Ctrl-C.")
            while not (output.is_lost or output.has_no_reader()):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(inbox.failed.wait(), _READER_CHECK)
        except OSError as error:
            output.error(format_bind_error(options.host, options.port, error))
            return ExitStatus.FAILURE
        finally:
            await runner.cleanup()
    return ExitStatus.OK


def _timeout(total: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total)


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


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _forwarding(handler: _Handler, to: str, session: aiohttp.ClientSession) -> _Handler:
    """Return a handler that sends on what was verified, repetitions included."""

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()  # first: the receiver reads the stream to its end
        response = await handler(request)
        if not 200 <= response.status < 300:
            return response
        headers = {each: request.headers[each] for each in _FORWARDED if each in request.headers}
        status, answer = await _post(session, to, body, headers)
        return web.Response(status=status or 503, text=f"{to} gave {answer}")

    return forward


def _print_replies(handler: _Handler, output: Output) -> _Handler:
    """Return a handler that also prints the status of each delivery, and the reason."""

    async def take(request: web.Request) -> web.StreamResponse:
        response = await handler(request)
        text = response.text if isinstance(response, web.Response) else None
        output.info(f"{request.method} {request.path}: {response.status} {text or ''}".rstrip())
        return response

    return take


async def _post(
    session: aiohttp.ClientSession, to: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, str]:
    """Return the status of a delivery and what came back; 0 if nothing did."""
    try:
        async with session.post(to, data=body, headers=headers, allow_redirects=False) as response:
            return response.status, str(response.status)
    except TimeoutError:
        return 0, f"no answer within {session.timeout.total:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return 0, f"no answer: {connection_reason(error)}"


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
    parser.add_argument("event", metavar="EVENT", help="its name; see below")
    parser.add_argument("--to", required=True, type=url, metavar="URL", help="the endpoint")
    parser.add_argument(
        "--data",
        type=_data,
        metavar="FILE",
        help="JSON of the event's data, or a whole event as listen prints it; - is stdin",
    )
    add_secret(parser)
    parser.add_argument(
        "--repeat",
        type=count(1),
        default=1,
        metavar="N",
        help="the same event N times, as retries are",
    )
    parser.add_argument("--tamper", action="store_true", help="change the body after signing it")
    parser.add_argument("--old", action="store_true", help="sign it an hour ago")
    add_json(parser, "one JSON object for each delivery")
    add_common(parser, connects=False)
    parser.set_defaults(command=_run_send)


def _data(text: str) -> Mapping[str, Any]:
    try:
        if text == "-":
            raw = sys.stdin.read() if sys.stdin is not None else ""
        else:
            raw = Path(text).read_text(encoding="utf-8")
        found = json.loads(raw)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no JSON: {error}") from None
    if isinstance(found, dict) and isinstance(found.get("event"), str) and "data" in found:
        found = found["data"]
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text} holds no JSON object")
    return found


def _run_send(options: argparse.Namespace, output: Output) -> int:
    if options.event not in EVENT_CLASSES:
        nearest = nearest_event(options.event)
        hint = f": did you mean {nearest}?" if nearest else "."
        known = ", ".join(sorted(EVENT_CLASSES))
        output.info(f"{options.event} is sent, but is none of {known}{hint}", style="yellow")
    delivery = sample(
        options.event,
        secret=secret_of(options),
        data=options.data,
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
    async with aiohttp.ClientSession(timeout=_timeout(_TIMEOUT)) as session:
        for number in range(1, options.repeat + 1):
            start = time.monotonic()
            status, answer = await _post(session, options.to, delivery.body, delivery.headers)
            took = (time.monotonic() - start) * 1e3
            is_right = status == 401 if is_forged else 200 <= status < 300
            failed += not is_right
            wanted = "" if is_right else f"  (expected {'401' if is_forged else '2xx'})"
            if options.json:
                shown = {"status": status or None, "answer": answer, "milliseconds": round(took)}
                output.json({"number": number, **shown, "expected": is_right})
                continue
            output.print(
                f"{number}/{options.repeat}  {answer}  {took:.0f} ms{wanted}",
                style="" if is_right else "red",
            )
    return ExitStatus.FAILURE if failed else ExitStatus.OK
