"""``wait-audio ID...``: print each question as its audio is ready."""

import argparse
import asyncio
from typing import Any

from gather_async.cli.context import connect
from gather_async.cli.output import ExitStatus, Output
from gather_async.errors import AudioGenerationError, AudioTimeoutError

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "wait-audio",
        help="wait until the audio of questions is ready",
        description="Print a line for each question as its audio generation ends:"
        " id, ready or failed or late, and the audio's address, apart by tabs.",
        allow_abbrev=False,
    )
    parser.add_argument("ids", nargs="+", metavar="ID")
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="SECONDS", help="in all; 300 by default"
    )
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_wait(options, output))


async def _wait(options: argparse.Namespace, output: Output) -> int:
    """Print each end as it comes; what isn't over in time is printed last."""
    waiting = dict.fromkeys(options.ids)
    failed = 0
    async with connect() as gather:
        with output.err.status(f"{len(waiting)} to go", spinner="line") as status:
            ends = gather.questions.wait_until_all_audio_ready(waiting, timeout=options.timeout)
            try:
                async for ended in ends:
                    if isinstance(ended, AudioGenerationError):
                        failed += 1
                        question, outcome = ended.question, "failed"
                    else:
                        question, outcome = ended, "ready"
                    output.row(question.id, outcome, question.audio_url)
                    waiting.pop(question.id, None)
                    status.update(f"{len(waiting)} to go")
            except AudioTimeoutError:
                for late in waiting:
                    output.row(late, "late", "")
    return ExitStatus.FAILURE if failed or waiting else ExitStatus.OK
