"""The program: its commands, and what becomes of their errors.

Only the module of the command that is run is imported: `--version` and `--help` need
neither aiohttp nor rich.
"""

import argparse
import importlib
import io
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gather_async.cli.output import ExitStatus, Output
from gather_async.errors import GatherError
from gather_async.version import __version__

__all__ = ["run"]

# Each command's module, and the line that the help shows of it.
_COMMANDS = {
    "quickstart": ("quickstart", "run the five steps from a question to an invite; needs no key"),
    "list": ("resources", "list a resource"),
    "get": ("resources", "show one object as JSON"),
    "wait-audio": ("wait_audio", "wait until the audio of questions is ready"),
    "invite": ("invite", "invite everyone in a CSV or JSON Lines file, once"),
    "results": ("results", "write the results of an interview to a file"),
    "webhooks": ("webhooks", "receive webhooks, or send signed samples"),
    "fake-server": ("fake_server", "serve a fake Gather API on this machine"),
    "doctor": ("doctor", "check the environment, the key and the connection"),
}

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
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(next((each for each in arguments if each in _COMMANDS), None))
    if not arguments:
        output.info(parser.format_help().rstrip())
        return ExitStatus.USAGE
    if arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
        parser = _parser(next((each for each in arguments if each in _COMMANDS), None))
    try:
        options = parser.parse_args(arguments)
    except SystemExit as done:  # argparse has said what is wrong, or has shown the help
        return int(done.code or 0)
    except OSError:  # its help found no reader
        return ExitStatus.FAILURE
    return _status(_run(options.command, options, output), output)


def _run(command: Command, options: argparse.Namespace, output: Output) -> int:
    try:
        return int(command(options, output))
    except GatherError as error:
        from gather_async.cli.context import format_error, status_of  # noqa: PLC0415 - see above

        output.error(format_error(error))
        return status_of(error)
    except KeyboardInterrupt:
        output.info("Stopped.")
        return ExitStatus.INTERRUPTED


def _status(status: int, output: Output) -> int:
    """Return the command's exit status, or that of an output which could not be written."""
    if output.failure is not None:
        why = output.failure.strerror or output.failure
        output.error(f"Standard output can't be written: {why}")
        return status or ExitStatus.FAILURE
    return status


def _never_fail_to_print() -> None:
    """Escape what the terminal's encoding doesn't have, such as a name on an old Windows."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Commands:
    """Subparsers, of which the module of one command fills in its own alone."""

    def __init__(self, commands: Any, chosen: str) -> None:
        self._commands = commands
        self._chosen = chosen

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Add the chosen command's parser; any other of the module goes nowhere."""
        if name != self._chosen:
            return argparse.ArgumentParser(add_help=False)
        options["help"] = _COMMANDS[name][1]
        parser: argparse.ArgumentParser = self._commands.add_parser(name, **options)
        return parser


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the options of the chosen one alone."""
    parser = argparse.ArgumentParser(
        prog="gather-async",
        description="The Gather API from the command line.",
        epilog=_ENVIRONMENT,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gather-async {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (module, line) in _COMMANDS.items():
        if name == chosen:
            home = importlib.import_module(f"gather_async.cli.{module}")
            home.add_to(_Commands(commands, name))
        else:
            commands.add_parser(name, help=line, allow_abbrev=False)
    return parser
