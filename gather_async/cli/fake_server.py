"""``fake-server``: a fake Gather API to point any program at."""

import argparse
import asyncio
from typing import Any

from gather_async.cli.output import ExitStatus, Output
from gather_async.protocol.rolling_windows import DEFAULT_RATE_LIMITS
from gather_async.testing import FakeGather

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "fake-server",
        help="serve a fake Gather API on this machine",
        description="Serve a fake Gather API on 127.0.0.1 until Ctrl-C."
        " Standard output gets two lines for the shell that use it.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, default=0, metavar="N", help="any free one by default")
    parser.add_argument("--edition", choices=("A", "B"), default="A", help="of the documentation")
    parser.add_argument(
        "--audio-seconds", type=float, default=2.0, metavar="S", help="how long audio takes"
    )
    parser.add_argument(
        "--rate-limits", action="store_true", help="100 a minute and 1000 an hour, as documented"
    )
    parser.add_argument("--api-key", metavar="KEY", help="the only key it takes; made by default")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, output: Output) -> int:
    if not 0 <= options.port < 65_536:
        output.error("--port takes a number from 0 to 65535.")
        return ExitStatus.USAGE
    return asyncio.run(_serve(options, output))


async def _serve(options: argparse.Namespace, output: Output) -> int:
    """Serve until cancelled."""
    fake = FakeGather(
        port=options.port,
        edition=options.edition,
        audio_seconds=options.audio_seconds,
        rate_limits=DEFAULT_RATE_LIMITS if options.rate_limits else None,
        api_key=options.api_key,
    )
    try:
        await fake.start()
    except OSError as error:
        output.error(f"Port {options.port} can't be used: {error.strerror}. Choose another --port.")
        return ExitStatus.FAILURE
    try:
        output.print(f"export GATHER_BASE_URL={fake.base_url}")
        output.print(f"export GATHER_API_KEY={fake.api_key}")
        output.info(f"A user id for questions: {fake.user_id}. Ctrl-C ends the server.")
        await asyncio.get_running_loop().create_future()
    finally:
        await fake.aclose()
    return ExitStatus.OK
