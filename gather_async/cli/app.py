"""The program: its commands, and what becomes of their errors."""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from functools import partial

from gather_async.cli import (
    doctor,
    fake_server,
    invite,
    quickstart,
    resources,
    results,
    wait_audio,
    webhooks,
)
from gather_async.cli.context import ExitStatus, format_error, status_of
from gather_async.cli.output import Output
from gather_async.errors import GatherError
from gather_async.version import __version__

__all__ = ["run"]

_ENVIRONMENT = """\
environment:
  GATHER_API_KEY         the API key; quickstart and fake-server work without one
  GATHER_BASE_URL        the server; production by default
  GATHER_WEBHOOK_SECRET  the secret of the webhooks commands

exit status:
  0 done, 1 failed in whole or part, 2 wrong usage, 3 API key missing or not accepted
"""

_Formatter = partial(argparse.RawDescriptionHelpFormatter, max_help_position=18)
Command = Callable[[argparse.Namespace, Output], int]


def run(argv: Sequence[str] | None) -> int:
    """Run the command that the arguments name, and return the exit status."""
    _never_fail_to_print()
    output = Output()
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        return ExitStatus.USAGE
    try:
        options = parser.parse_args(argv)
    except SystemExit as done:  # argparse has said what is wrong, or has shown the help
        return int(done.code or 0)
    command: Command = options.command
    try:
        return int(command(options, output))
    except GatherError as error:
        output.error(format_error(error))
        return status_of(error)
    except KeyboardInterrupt:
        output.info("Stopped.")
        return ExitStatus.INTERRUPTED


def _never_fail_to_print() -> None:
    """Escape what the terminal's encoding doesn't have, such as a name on an old Windows."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gather-async",
        description="The Gather API from the command line.",
        epilog=_ENVIRONMENT,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gather-async {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        quickstart,
        resources,
        wait_audio,
        invite,
        results,
        webhooks,
        fake_server,
        doctor,
    ):
        module.add_to(commands)
    return parser
