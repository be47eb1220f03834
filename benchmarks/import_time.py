"""How long ``import gather_async`` takes, against ``import aiohttp`` alone, and the plugin's."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping

from benchmarks.figure import Figure

__all__ = ["figures"]

_ROUNDS = 11
_PLUGIN = 20.0  # milliseconds
_PROGRAM = (
    "import {}, time; start = time.process_time(); import {}; print(time.process_time() - start)"
)


def _seconds(module: str, environment: Mapping[str, str], after: str = "sys") -> float:
    """Return the CPU seconds that one import takes in a new interpreter, after another."""
    command = [sys.executable, "-c", _PROGRAM.format(after, module)]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    return float(done.stdout)


def figures() -> Iterator[Figure]:
    """Yield the medians of interleaved rounds; the first, which fills the caches, is left out."""
    with tempfile.TemporaryDirectory() as folder:
        # pip compiles what it installs; a checkout may not be written to, or not be compiled yet.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        yield from _clients(environment)
        yield _plugin(environment)


def _clients(environment: Mapping[str, str]) -> Iterator[Figure]:
    names = ("gather_async", "gather_async.client", "aiohttp")
    each_round = [{name: _seconds(name, environment) for name in names} for _ in range(_ROUNDS + 1)]
    rounds = each_round[1:]
    for name, target in (("gather_async", 0.1), ("gather_async.client", 1.35)):
        ratio = statistics.median(each[name] / each["aiohttp"] for each in rounds)
        milliseconds = 1000 * statistics.median(each[name] for each in rounds)
        yield Figure(
            f"import {name}",
            f"{ratio:.2f} x aiohttp",
            f"<= {target}",
            ratio <= target,
            detail=f"{milliseconds:.0f} ms",
        )


def _plugin(environment: Mapping[str, str]) -> Figure:
    after = "pytest, pytest_asyncio"
    rounds = [
        _seconds("gather_async.testing.plugin", environment, after) for _ in range(_ROUNDS + 1)
    ]
    plugin = 1000 * statistics.median(rounds[1:])
    return Figure(
        "pytest plugin in a run that doesn't use it",
        f"{plugin:.1f} ms",
        f"<= {_PLUGIN:.0f} ms",
        plugin <= _PLUGIN,
    )
