"""Which CSV dialect a file is written in, by what makes the most sense of its header."""

import csv
from collections.abc import Iterator

from gather_async.bulk.columns import recognised

__all__ = ["guess_dialect"]

_DELIMITERS = ",;\t|:"


def guess_dialect(sample: str) -> type[csv.Dialect]:
    """Return the dialect under which a sample's header names the most fields.

    What `csv.Sniffer` says goes first. It is only a guess (an apostrophe in a
    name makes it take ``'`` for the quote), so Excel's dialect with each usual
    delimiter is tried too; the one that recognises more columns, then the one
    that cuts more lines like the header, wins.

    Args:
        sample: The file's first lines, whole ones, the header first.
    """
    lines = sample.splitlines(keepends=True)
    return max(_candidates(sample), key=lambda dialect: _sense(dialect, lines))


def _candidates(sample: str) -> Iterator[type[csv.Dialect]]:
    """Yield dialects to try, the likeliest first, since `max` keeps the first of equals."""
    sniffer = csv.Sniffer()
    for delimiters in (_DELIMITERS, None):
        try:
            yield sniffer.sniff(sample, delimiters)
        except csv.Error:
            continue
    for delimiter in _DELIMITERS:
        yield type("_Excel", (csv.excel,), {"delimiter": delimiter})


def _sense(dialect: type[csv.Dialect], lines: list[str]) -> tuple[int, int]:
    """Return how many fields the header names, and how many lines are cut like it."""
    try:
        rows = list(csv.reader(lines, dialect))
    except (csv.Error, TypeError):
        return (0, 0)
    header = rows[0] if rows else []
    return recognised(header), sum(len(row) == len(header) for row in rows)
