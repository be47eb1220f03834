"""How long ``import gather_async`` takes, against ``import aiohttp`` alone, and the plugin's."""

import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figure import Figure

__all__ = ["figures"]

_ROUNDS = 11
_PLUGIN = 20.0  # milliseconds
_PROGRAM = (
    "import {}, time; start = time.process_time(); import {}; print(time.process_time() - start)"
)


def _seconds(module: str, after: str = "sys") -> float:
    """Return the CPU seconds that one import takes in a new interpreter, after another."""
    command = [sys.executable, "-c", _PROGRAM.format(after, module)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def figures() -> Iterator[Figure]:
    """Yield the medians of interleaved rounds; the first, which fills the caches, is left out."""
    names = ("gather_async", "gather_async.client", "aiohttp")
    rounds = [{name: _seconds(name) for name in names} for _ in range(_ROUNDS + 1)][1:]
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
    after = "pytest, pytest_asyncio"
    plugin = 1000 * statistics.median(
        _seconds("gather_async.testing.plugin", after) for _ in range(_ROUNDS)
    )
    yield Figure(
        "pytest plugin in a run that doesn't use it",
        f"{plugin:.1f} ms",
        f"<= {_PLUGIN:.0f} ms",
        plugin <= _PLUGIN,
    )
