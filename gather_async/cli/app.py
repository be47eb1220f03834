"""The program: its commands, what becomes of their errors, and their completion in shells.

Only the module of the command that is run is imported: `--version` and `--help` need
neither aiohttp nor rich.
"""

import argparse
import importlib
import io
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from gather_async.cli.output import ExitStatus, Output
from gather_async.errors import GatherError
from gather_async.version import __version__

if TYPE_CHECKING:  # for what makes one file of a program, which sees no other import of them
    from gather_async.cli import (  # noqa: F401
        doctor,
        fake_server,
        invite,
        quickstart,
        resources,
        results,
        wait_audio,
        webhooks,
    )

__all__ = ["add_to", "run"]

# Each command's module, and the line that the help shows of it.
_COMMANDS = {
    "quickstart": ("quickstart", "run the five steps from a question to an invite; needs no key"),
    "list": ("resources", "list a resource"),
    "get": ("resources", "show one object as JSON"),
    "create": ("resources", "create a question, an interview or a candidate"),
    "wait-audio": ("wait_audio", "wait until the audio of questions is ready"),
    "invite": ("invite", "invite everyone in a CSV or JSON Lines file, once"),
    "invite-one": ("resources", "invite one person, once"),
    "status": ("resources", "show or set an invite's status, count an interview's, show the quota"),
    "results": ("results", "write the results of an interview to a file"),
    "webhooks": ("webhooks", "receive webhooks, send signed samples, work through an inbox"),
    "fake-server": ("fake_server", "serve a fake Gather API on this machine"),
    "doctor": ("doctor", "check the environment, the key and the connection"),
    "completion": ("app", "print what completes commands and options in a shell"),
}

_ENVIRONMENT = """\
environment:
  GATHER_API_KEY         the API key; quickstart and fake-server work without one
  GATHER_BASE_URL        the server; production by default
  GATHER_WEBHOOK_SECRET  the secret of the webhooks commands
  GATHER_USER_ID         the creator of questions, where the server wants one
  GATHER_LOG             info or debug: log to standard error, as -v does
  HTTPS_PROXY, NO_PROXY  the proxy; SSL_CERT_FILE: the certificates to trust

`gather-async help COMMAND` shows a command's options.

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
    try:
        status = _parse_and_run(arguments, output)
    except KeyboardInterrupt:
        output.info("Stopped.")
        status = ExitStatus.INTERRUPTED
    return _status(status, output)


def _parse_and_run(arguments: list[str], output: Output) -> int:
    """Run the command; what it raises becomes a line of text and a status."""
    from gather_async.cli.context import format_error, is_verbose, status_of  # noqa: PLC0415 - see above

    try:
        return _run(arguments, output)
    except GatherError as error:
        output.error(format_error(error))
        return status_of(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        output.error(f"{where}{error.strerror or error}")
    except Exception as error:  # a person can do nothing with a traceback
        output.error(f"The command failed, by a fault of its own: {type(error).__name__}.")
        if is_verbose(None) or {"-v", "--verbose"} & {*arguments}:
            output.info("".join(traceback.format_exception(error)).rstrip())
        else:
            output.info("With -v it shows where; please report that.")
    return ExitStatus.FAILURE


def _run(arguments: list[str], output: Output) -> int:
    from gather_async.cli.context import chosen_proxy, start_log  # noqa: PLC0415 - see above

    if arguments[:1] == ["help"]:
        arguments = [*(each for each in arguments[1:] if each != "help"), "--help"]
    if not arguments:
        output.info(_parser(()).format_help().rstrip())
        return ExitStatus.USAGE
    chosen = next((each for each in arguments if each in _COMMANDS), None)
    try:
        with output.as_sys():
            options = _parser(() if chosen is None else (chosen,)).parse_args(arguments)
    except SystemExit as done:  # argparse has said what is wrong, or has shown the help
        return int(done.code or 0)
    command: Command = options.command
    with start_log(options, output), chosen_proxy(options):
        return int(command(options, output))


def _status(status: int, output: Output) -> int:
    """Return the command's exit status, or that of an output which could not be written."""
    output.flush()
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


class _Parser(argparse.ArgumentParser):
    """Parser of the program, or of one command, which refuses what it doesn't know itself.

    argparse leaves that to the program's, and shows its usage instead of the command's.
    """

    def error(self, message: str) -> NoReturn:
        """Refuse what was passed; a word that is like a known one is asked about."""
        wrong = re.search(r"invalid choice: (.+?) \(choose from (.+)\)$", message)
        if wrong is not None:
            word, known = wrong[1].strip("'\"").lower(), re.findall(r"[\w.-]+", wrong[2])
            begun = [each for each in known if len(word) > 1 and each.startswith(word)]
            nearest = begun or get_close_matches(word, known, n=1)
            message += f": did you mean {nearest[0]}?" if nearest else ""
        super().error(message)

    def parse_known_args(self, *args: Any, **more: Any) -> Any:
        """Return the options, and nothing that is left over."""
        options, unknown = super().parse_known_args(*args, **more)
        if unknown:
            word, known = unknown[0].partition("=")[0], self._option_string_actions
            longer = [each for each in known if len(word) > 2 and word.lstrip("-") in each]
            nearest = longer or get_close_matches(word, known, n=1, cutoff=0.75)
            hint = f": did you mean {nearest[0]}?" if nearest else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options, unknown


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


def _parser(chosen: Collection[str] | None) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the options of the chosen ones; None: of all."""
    from gather_async.cli.context import add_common  # noqa: PLC0415 - see above

    parser = _Parser(
        prog="gather-async",
        description="The Gather API from the command line.",
        epilog=_ENVIRONMENT,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gather-async {__version__}")
    add_common(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (module, line) in _COMMANDS.items():
        if chosen is None or name in chosen:
            home = importlib.import_module(f"gather_async.cli.{module}")
            home.add_to(_Commands(commands, name))
        else:
            commands.add_parser(name, help=line, allow_abbrev=False)
    return parser


def add_to(commands: Any) -> None:
    """Add the command ``completion`` to the program."""
    from gather_async.cli.context import add_common  # noqa: PLC0415 - see above

    parser = commands.add_parser(
        "completion",
        help="print what completes commands and options in a shell",
        description="Print a script for a shell. bash: gather-async completion bash >"
        " ~/.local/share/bash-completion/completions/gather-async; zsh: eval"
        ' "$(gather-async completion zsh)" in ~/.zshrc, after compinit; fish: gather-async'
        " completion fish > ~/.config/fish/completions/gather-async.fish",
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=tuple(_SCRIPTS), help=", ".join(_SCRIPTS))
    add_common(parser, connects=False)
    parser.set_defaults(command=_complete)


def _complete(options: argparse.Namespace, output: Output) -> int:
    output.raw(_SCRIPTS[options.shell](list(_levels(_parser(None)))))
    return ExitStatus.OK


class _Level(NamedTuple):
    """The program, or one command: what may follow its name."""

    path: tuple[str, ...]
    commands: Mapping[str, str]
    """Its commands and what they do."""
    options: Mapping[str, str]
    words: Sequence[str]
    """What its first argument may be."""
    values: Mapping[str, Sequence[str]]
    """By option, the words that may follow it."""


def _levels(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[_Level]:
    commands: dict[str, argparse.ArgumentParser] = {}
    lines: dict[str, str] = {}
    options: dict[str, str] = {}
    values: dict[str, Sequence[str]] = {}
    words: list[str] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list them
        choices: Any = action.choices or ()
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            commands.update(choices)
            lines = {each.dest: each.help or "" for each in action._choices_actions}  # noqa: SLF001
        elif not action.option_strings:
            words += choices
        for option in action.option_strings:
            options[option] = action.help or ""
            if action.nargs != 0:
                values[option] = tuple(choices)
    yield _Level(path, lines, options, words, values)
    for name, inner in commands.items():
        yield from _levels(inner, (*path, name))


def _bash(levels: Sequence[_Level]) -> str:
    """Return bash's script: the level is found from the words before the cursor."""
    paths = "|".join(shlex.quote(" ".join(each.path)) for each in levels if each.path)
    cases = "\n".join(
        f"      {shlex.quote(' '.join(each.path))})"
        f" words={shlex.quote(' '.join((*each.commands, *each.words)))}"
        f" options={shlex.quote(' '.join(each.options))};;"
        for each in levels
    )
    values = "\n".join(
        f"    {shlex.quote(' '.join((*each.path, option)))})"
        f" words={shlex.quote(' '.join(known))}; follows=1;;"
        for each in levels
        for option, known in each.values.items()
    )
    return f"""\
_gather_async() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} path= words= options= follows= each
  for each in "${{COMP_WORDS[@]:1:$((COMP_CWORD-1))}}"; do
    case "${{path:+$path }}$each" in
    {paths}) path="${{path:+$path }}$each";;
    esac
  done
  case "${{path:+$path }}${{COMP_WORDS[COMP_CWORD-1]}}" in
{values}
  esac
  if [ -z "$follows" ]; then
    case "$path" in
{cases}
    esac
    case "$current" in
      -*) words=$options;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _gather_async gather-async
"""


def _zsh(levels: Sequence[_Level]) -> str:
    """Return zsh's script: bash's, by the emulation that zsh brings along."""
    return f"autoload -U +X bashcompinit && bashcompinit\n{_bash(levels)}"


def _fish(levels: Sequence[_Level]) -> str:
    """Return fish's script: a line for each word, with its condition."""
    lines = ["complete -c gather-async -e"]
    for each in levels:
        inner = " ".join((*each.commands, *each.words))
        seen = [f"__fish_seen_subcommand_from {name}" for name in each.path]
        first = "__fish_use_subcommand" if not each.path else None
        if each.path and inner:
            first = "; and ".join([*seen, f"not __fish_seen_subcommand_from {inner}"])
        begin = "complete -c gather-async"
        for word, line in {**each.commands, **dict.fromkeys(each.words, "")}.items():
            lines.append(f"{begin} -f -n {_quoted(first or '')} -a {word} -d {_quoted(line)}")
        condition = "; and ".join(seen) or "__fish_use_subcommand"
        for option, line in each.options.items():
            kind = "-l" if option.startswith("--") else "-s"
            takes = ""
            if option in each.values:
                takes = (
                    f" -x -a {_quoted(' '.join(known))}"
                    if (known := each.values[option])
                    else " -r"
                )
            lines.append(
                f"{begin} -n {_quoted(condition)} {kind} {option.lstrip('-')}{takes}"
                f" -d {_quoted(line)}"
            )
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a word as fish reads it: a backslash and a quote are escaped, nothing else."""
    return "'" + re.sub(r"([\\'])", r"\\\1", text) + "'"


_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
