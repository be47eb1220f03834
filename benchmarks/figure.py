"""What a benchmark reports, and how all of them are found and run."""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

import benchmarks

__all__ = ["Figure", "collect", "names", "table"]

_INFRASTRUCTURE = frozenset({"__main__", "figure"})


@frozen
class Figure:
    """One measured figure.

    Attributes:
        name: What was measured, such as ``candidates.create: httpx 0.28.1``.
        value: The figure with its unit, such as ``1.21 x naive aiohttp``.
        target: What it should be, such as ``<= 1.35``; None if nothing is demanded.
        ok: Whether the target was met; None if nothing is demanded.
        detail: What the figure was made of, such as ``522 k instructions``; may be empty.
        group: The plot that shows it; empty if none does. Its name ends with what a bar stands
            for, after a colon.
        size: The length of its bar.
    """

    name: str
    value: str
    target: str | None = None
    ok: bool | None = None
    detail: str = ""
    group: str = ""
    size: float = 0.0


def names() -> Sequence[str]:
    """Return the names of the modules that measure something, sorted.

    A module of this package is a benchmark if it defines ``figures``; the
    others (servers, data) are passed over when the benchmarks are run.
    """
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name for name in found if name not in _INFRASTRUCTURE)


def collect(name: str) -> Iterator[Figure]:
    """Yield the figures of one module as they are measured; none if it has no ``figures``.

    Raises:
        ModuleNotFoundError: There is no such module in this package.
    """
    module = importlib.import_module(f"benchmarks.{name}")
    figures = getattr(module, "figures", None)
    if figures is not None:
        yield from figures()


def table(figures: Iterable[Figure]) -> Iterator[str]:
    """Yield the lines of a plain table, as each figure comes."""
    yield f"{'figure':<66} {'measured':>24}  {'made of':<22}  {'target':<16}"
    yield "-" * 132
    for figure in figures:
        mark = {None: "", True: "ok", False: "MISSED"}[figure.ok]
        line = f"{figure.name:<66} {figure.value:>24}  {figure.detail:<22}  "
        yield f"{line}{figure.target or '':<12} {mark}".rstrip()
