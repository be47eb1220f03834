"""What the README shows is true: its program runs, and its commands exist."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from gather_async.cli import main
from gather_async.testing import FakeGather

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
(PROGRAM,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


async def test_the_program_runs(tmp_path: Path) -> None:
    """The program sends an invite, as a process of its own, with warnings as errors."""
    async with FakeGather() as fake:
        environment = {"GATHER_API_KEY": fake.api_key, "GATHER_BASE_URL": fake.base_url}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error", "-c", PROGRAM),
            cwd=tmp_path,
            env=os.environ | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert fake.invites.total() == 1


def test_the_program_is_short() -> None:
    """The program is what fits on a screen."""
    assert len([line for line in PROGRAM.splitlines() if line.strip()]) <= 16


def test_the_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command that the README names is one that the command line has."""
    commands = set(re.findall(r"-m gather_async ([a-z]+)", README))
    assert commands == {"quickstart"}
    for command in commands:
        assert main([command, "--help"]) == 0
    assert "usage: gather-async" in capsys.readouterr().out
