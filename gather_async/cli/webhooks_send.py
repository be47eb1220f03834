"""``webhooks send EVENT --to URL``: try an endpoint with signed samples."""

import argparse
import asyncio
import time
from typing import Any

import aiohttp

from gather_async.cli.exit_status import ExitStatus
from gather_async.cli.output import Screen
from gather_async.cli.webhook_secret import add_secret, secret_of
from gather_async.webhooks.samples import SAMPLE_EVENTS, SignedSample, sample

__all__ = ["add_to"]

# The sender waits so long. Source: /api-reference/webhooks
_TIMEOUT = 5.0
# Above what any endpoint should tolerate; five minutes are usual.
_OLD = 3600.0


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "send",
        help="send a signed sample event to an endpoint",
        description="Send a sample event as Gather would, and tell what came back. A good"
        " endpoint answers 2xx within 5 seconds, and 401 to --tamper and --old.",
        epilog=f"events: {', '.join(SAMPLE_EVENTS)}, or any other name",
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
    parser.set_defaults(command=_run)


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("the address must start with http:// or https://")
    return text


def _run(options: argparse.Namespace, screen: Screen) -> int:
    if options.repeat < 1:
        screen.fail("--repeat takes a number from 1.")
        return ExitStatus.USAGE
    delivery = sample(
        options.event,
        secret=secret_of(options),
        tamper=options.tamper,
        age=_OLD if options.old else 0.0,
    )
    is_forged = options.tamper or options.old
    return asyncio.run(_send(options, delivery, is_forged=is_forged, screen=screen))


async def _send(
    options: argparse.Namespace, delivery: SignedSample, *, is_forged: bool, screen: Screen
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
            screen.say(
                f"{number}/{options.repeat}  {answer}  {took:.0f} ms{wanted}",
                style="" if is_right else "red",
            )
    return ExitStatus.FAILURE if failed else ExitStatus.OK
