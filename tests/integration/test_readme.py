"""What README and tutorial show is true: each block runs, and tables and links name what exists."""

import asyncio
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import ClientSession, web

import gather_async
from gather_async import errors
from gather_async.cli import main
from gather_async.testing import FakeGather
from gather_async.webhooks import sample

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README + TUTORIAL, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", README + TUTORIAL, re.MULTILINE | re.DOTALL)
PROGRAMS = [block for block in BLOCKS if block.endswith("asyncio.run(main())\n")]

CANDIDATES = """\
First Name,Last Name,Email,Phone
Ada,Doe,ada@example.com,(202) 555-0123
Bob,Doe,bob@example.com,12
"""


def _block(words: str) -> ModuleType:
    """Import the one block that holds these words, as a module of its own."""
    (source,) = (block for block in BLOCKS if words in block)
    module = ModuleType("page_block")
    exec(compile(source, "page", "exec"), module.__dict__)
    return module


async def _run(source: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a program in a process of its own, with warnings as errors; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", source),
        cwd=folder,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_programs_run_one_after_another(tmp_path: Path) -> None:
    """Every whole program of both pages runs against a fresh server, in their order."""
    (tmp_path / "candidates.csv").write_text(CANDIDATES, encoding="utf-8")
    async with FakeGather() as fake:
        environment = {"GATHER_API_KEY": fake.api_key, "GATHER_BASE_URL": fake.base_url}
        printed = [await _run(program, tmp_path, environment) for program in PROGRAMS]
        invites = fake.invites.total()
    first, lists, waits, bulk = printed
    assert first == ""
    assert lists.startswith("1 False\n")
    assert waits.startswith("ready: ")
    assert bulk.startswith("1 invited, 1 rejected\nrow 2 ")
    assert invites == 2


def test_the_first_program_is_short() -> None:
    """The README's one program is what fits on a screen."""
    assert PROGRAMS[0] in README
    assert README.count("```python") == 1
    statements = [line for line in PROGRAMS[0].splitlines() if line.strip()]
    assert len(statements) <= 16


async def test_the_webhook_block_receives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The webhook application, served for real, hands a signed event to its handler."""
    monkeypatch.chdir(tmp_path)
    runner = web.AppRunner(_block("WebhookReceiver(").app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/gather"
        event = sample("candidate_interview.completed", secret="the webhook secret")
        async with (
            ClientSession() as session,
            session.post(url, data=event.body, headers=event.headers) as response,
        ):
            assert response.status == 200
        # The answer says that the event is stored; its handler runs after it.
        while not (printed := capsys.readouterr().out):  # noqa: ASYNC110 - a print has no event
            await asyncio.sleep(0.01)
    finally:
        await runner.cleanup()
    assert printed.startswith("completed: ")


async def test_the_testing_block_passes() -> None:
    """The test that the tutorial shows is a test that passes."""
    await _block("FakeGather()").test_a_lost_answer_makes_no_second_candidate()


def test_the_commands_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command of both pages is one that the command line has."""
    named = re.findall(
        r"gather[-_]async ((?:webhooks )?[a-z]+)", " ".join(COMMANDS) + README + TUTORIAL
    )
    commands = {name for name in named if name.split()[0] != "import"}
    assert {"quickstart", "invite", "webhooks send"} <= commands
    for command in commands:
        assert main([*command.split(), "--help"]) == 0
    assert "usage: gather-async" in capsys.readouterr().out


def test_the_error_table_is_complete() -> None:
    """The table names every error class but the root, and nothing else."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    table = page.partition("| error |")[2].partition("\n\n")[0] + "`GatherError`"
    named = set(re.findall(r"`([A-Z]\w+Error)`", table))
    real = {
        name
        for name in errors.__all__
        if isinstance(getattr(errors, name), type) and name.endswith("Error")
    }
    assert named == real
    assert real <= set(gather_async.__all__)
