"""Pytest runs in a user's project: each a process of its own, with settings of its own."""

import subprocess
import sys
from pathlib import Path

# Plugins of this project's own tests, which take half of a run to load.
_NOT_THEIRS = ("faker", "hypothesispytest", "xdist", "timeout")


def run_pytest(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder, warnings as errors, with settings of pytest's ini file."""
    settings = {"asyncio_default_fixture_loop_scope": "function", **settings}
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "--strict-markers"]
    options += [part for name in _NOT_THEIRS for part in ("-p", f"no:{name}")]
    options += [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
