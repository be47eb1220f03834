"""``webhooks listen``: print verified events as they come."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from gather_async.cli.exit_status import ExitStatus
from gather_async.cli.output import Screen
from gather_async.cli.plain import to_plain
from gather_async.cli.webhook_secret import add_secret, secret_of
from gather_async.webhooks import WebhookEvent, WebhookReceiver

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "listen",
        help="print verified events as they come",
        description="Receive webhooks at any path until Ctrl-C. Standard output gets one JSON"
        " object for each new event, standard error a line for each delivery.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="0: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1 by default")
    add_secret(parser)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, screen: Screen) -> int:
    if not 0 <= options.port < 65_536:
        screen.fail("--port takes a number from 0 to 65535.")
        return ExitStatus.USAGE
    return asyncio.run(_listen(options, secret_of(options), screen))


async def _listen(options: argparse.Namespace, secret: str, screen: Screen) -> int:
    """Serve until cancelled."""
    hooks = WebhookReceiver(secret)

    @hooks.on("*")
    async def show(event: WebhookEvent) -> None:
        moment = to_plain(event.timestamp)
        screen.json({"event": event.event, "timestamp": moment, "data": to_plain(event.data)})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _told(hooks.aiohttp_handler(), screen))
    runner = web.AppRunner(app, access_log=None)
    async with hooks:
        await runner.setup()
        try:
            await web.TCPSite(runner, options.host, options.port).start()
            port = runner.addresses[0][1]
            screen.note(f"Listening on http://{options.host}:{port}/ until Ctrl-C.")
            await asyncio.get_running_loop().create_future()
        except OSError as error:
            screen.fail(f"{options.host}:{options.port} can't be used: {error.strerror}.")
            return ExitStatus.FAILURE
        finally:
            await runner.cleanup()
    return ExitStatus.OK


def _told(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], screen: Screen
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler that also tells what each delivery was answered, and why."""

    async def take(request: web.Request) -> web.StreamResponse:
        response = await handler(request)
        text = response.text if isinstance(response, web.Response) else None
        screen.note(f"{request.method} {request.path}: {response.status} {text or ''}".rstrip())
        return response

    return take
