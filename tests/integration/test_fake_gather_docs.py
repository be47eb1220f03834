"""The page on testing: its code runs as it is."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def run(*arguments: str, cwd: Path) -> str:
    """Run Python; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_code_of_the_page_runs(tmp_path: Path) -> None:
    """Programs run by themselves, tests under pytest in its default mode, warnings as errors."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    tests = [block for block in blocks if "def test_" in block]
    programs = [block for block in blocks if "def test_" not in block]
    assert (len(tests), len(programs)) == (3, 2)
    for number, block in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(block, encoding="utf-8")
    options = ["-W", "error", "-p", "no:cacheprovider"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    assert "3 passed" in run("-m", "pytest", "-q", *options, cwd=tmp_path)
    for block in programs:
        run("-W", "error", "-c", block, cwd=tmp_path)
