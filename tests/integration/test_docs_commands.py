"""What docs/ shows as commands runs as it is shown: on pages, and atop the example programs.

Each command is a process of its own, so most are asked for with ``-m slow``.
"""

import ast
import itertools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from gather_async.cli import main

from .test_docs import DOCS, PAGES, blocks_of, with_servers

EXAMPLES = DOCS / "examples"
# The command line's own page has a test of its own, test_cli.py.
PAGES_WITH_COMMANDS = [page for page in PAGES if page.name != "cli.md" and blocks_of(page, "sh")]
# What each program prints at last.
PROGRAMS = {
    "aiohttp_service": ".mp3",
    "arq_invites": "20 invited",
    "background_task": '"ready"',
    "bulk_job": "500 invited, 0 rejected, 0 failed,\n0 unfinished; 0 requests\n",
    "django_view": '{"narrators": [{"id": ',
    "fastapi_service": '"summary_status":"complete"',
    "taskiq_invites": "20 invited",
    "taskiq_job": ".mp3\n",
    "test_fastapi_service": "6 passed",
}
CANDIDATES = """\
First Name,Last Name,Email,Phone
Ada,Doe,ada@example.com,(202) 555-0123
Bob,Doe,bob@example.com,+12025550124
"""
# Commands that serve until they are stopped: the next block is of another terminal.
SERVERS = (
    "arq ",
    "gather-async fake-server",
    "gather-async webhooks listen",
    "python -m aiohttp.web",
    "python django_view.py",
    "taskiq worker",
    "uvicorn",
)
PORTS = ("8000", "8080", "8800", "8801")


def _free_ports(count: int) -> list[str]:
    """Return ports that nothing listens on."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [str(each.getsockname()[1]) for each in listening]
    finally:
        for each in listening:
            each.close()


def _script(blocks: Sequence[str]) -> str:
    """Return one script of blocks: servers in the background, each waited for."""
    parts = ["set -euo pipefail"]
    if not any(re.search("fake-server|quickstart", block) for block in blocks):
        parts += ["export GATHER_BASE_URL=http://127.0.0.1:8801 GATHER_API_KEY=qapi_page"]
        blocks = ["gather-async fake-server --port 8801 --api-key qapi_page --quiet", *blocks]
    for block in blocks:
        lines = block.replace("\\\n", " ").splitlines()
        served = [line for line in lines if line.startswith(SERVERS)]
        if served and served[-1] == lines[-1] and not served[-1].endswith("&"):
            lines = ["(", *lines, f") >server-{len(parts)}.log 2>&1 &"]
        for line in lines:
            # The package is here already; that installing it works is the README's test.
            parts.append(re.sub("^pip install.*", "true", line))
            if line.endswith("&") and _port(served[-1]):
                listens = f"(exec 3<>/dev/tcp/127.0.0.1/{_port(served[-1])}) 2>/dev/null"
                parts.append(f"until {listens}; do kill -0 $!; sleep 0.05; done")
    parts.append("kill $(jobs -p) 2>/dev/null || true")
    script = "\n".join(parts)
    for written, free in zip(PORTS, _free_ports(len(PORTS)), strict=True):
        script = re.sub(rf"\b{written}\b", free, script)
    return script


def _port(command: str) -> str:
    """Return the port that a server's command names; empty if it listens on none."""
    port = re.search(r"(?:--port|runserver) (\d+)", command)
    return port[1] if port else ""


def _run(blocks: Sequence[str], folder: Path) -> str:
    """Run blocks of commands in a folder; return what they print."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GATHER_")
    }
    environment["HOME"] = str(folder)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", _script(blocks)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):  # the servers that it started
            os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
    logs = "".join(each.read_text() for each in sorted(folder.glob("server-*.log")))
    assert process.returncode == 0, printed + logs
    return printed


def _header(program: Path) -> list[str]:
    """Return the blocks of commands that a program begins with."""
    text = ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or ""
    blocks = re.findall(r"(?:^    .*\n)+", text + "\n", re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks]


def _copy_examples(folder: Path) -> None:
    for program in EXAMPLES.glob("*.py"):
        shutil.copy(program, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_as_its_first_lines_say(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each example runs against the fake server, every part a process of its own."""
    if name.startswith("arq"):
        pytest.importorskip("arq", reason="arq is not installed")
    _copy_examples(tmp_path)
    blocks = [with_servers(each, request) for each in _header(EXAMPLES / f"{name}.py")]
    assert blocks
    assert PROGRAMS[name] in _run(blocks, tmp_path)


def _commands(page: Path) -> list[str]:
    return [str(block.parsed) for block in blocks_of(page, "sh")]


def _prepare(page: Path, folder: Path) -> None:
    """Make the files that the commands of a page take: a list of people, and its programs."""
    _copy_examples(folder)
    (folder / "candidates.csv").write_text(CANDIDATES, encoding="utf-8")
    for block in blocks_of(page, "python"):
        if name := re.match(r"# (\w+\.py)\n", str(block.parsed)):
            (folder / name[1]).write_text(str(block.parsed), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """The commands of a page run in their order, and print what the page shows."""
    _prepare(page, tmp_path)
    printed = _run(_commands(page), tmp_path)
    for shown in blocks_of(page, "text"):
        assert str(shown.parsed) in printed


def _shown_commands() -> set[str]:
    """Return each line of commands that pages and programs show."""
    texts = [*(block for page in PAGES for block in _commands(page))]
    texts += [block for name in PROGRAMS for block in _header(EXAMPLES / f"{name}.py")]
    text = "\n".join(texts).replace("\\\n", " ")
    return set(re.findall(r"gather-async [^\n|&;<>)]+", text))


@pytest.mark.parametrize("line", sorted(_shown_commands()))
def test_a_command_that_is_shown_exists(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command and each of its options is one that the command line has."""
    words = shlex.split(line)[1:]
    command = [*itertools.takewhile(lambda word: re.fullmatch(r"[a-z][a-z-]+", word), words)]
    while main([*command, "--help"]) != 0:  # the last words were arguments
        command.pop()
        capsys.readouterr()
    assert command, "There is no such command."
    known = capsys.readouterr().out
    options = [word for word in words if word.startswith("-") and word != "-"]
    assert [option for option in options if option not in known] == []
