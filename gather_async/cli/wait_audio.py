"""``wait-audio ID...``: print each question as its audio is ready."""

import argparse
import asyncio
from typing import Any

from gather_async.cli.context import add_common, add_json, connect, connection, seconds
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
    parser.add_argument("ids", nargs="+", metavar="ID", help="of a question")
    parser.add_argument(
        "--timeout", type=seconds, default=300.0, metavar="SECONDS", help="in all; 300 by default"
    )
    add_json(parser, "one JSON object a line")
    add_common(parser)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_wait(options, output))


async def _wait(options: argparse.Namespace, output: Output) -> int:
    """Print each end as it comes; what isn't over in time is printed last."""
    waiting = dict.fromkeys(options.ids)
    failed = 0

    def show(id: str, outcome: str, audio_url: str | None) -> None:
        if options.json:
            output.json({"id": id, "outcome": outcome, "audio_url": audio_url})
        else:
            output.row(id, outcome, audio_url)

    async with connect(**connection(options)) as gather:
        with output.err.status(f"{len(waiting)} to go", spinner="line") as status:
            ends = gather.questions.wait_until_all_audio_ready(waiting, timeout=options.timeout)
            try:
                async for ended in ends:
                    if isinstance(ended, AudioGenerationError):
                        failed += 1
                        question, outcome = ended.question, "failed"
                    else:
                        question, outcome = ended, "ready"
                    show(question.id, outcome, question.audio_url)
                    waiting.pop(question.id, None)
                    status.update(f"{len(waiting)} to go")
            except AudioTimeoutError:
                for late in waiting:
                    show(late, "late", None)
    return ExitStatus.FAILURE if failed or waiting else ExitStatus.OK
