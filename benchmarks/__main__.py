"""``python -m benchmarks [NAME...]``: run all, or those named; exit 1 if a target is missed."""

import sys
from collections.abc import Iterable, Iterator

from benchmarks.figure import Figure, collect, names, table


def _measure(chosen: Iterable[str], missed: list[str]) -> Iterator[Figure]:
    """Yield the figures of the chosen modules, noting which ones miss their target."""
    for name in chosen:
        for figure in collect(name):
            if figure.ok is False:
                missed.append(figure.name)
            yield figure


def main(arguments: list[str]) -> int:
    """Print the table; return 0 if every target is met, 1 if one is missed, 2 for a wrong name."""
    known = names()
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        print(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known)}")
        return 2
    missed: list[str] = []
    for line in table(_measure(arguments or known, missed)):
        print(line, flush=True)
    if missed:
        print(f"\nmissed: {'; '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
