"""The parts of the command line that decide without a server."""

import argparse
import gc
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
from rich.cells import cell_len

from gather_async.cli import app, main
from gather_async.cli.context import MissingKeyError, format_error, status_of
from gather_async.cli.doctor import _clock, _version_of
from gather_async.cli.output import Output, Stream, printable, to_jsonable
from gather_async.cli.results import _cell
from gather_async.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    GatherAPIError,
    GatherError,
    InvalidRequestError,
    PermissionDeniedError,
    ServerError,
)
from gather_async.models import CandidateInterview, CandidateInterviewStatus, Narrator, Voice


def _answer(kind: type[GatherAPIError], request_id: str | None = None) -> GatherAPIError:
    return kind(
        "GET /: it failed.",
        status=400,
        code=None,
        message="",
        details={},
        request_id=request_id,
        body="",
        headers={},
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GatherError("no"), 1),
        (_answer(ServerError), 1),
        (_answer(BadRequestError), 1),
        (ConfigurationError("no"), 2),
        (InvalidRequestError("no"), 2),
        (_answer(AuthenticationError), 3),
        (_answer(PermissionDeniedError), 3),
        (MissingKeyError("no"), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_exit_status_says_what_kind_of_error_it_was(error: GatherError, status: int) -> None:
    """Scripts can tell a bad command and a bad key from a failure."""
    assert status_of(error) == status


def test_an_error_is_shown_with_its_notes_and_request_id() -> None:
    """What is shown is what to do, and what the vendor's support asks for."""
    error = _answer(ServerError, request_id="req_7")
    error.add_note("Do that.")
    assert format_error(error).splitlines() == [
        "GET /: it failed.",
        "Do that.",
        "For the vendor's support: request id req_7.",
    ]


def test_a_model_becomes_plain_values() -> None:
    """JSON gets snake_case names, ISO dates, plain words, nested models, and `extra` merged."""
    narrator = Narrator(id="n", voices=(Voice(id="v"),), extra={"new": [1]})
    assert to_jsonable(narrator)["voices"][0]["id"] == "v"
    assert to_jsonable(narrator)["new"] == [1]
    invite = to_jsonable(
        CandidateInterview(
            id="i",
            status=CandidateInterviewStatus("hired"),
            expiry=datetime(2025, 6, 1, tzinfo=UTC),
        )
    )
    assert "extra" not in invite
    assert type(invite["status"]) is str
    assert invite["expiry"] == "2025-06-01T00:00:00+00:00"


def test_text_of_the_server_cannot_move_the_cursor() -> None:
    """Escape sequences in a title reach no terminal; tabs and lines stay."""
    assert printable("a\x1b[2Jb\r\u202ec\td\n") == "a\ufffd[2Jb\ufffd\ufffdc\td\n"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        ("plain", "plain"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@SUM(1)", "'@SUM(1)"),
        (-3, "'-3"),
        ({"score": 4}, '{"score": 4}'),
        ([], "[]"),
    ],
)
def test_a_cell_is_never_a_formula(value: object, cell: str) -> None:
    """What a candidate said can't run in the recruiter's spreadsheet."""
    assert _cell(value) == cell


@pytest.mark.parametrize(
    ("dates", "mark"),
    [
        (["Sun, 01 Jun 2025 12:00:00 GMT"], ["ok"]),
        (["Sun, 01 Jun 2025 12:02:29 GMT"], ["ok"]),
        (["Sun, 01 Jun 2025 12:02:31 GMT"], ["warning"]),
        (["Sun, 01 Jun 2025 11:57:29 GMT"], ["warning"]),
        (["yesterday"], []),
        ([""], []),
        ([], []),
    ],
)
def test_the_doctor_compares_clocks(dates: list[str], mark: list[str]) -> None:
    """A clock that would make webhooks look stale is reported; no date, no verdict."""
    now = datetime(2025, 6, 1, 12, tzinfo=UTC).timestamp()
    assert [finding.mark for finding in _clock(dates, now)] == mark


def test_without_rich_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The package works without the extra; its command says how to get it."""
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["quickstart"]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert "pip install 'gather-async[cli]'" in shown.err


USAGE = [
    (["--help"], 0, "out", "quickstart"),
    (["--version"], 0, "out", "gather-async 0"),
    ([], 2, "err", "COMMAND"),
    (["fly"], 2, "err", "invalid choice"),
    (["list", "planets"], 2, "err", "candidate-interviews"),
    (["list", "teams", "--limit", "0"], 2, "err", "--limit"),
    (["get", "users", "1"], 2, "err", "invalid choice"),
    (["results", "--interview", "1", "--output", "r.xlsx"], 2, "err", ".csv or .jsonl"),
    (["results", "--interview", "1", "--output", "no/such/r.csv"], 2, "err", "folder"),
    (["fake-server", "--port", "65536"], 2, "err", "65535"),
    (["wait-audio"], 2, "err", "ID"),
    (["wait-audio", "q", "--timeout", "nan"], 2, "err", "seconds"),
    (["wait-audio", "q", "--base-url", "http://["], 2, "err", "base_url"),
    (["list", "teams", "--limit", "9" * 5000], 2, "err", "take a number from 1"),
    (["list", "teams", "--proxy", "proxy:3128"], 2, "err", "http://"),
    (["list", "teams", "--proxy", "http://"], 2, "err", "names no host"),
    (["list", "teams", "--proxy", "http://a:99999"], 2, "err", "no address"),
    (["help"], 0, "out", "doctor"),
    (["help", "help"], 0, "out", "doctor"),
    (["help", "webhooks", "inbox", "list"], 0, "out", "--tenant"),
    (["completion", "tcsh"], 2, "err", "fish"),
    (["create"], 2, "err", "OBJECT"),
    (["create", "candidate"], 2, "err", "--first-name"),
    (["invite-one", "--interview", "1"], 2, "err", "--candidate ID"),
    (["invite-one", "--interview", "1", "--candidate", "2", "--email", "a"], 2, "err", "both"),
    (["status", "--set", "hired"], 2, "err", "--set"),
    (["status", "1", "--interview", "2"], 2, "err", "not both"),
]


@pytest.mark.usefixtures("_some_key")
@pytest.mark.parametrize(("argv", "status", "stream", "words"), USAGE)
def test_usage_is_answered_without_a_server(
    argv: list[str],
    status: int,
    stream: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Help goes to standard output with 0, wrong usage to standard error with 2."""
    assert main(argv) == status
    assert words in getattr(capsys.readouterr(), stream)


def _parsers(
    parser: argparse.ArgumentParser, path: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _parsers(inner, f"{path} {name}".strip())


PARSERS = dict(_parsers(app._parser(None)))


@pytest.mark.parametrize("path", PARSERS)
def test_every_option_has_help(path: str) -> None:
    """No option or argument is shown without a word about it."""
    actions = PARSERS[path]._actions
    assert [each.dest for each in actions if not each.help and each.dest != "command"] == [
        each.dest for each in actions if isinstance(each, argparse._SubParsersAction)
    ]


@pytest.mark.parametrize(
    "path",
    [path for path, each in PARSERS.items() if not each._subparsers],
)
def test_every_command_takes_the_common_options(path: str) -> None:
    """Each command logs with -v and prints JSON; what connects can be pointed elsewhere."""
    options = PARSERS[path]._option_string_actions
    wanted = {"-v"} if path == "completion" else {"-v", "--json"}
    if path.split(maxsplit=1)[0] not in {"webhooks", "fake-server", "completion"}:
        wanted |= {"--base-url", "--proxy", "--allow-insecure"}
    assert wanted <= options.keys()


COMPLETE = {
    "bash": (
        "{script}\nCOMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _gather_async;"
        ' printf "%s\\n" "${{COMPREPLY[@]}}"'
    ),
    # As bashcompinit calls it, which works only while a line is edited.
    "zsh": (
        "autoload -U compinit; compinit -u -D\n{script}\n_try() {{ emulate -L sh;"
        " setopt kshglob noshglob braceexpand ksharrays; COMP_WORDS=({line});"
        " COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _gather_async;"
        ' printf "%s\\n" "${{COMPREPLY[@]}}"; }}; _try'
    ),
    "fish": "{script}\ncomplete -C '{line}'",
}


@pytest.mark.parametrize("shell", COMPLETE)
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("gather-async wai", ["wait-audio"]),
        ("gather-async list mess", ["message-groups"]),
        ("gather-async list narrators --ba", ["--base-url"]),
        ("gather-async webhooks inbox re", ["replay"]),
        ("gather-async webhooks inbox list --state de", ["dead"]),
        ("gather-async -v create question --gen", ["--generate-audio"]),
        ("gather-async invite candidates.csv --on-existing sk", ["skip"]),
    ],
)
def test_shells_complete(
    shell: str, line: str, wanted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands, their options and the words that these take are completed, at any depth."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    assert main(["completion", shell]) == 0
    program = COMPLETE[shell].format(script=capsys.readouterr().out, line=line)
    argv = [shell, *(["-f"] if shell == "zsh" else []), "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    # zsh itself leaves out what doesn't begin with the word.
    words = [each.split("\t")[0] for each in done.stdout.splitlines()]  # fish adds what it is
    assert [each for each in words if each.startswith(line.rsplit(maxsplit=1)[-1])] == wanted


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same_words(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command and each option of any depth is in the script."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for path, parser in PARSERS.items():
        words = {*path.split(), *(each.lstrip("-") for each in parser._option_string_actions)}
        assert [each for each in sorted(words) if not re.search(rf"\b{each}\b", script)] == []


def test_tools_that_freeze_programs_see_each_command() -> None:
    """They follow the imports that stand in the code, run or not; metadata may be missing."""
    finder = ModuleFinder(path=[str(Path(app.__file__).parents[2])])  # no other package
    finder.run_script(app.__file__)
    modules = {f"gather_async.cli.{module}" for module, _ in app._COMMANDS.values()}
    assert modules - finder.modules.keys() <= {app.__name__}
    assert _version_of("a-package-that-is-absent") == "of unknown version"


def test_a_program_ends_without_a_search_for_garbage() -> None:
    """What a command imported is past the collector as its process ends, not as a call does."""
    frozen = gc.get_freeze_count()
    assert main(["--version"]) == 0
    assert gc.get_freeze_count() <= frozen  # some of what was frozen may have gone
    code = "import gc; from gather_async.cli import main; main(); print(gc.get_freeze_count())"
    argv = [sys.executable, "-c", code, "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) > 1000


@pytest.mark.parametrize("is_verbose", [True, False])
def test_a_fault_of_the_program_shows_no_traceback(
    is_verbose: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its kind is named, its text isn't: it may hold anything. -v shows where it was."""

    def fail(**_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setenv("GATHER_API_KEY", "qapi_x")
    monkeypatch.setattr("gather_async.cli.resources.connect", fail)
    assert main(["list", "teams", *(["-v"] if is_verbose else [])]) == 1
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown
    assert ("Traceback" in shown) == ("secret" in shown) == is_verbose


@pytest.mark.parametrize("argv", [["list", "teams"], ["get", "candidates", "1"], ["doctor"]])
def test_a_missing_key_is_an_authentication_failure(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without GATHER_API_KEY a command says so and exits 3; a blank one counts as none."""
    monkeypatch.setenv("GATHER_API_KEY", " ")
    assert main(argv) == 3
    shown = capsys.readouterr()
    assert "GATHER_API_KEY" in shown.out + shown.err


UUID = "0b1c2d3e-0000-4000-8000-123456789abc"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Make the standard streams terminals."""
    monkeypatch.setattr(Stream, "isatty", lambda _: True)
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_terminal_shows_ids_whole(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    """Other columns are shortened; where that isn't enough, rows become records."""
    terminal.setenv("COLUMNS", str(width))
    Output().table(["id", "title"], [[UUID, "long " * 30], ["2", "[bold]x"]])
    Output().table(["id", "candidate id", "status"], [[UUID, UUID, "invite_sent"]])
    shown = capsys.readouterr().out
    assert shown.count(UUID) == 3
    assert "[bold]x" in shown
    is_table = [line for line in shown.splitlines() if "long" not in line or UUID in line]
    assert all(len(line) <= max(width, len(UUID) + 20) for line in is_table)


def test_wide_characters_keep_the_columns_apart(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ideograph takes two columns of the screen, so that no line is longer than it."""
    terminal.setenv("COLUMNS", "60")
    Output().table(["name", "id"], [["\u5f35\u5049" * 12, UUID], ["Ada", UUID]])
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [cell_len(line) for line in lines] == [60, 60]
    assert all(line.endswith(UUID) for line in lines)


@pytest.mark.parametrize("color", ["1", ""])
def test_a_pipe_gets_tabs_whatever_the_colors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], color: str
) -> None:
    """A program reads a line a row; no name can make a row or a column of its own."""
    monkeypatch.setenv("FORCE_COLOR", color)
    Output().table(["id", "name"], [["1", "Ada\n2\tForged\r\x1b[2J"], ["2", None]])
    assert capsys.readouterr().out == "1\tAda\\n2\\tForged\\r\N{REPLACEMENT CHARACTER}[2J\n2\t\n"


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_a_lost_stream_raises_nothing(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """What can't be written is given up; what only prints can ask, and the end says why."""

    class Full(io.StringIO):
        def write(self, text: str, /) -> int:
            raise error

    monkeypatch.setattr(sys, "stdout", Full())
    output = Output()
    assert not output.is_lost
    output.print("one")
    output.print("two")
    assert output.is_lost
    assert (output.failure is None) == isinstance(error, BrokenPipeError)


def test_closed_streams_raise_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program started with its streams closed has none: Python makes them None."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    output = Output()
    output.print("nowhere")
    output.error("nowhere")
    assert output.is_lost
    with pytest.raises(EOFError):
        output.ask("Go on?")


def test_the_version_needs_next_to_nothing() -> None:
    """`--version` and `--help` import neither aiohttp nor rich."""
    program = (
        "import sys; from gather_async.cli import main; main([sys.argv[1]]);"
        " print({'aiohttp', 'rich', 'attrs'} & set(sys.modules))"
    )
    for option in ("--version", "--help"):
        done = subprocess.run(
            [sys.executable, "-c", program, option], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "set()"


def test_a_narrow_encoding_does_not_stop_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A character that the terminal doesn't have is escaped."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["--version"]) == 0
    Output().print("Zo\u00eb")
    sys.stdout.flush()
    assert raw.getvalue().splitlines()[-1] == b"Zo\\xeb"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own key out of the tests."""
    monkeypatch.delenv("GATHER_API_KEY", raising=False)
    monkeypatch.delenv("GATHER_BASE_URL", raising=False)


@pytest.fixture
def _some_key(_no_key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATHER_API_KEY", "qapi_x")
