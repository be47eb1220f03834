"""Which CSV dialect a file is written in, by what makes the most sense of its first lines."""

import csv
from collections.abc import Iterator

from gather_async.bulk.columns import recognised

__all__ = ["guess_dialect"]

_DELIMITERS = ",;\t|: "
_QUOTES = "\"'"

Dialect = type[csv.Dialect]
Sense = tuple[int, int, int]


def guess_dialect(sample: str) -> Dialect:
    """Return the dialect that makes the most sense of a sample.

    Excel's dialect with each usual delimiter goes first, then what `csv.Sniffer`
    says, which is only a guess: an apostrophe in a name makes it take ``'`` for
    the quote, and it takes quotes for never doubled if its sample has none.

    Args:
        sample: The file's first lines, whole ones, the header first.
    """
    lines = sample.splitlines(keepends=True)
    # `max` keeps the first of equals.
    return max(_candidates(sample), key=lambda dialect: _sense(dialect, lines))


def _candidates(sample: str) -> Iterator[Dialect]:
    """Yield dialects to try, the likeliest first."""
    for delimiter in _DELIMITERS:
        yield _like(csv.excel, delimiter=delimiter)
    for delimiters in (_DELIMITERS, None):
        try:
            yield _like(csv.Sniffer().sniff(sample, delimiters))
        except csv.Error:
            continue


def _like(dialect: Dialect, **changes: str) -> Dialect:
    """Return a dialect that reads doubled quotes, and quotes after a delimiter and a space."""
    delimiter = changes.get("delimiter", dialect.delimiter)
    rules = {"doublequote": True, "skipinitialspace": delimiter != " ", **changes}
    return type("_Like", (dialect,), rules)


def _sense(dialect: Dialect, lines: list[str]) -> Sense:
    """Return the fields that the header names, lines cut like it, and no quotes left over."""
    header: list[str] = []
    alike = wrapped = 0
    try:
        rows = csv.reader(lines, dialect)
    except (csv.Error, TypeError, ValueError):  # the Sniffer may name a line break
        return 0, 0, 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return recognised(header), alike, -wrapped
        except csv.Error:
            continue
        header = header or row
        alike += len(row) == len(header)
        wrapped += sum(len(cell) > 1 and cell[0] in _QUOTES and cell[0] == cell[-1] for cell in row)
