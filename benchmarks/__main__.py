"""``python -m benchmarks [NAME...]``: run all, or those named; exit 1 if a target is missed.

The results of those that ran replace what ``benchmarks/results`` has of them.
"""

import sys
from collections.abc import Iterable, Iterator

from benchmarks.figure import Figure, collect, names, table
from benchmarks.results import machine, write


def _measure(chosen: Iterable[str], measured: dict[str, list[Figure]]) -> Iterator[Figure]:
    """Yield the figures of the chosen modules, and keep them by module."""
    for name in chosen:
        kept = measured[name] = []
        for figure in collect(name):
            kept.append(figure)
            yield figure


def main(arguments: list[str]) -> int:
    """Print the table; return 0 if every target is met, 1 if one is missed, 2 for a wrong name."""
    known = names()
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        print(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known)}")
        return 2
    print(machine())
    measured: dict[str, list[Figure]] = {}
    for line in table(_measure(arguments or known, measured)):
        print(line, flush=True)
    write(measured)
    missed = [each.name for found in measured.values() for each in found if each.ok is False]
    if missed:
        print(f"\nmissed: {'; '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
