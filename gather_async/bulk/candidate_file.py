"""Candidates from a file, read one row at a time."""

import codecs
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from io import TextIOWrapper
from itertools import chain, dropwhile, islice
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from gather_async.errors import ConfigurationError, InvalidRequestError

__all__ = [
    "CandidateFile",
    "FIELDS",
    "FileRow",
    "REQUIRED",
    "UnreadableRow",
    "detect_encoding",
    "field_of",
    "fields_of",
    "guess_dialect",
    "line_of",
    "read_candidates",
    "recognised",
]

_BLOCK = 1 << 20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def detect_encoding(path: Path) -> str:
    """Return the encoding of a file: what its byte order mark says, UTF-8, or Windows-1252.

    A file without a mark is read through once, and is UTF-8 if all of it is:
    text in Windows-1252 with a letter beyond ASCII practically never is.

    Raises:
        OSError: The file can't be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        block = file.read(_BLOCK)
        for mark, encoding in _MARKS:
            if block.startswith(mark):
                return encoding
        try:
            while block:
                decoder.decode(block)
                block = file.read(_BLOCK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


_DELIMITERS = ",;\t|: "
_QUOTES = "\"'"

Dialect = type[csv.Dialect]
Score = tuple[int, int, int]


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
    return max(_candidates(sample), key=lambda dialect: _score(dialect, lines))


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


def _score(dialect: Dialect, lines: list[str]) -> Score:
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


REQUIRED = ("first_name", "last_name", "email", "phone")
FIELDS = (*REQUIRED, "external_id", "timezone", "sms_opt_in")

_BY_LETTERS = {name.replace("_", ""): name for name in FIELDS} | {
    "emailaddress": "email",
    "phonenumber": "phone",
}


@lru_cache(maxsize=256)
def field_of(name: str) -> str | None:
    """Return the field that a name means; None for a column that isn't ours.

    ``firstName``, ``first_name``, ``First Name`` and ``FIRST-NAME`` mean the
    same, as do ``email address`` for ``email`` and ``phone number`` for ``phone``.

    >>> field_of("SMS opt-in")
    'sms_opt_in'
    """
    return _BY_LETTERS.get("".join(filter(str.isalnum, name.casefold())))


def recognised(names: Iterable[object]) -> int:
    """Return how many different fields these names mean."""
    return len({field_of(name) for name in names if isinstance(name, str)} - {None})


def fields_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row's values by our names of the fields; other keys are left out.

    Raises:
        InvalidRequestError: Two keys mean the same field, so that one would be lost.
    """
    values: dict[str, Any] = {}
    for key, value in row.items():
        name = field_of(key) if isinstance(key, str) else None
        if name is None:
            continue
        if name in values:
            raise InvalidRequestError(f"Two columns mean {name}: rename or remove one of them.")
        values[name] = value
    return values


@frozen
class UnreadableRow:
    """A row that a source could not read; it becomes a rejected outcome."""

    reason: str
    """What is wrong, in words that are safe to publish."""
    line: int | None = None
    """The line of the file that it begins on, from 1."""


class FileRow(dict[str, Any]):
    """A row of a file: its values by name, and where it stands."""

    __slots__ = ("line",)

    def __init__(self, values: Iterable[tuple[str, Any]], line: int) -> None:
        super().__init__(values)
        self.line = line
        """The line of the file that the row begins on, from 1."""


def line_of(row: object) -> int | None:
    """Return the line of the file that a row begins on; None if it is of no file."""
    return row.line if isinstance(row, FileRow | UnreadableRow) else None


Format = Literal["csv", "jsonl"]
_JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".jsonlines", ".json"})
_SAMPLE_LINES = 50
_LONGEST_LINE = 1 << 20


@frozen
class CandidateFile:
    """The rows of a file, each time it is iterated from the start. Blank lines don't count.

    Iterating reads the file lazily and blocks while it does; a bulk invite
    does so in a thread. A row is a mapping of text by our names of the fields
    (``first_name``), or an `UnreadableRow`.
    """

    path: Path
    format: Format
    encoding: str | None = None
    """None: found out from the file."""

    def __iter__(self) -> Iterator[Mapping[str, Any] | UnreadableRow]:
        """Yield the rows.

        Raises:
            OSError: The file can't be read.
            ConfigurationError: A CSV header lacks a required column, or names one twice.
        """
        encoding = self.encoding or detect_encoding(self.path)
        # Bytes that the encoding doesn't have become lone surrogates, which
        # the row's check refuses: the row is lost, not the file.
        with self.path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
            yield from (_csv_rows if self.format == "csv" else _json_rows)(file)

    def count(self) -> int:
        """Return how many rows there are, by reading the file through once."""
        return sum(1 for _ in self)


def read_candidates(
    path: str | PathLike[str], *, format: Format | None = None, encoding: str | None = None
) -> CandidateFile:
    """Return the candidates in a CSV or JSON Lines file, for `GatherClient.bulk_invite`.

    CSV: in any dialect that `csv.Sniffer` knows, and after a line ``sep=;``.
    Column names may be ``firstName``, ``first_name`` or ``First Name``; other
    columns are ignored. JSON Lines: one object a line, with the same names.
    Both: with or without a byte order mark, in UTF-8 or Windows-1252 (UTF-16
    with a mark). A row that can't be read never stops the others.

    Args:
        path: The file. It is opened when the rows are read, not before.
        format: ``"csv"`` or ``"jsonl"``; None goes by the suffix: ``.jsonl``,
            ``.ndjson``, ``.jsonlines`` and ``.json`` are JSON Lines, all else is CSV.
        encoding: A codec's name; None finds out.

    Raises:
        ConfigurationError: There is no such format or codec.
    """
    path = Path(path)
    kind: Format = "jsonl" if path.suffix.lower() in _JSON_SUFFIXES else "csv"
    if format is not None:
        kind = format
    if kind not in {"csv", "jsonl"}:
        raise ConfigurationError("format must be 'csv' or 'jsonl'.")
    if encoding is not None:
        try:
            "".encode(encoding)
        except (LookupError, TypeError):
            raise ConfigurationError("encoding must be the name of a text codec.") from None
    return CandidateFile(path, kind, encoding)


def _csv_rows(file: TextIOWrapper) -> Iterator[Mapping[str, Any] | UnreadableRow]:
    """Yield the rows of a CSV file as mappings."""
    sample = list(islice(file, _SAMPLE_LINES))
    head = list(dropwhile(_is_blank, sample))
    marked = head[0].strip() if head else ""
    if marked.lower().startswith("sep=") and len(marked) == len("sep=") + 1:
        # Excel writes this line for itself, and reads nothing without it.
        dialect = type("_Marked", (csv.excel,), {"delimiter": marked[-1]})
        head = head[1:]
    else:
        dialect = guess_dialect("".join(head))
    lines = csv.reader(chain(head, file), dialect)
    names = _field_names(next(lines, []))
    before = len(sample) - len(head)
    while True:
        line = before + lines.line_num + 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error:
            yield UnreadableRow(
                "The line is not CSV: a cell is too long, or a quote is left open.", line
            )
            continue
        if any(map(str.strip, cells)):
            yield _row(names, cells, line)


def _is_blank(line: str) -> bool:
    return not line.strip("\r\n \t,;|")


def _field_names(header: list[str]) -> list[str | None]:
    """Return what each column means; None for a column that isn't ours."""
    names = [field_of(name) for name in header]
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise ConfigurationError(
            f"The file's first line must name its columns; it lacks {', '.join(missing)}."
        )
    twice = {name for name in names if name is not None and names.count(name) > 1}
    if twice:
        raise ConfigurationError(
            f"Two columns mean {', '.join(sorted(twice))}: rename or remove one of them."
        )
    return names


def _row(names: list[str | None], cells: list[str], line: int) -> FileRow | UnreadableRow:
    if len(cells) > len(names) and any(map(str.strip, cells[len(names) :])):
        return UnreadableRow("The line has more cells than the header: is a quote missing?", line)
    pairs = zip(names, cells, strict=False)
    return FileRow(((name, cell) for name, cell in pairs if name is not None), line)


def _json_rows(file: TextIOWrapper) -> Iterator[Mapping[str, Any] | UnreadableRow]:
    """Yield the objects of a JSON Lines file.

    Raises:
        ConfigurationError: It holds an array, which is another format.
    """
    is_first = True
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if is_first and line.lstrip().startswith("["):
            raise ConfigurationError(
                "The file is a JSON array: write one object on each line, without brackets."
            )
        is_first = is_first and not line.strip()
        if not line.endswith("\n") and len(line) == _LONGEST_LINE:
            while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith("\n"):
                pass
            yield UnreadableRow("The line is too long to be a candidate.", number)
        elif line.strip():
            yield _object(line, number)


def _object(line: str, number: int) -> FileRow | UnreadableRow:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return UnreadableRow("The line is not JSON.", number)
    if not isinstance(value, dict):
        return UnreadableRow("The line is not a JSON object.", number)
    return FileRow(value.items(), number)
