"""How long ``import gather_async`` takes, against ``import aiohttp`` alone."""

import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figure import Figure

__all__ = ["figures"]

_ROUNDS = 11
_PROGRAM = "import time; start = time.process_time(); import {}; print(time.process_time() - start)"


def _seconds(module: str) -> float:
    """Return the CPU seconds that one import takes in a new interpreter."""
    command = [sys.executable, "-c", _PROGRAM.format(module)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def figures() -> Iterator[Figure]:
    """Yield the median of interleaved rounds; the first, which fills the caches, is left out."""
    rounds = [(_seconds("gather_async"), _seconds("aiohttp")) for _ in range(_ROUNDS + 1)][1:]
    ours = statistics.median(ours for ours, _ in rounds)
    aiohttp = statistics.median(bare for _, bare in rounds)
    yield Figure(
        name="import gather_async",
        value=f"{ours * 1e3:.0f} ms = {ours / aiohttp:.2f} x aiohttp",
    )
