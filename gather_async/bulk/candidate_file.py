"""Candidates from a file or a pipe, read one row at a time."""

import json
import logging
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BufferedReader, RawIOBase, UnsupportedOperation
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Literal

from attrs import define, field, frozen

from gather_async.bulk.row_check import (
    REQUIRED,
    FileRow,
    Row,
    UnreadableRow,
    field_of,
    fields_by_name,
    require_columns,
    validate_columns,
)
from gather_async.bulk.text_file import (
    LONGEST_LINE,
    CsvReader,
    guess_encoding,
    marked_encoding,
    physical_lines,
    plausible_in_windows_1252,
)
from gather_async.errors import ConfigurationError

__all__ = ["CandidateFile", "FileDescription", "read_candidates"]

_LOG = logging.getLogger("gather_async.bulk")

_Read = tuple[Sequence[tuple[str, str | None]], str | None, Iterator[Row]]
Format = Literal["csv", "jsonl"]
_JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".jsonlines", ".json"})
_SAMPLE_ROWS = 2
_SHOWN = 40


@frozen(kw_only=True)
class FileDescription:
    """The way a file is read. Its text is safe to publish: of the rows it shows shapes only."""

    format: Format
    encoding: str
    """A codec's name."""
    is_encoding_guessed: bool
    """Whether it was found out from the bytes rather than given."""
    delimiter: str | None
    """What parts the cells; None for JSON Lines."""
    columns: Mapping[str, str]
    """The fields that are read, by the column's name in the file."""
    ignored: tuple[str, ...]
    """Names of the columns that are not read."""
    sample: tuple[Mapping[str, str], ...]
    """The first two rows, letters as ``x`` and digits as ``9``, by field."""

    def __str__(self) -> str:
        how = "guessed" if self.is_encoding_guessed else "given"
        parted = "" if self.delimiter is None else f", cells parted by {self.delimiter!r}"
        used = ", ".join(f"{name!r} as {to}" for name, to in self.columns.items())
        ignored = ", ".join(map(repr, self.ignored[:_SHOWN])) or "none"
        parts = [f"{self.format} in {self.encoding} ({how}){parted}", f"columns used: {used}"]
        parts += [f"columns ignored: {ignored}"]
        parts += ["a row: " + ", ".join(map(" ".join, row.items())) for row in self.sample]
        return "; ".join(parts)


def _shape(value: object) -> str:
    """Return a value's shape, which shows how it was read and not who it is."""
    if not isinstance(value, str):
        return type(value).__name__
    kinds = (("X" if c.isupper() else "x") if c.isalpha() else c for c in value[:_SHOWN])
    return "".join("9" if c.isdecimal() else c if c.isprintable() else "?" for c in kinds)


@define(eq=False)
class _Reading:
    """Facts of a file, once it was read."""

    description: FileDescription | None = None
    is_spent: bool = False
    """Whether it was a pipe, and is empty."""


@frozen
class CandidateFile:
    """The rows of a file, each time it is iterated from the start. Blank lines don't count.

    Iterating reads the file lazily and blocks while it does; a bulk invite
    does so in a thread. A row is a mapping of text by our names of the fields
    (``first_name``), or an `UnreadableRow`. A pipe can be iterated once.
    """

    path: Path
    format: Format
    encoding: str | None = None
    """None: found out from the file."""
    columns: Mapping[str, str | None] = field(factory=dict, hash=False)
    """The field that a column means, by its name; None: it is ignored."""
    _reading: _Reading = field(factory=_Reading, eq=False, repr=False)

    @property
    def description(self) -> FileDescription | None:
        """How the file is read, once it was begun; None before."""
        return self._reading.description

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows.

        Raises:
            OSError: The file can't be read.
            ConfigurationError: It is no text; a CSV header lacks a required column, or
                names one twice; or it is a pipe that was read before.
        """
        with self._opened() as (file, encoding):
            lines = physical_lines(file, encoding)
            read = _csv_rows if self.format == "csv" else _json_rows
            named, delimiter, rows = read(lines, self.columns)
            first = list(islice(rows, _SAMPLE_ROWS))
            description = FileDescription(
                format=self.format,
                encoding=encoding,
                is_encoding_guessed=self.encoding is None,
                delimiter=delimiter,
                columns={name: to for name, to in named if to is not None},
                ignored=tuple(name for name, to in named if to is None),
                sample=tuple(_masked(row) for row in first if isinstance(row, FileRow)),
            )
            if description != self._reading.description:
                self._reading.description = description
                _LOG.info("reading %s", description)
            is_guessed = self.encoding is None and encoding == "cp1252"
            for row in chain(first, rows):
                yield plausible_in_windows_1252(row) if is_guessed else row

    def count(self) -> int | None:
        """Return how many rows there are, by reading the file through once; None for a pipe."""
        return sum(1 for _ in self) if self.is_regular() else None

    def is_regular(self) -> bool:
        """Return whether it can be read again, and never blocks for good: it is no pipe.

        Raises:
            OSError: There is no such file.
        """
        return str(self.path) != "-" and stat.S_ISREG(self.path.stat().st_mode)

    @contextmanager
    def _opened(self) -> Iterator[tuple[BinaryIO, str]]:
        """Open the file at its start, and find its encoding out."""
        with _standard_input() if str(self.path) == "-" else self.path.open("rb") as file:
            if not self.is_regular():
                yield self._begun(file)
                return
            encoding = self._encoding(file.read(_BLOCK), iter(lambda: file.read(_BLOCK), b""))
            file.seek(0)
            yield file, encoding

    def _begun(self, pipe: BufferedReader) -> tuple[BinaryIO, str]:
        """Find out what can be from the first bytes, and give them again."""
        if self._reading.is_spent:
            raise ConfigurationError(
                "Standard input or a pipe can be read only once: save it as a file first."
            )
        self._reading.is_spent = True
        head = pipe.read(_HEAD)
        return BufferedReader(_Replay(head, pipe)), self._encoding(head)

    def _encoding(self, head: bytes, rest: Iterable[bytes] = ()) -> str:
        encoding = self.encoding or marked_encoding(head)
        _require_text(head, is_known=encoding is not None)
        return encoding or guess_encoding(head, rest)


def _standard_input() -> AbstractContextManager[Any]:
    try:
        # Not sys.stdin itself: the interpreter can't end while a thread reads that.
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except UnsupportedOperation:
        return nullcontext(sys.stdin.buffer)


_BLOCK = 1 << 20
# Of a pipe: enough for a good guess, soon there, and within what a pipe's buffer holds.
_HEAD = 1 << 16


class _Replay(RawIOBase):
    """A pipe whose first bytes were read, and come again."""

    def __init__(self, head: bytes, pipe: BufferedReader) -> None:
        self._head = head
        self._pipe = pipe

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._pipe.read1(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


_EXPORT = "export it as CSV (UTF-8)"
_UNPACK = "unpack it first"
# What a file begins with that is no text, and the way out.
_KINDS = (
    (b"PK\x03\x04", "a workbook (.xlsx, .ods) or another ZIP archive", _EXPORT),
    (b"PK\x05\x06", "an empty ZIP archive", _EXPORT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls)", _EXPORT),
    (b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (b"PAR1", "a Parquet file", _EXPORT),
    (b"%PDF-", "a PDF document", _EXPORT),
    (b"{\\rtf", "an RTF document", _EXPORT),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x04\x22\x4d\x18", "compressed with lz4", _UNPACK),
    (b"ARROW1", "an Arrow file", _EXPORT),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"\x89PNG", "an image", _EXPORT),
    (b"\xff\xd8\xff", "an image", _EXPORT),
    (b"BEGIN:VCARD", "made of vCards", _EXPORT),
    (b"-----BEGIN PGP", "encrypted", "decrypt it first"),
)
_MARKUP = re.compile(rb"\s*<(?:!doctype|html|table|\?xml|\?mso|head|body)", re.IGNORECASE)


def _require_text(head: bytes, *, is_known: bool) -> None:
    """Refuse a file that begins with what no text does.

    Args:
        head: The file's first bytes.
        is_known: Whether the encoding is, so that zero bytes may be a part of it.

    Raises:
        ConfigurationError: It is another kind of file, which the message names.
    """
    for magic, kind, advice in _KINDS:
        if head.startswith(magic):
            raise ConfigurationError(f"The file is no text, but {kind}: {advice}.")
    if _MARKUP.match(head):
        raise ConfigurationError(f"The file is an HTML or XML document: {_EXPORT}.")
    start = head[:400]
    if is_known or start.count(0) * 8 < len(start) or not start:
        return
    odd, even = start[1::2].count(0), start[::2].count(0)
    if min(odd, even) * 4 > max(odd, even) or max(odd, even) * 3 < len(start):
        raise ConfigurationError(f"The file is no text: it holds zero bytes; {_EXPORT}.")
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    raise ConfigurationError(
        f'The file is UTF-16 without a byte order mark: pass encoding="{encoding}"'
        f" (--encoding {encoding}), or {_EXPORT}."
    )


def read_candidates(
    path: str | PathLike[str],
    *,
    format: Format | None = None,
    encoding: str | None = None,
    columns: Mapping[str, str | None] | None = None,
) -> CandidateFile:
    """Return the candidates in a CSV or JSON Lines file, for `GatherClient.bulk_invite`.

    CSV: parted by any usual delimiter, also after a line ``sep=;``.
    Column names may be ``firstName``, ``first_name`` or ``First Name``; other
    columns are ignored. JSON Lines: one object a line, with the same names.
    Both: with or without a byte order mark, in UTF-8 or Windows-1252 (UTF-16 and
    UTF-32 with a mark). A row that can't be read never stops the others. How the file
    is read is logged, and stands in `CandidateFile.description`.

    Args:
        path: The file, which may be a named pipe; ``"-"`` is the standard input. It is
            opened when the rows are read, not before.
        format: ``"csv"`` or ``"jsonl"``; None goes by the suffix: ``.jsonl``,
            ``.ndjson``, ``.jsonlines`` and ``.json`` are JSON Lines, all else is CSV.
        encoding: A codec's name; None finds out.
        columns: The field that a column means, by the column's name in the file, such
            as ``{"Mobile": "phone"}``; None ignores the column. Other columns that
            mean the same field are ignored then.

    Raises:
        ConfigurationError: There is no such format, codec or field.
    """
    path = Path(path)
    kind: Format = "jsonl" if path.suffix.lower() in _JSON_SUFFIXES else "csv"
    kind = kind if format is None else format
    if kind not in {"csv", "jsonl"}:
        raise ConfigurationError("format must be 'csv' or 'jsonl'.")
    if encoding is not None:
        try:
            "".encode(encoding)
        except (LookupError, TypeError):
            raise ConfigurationError("encoding must be the name of a text codec.") from None
    return CandidateFile(path, kind, encoding, validate_columns(columns or {}))


def _csv_rows(lines: Iterator[str], columns: Mapping[str, str | None]) -> _Read:
    """Return a CSV file's columns and their fields, its delimiter, and its rows.

    Raises:
        ConfigurationError: The header lacks a column, or names one twice.
    """
    reader = CsvReader(
        lines, lambda names: len({to for _, to in fields_by_name(names, columns)} - {None})
    )
    if not any(map(str.strip, reader.header)):
        raise ConfigurationError(f"The file is empty: it lacks {', '.join(REQUIRED)}.")
    if reader.header[0].lstrip().startswith(("{", "[")):
        raise ConfigurationError(
            'The file looks like JSON, not CSV: pass format="jsonl", or name it .jsonl; it'
            " must have one object on each line."
        )
    named = fields_by_name([name.strip() for name in reader.header], columns)
    require_columns(named, columns)
    return named, reader.delimiter, reader.rows([to for _, to in named])


def _json_rows(lines: Iterator[str], columns: Mapping[str, str | None]) -> _Read:
    """Return the columns of a JSON Lines file's first object, no delimiter, and the rows.

    Raises:
        ConfigurationError: It holds an array, which is another format.
    """
    numbered = ((n, line) for n, line in enumerate(lines, start=1) if line.strip())
    first = next(numbered, (1, ""))
    if first[1].lstrip().startswith("["):
        raise ConfigurationError(
            "The file is a JSON array: write one object on each line, without brackets."
        )
    rows = [_object(line, number, columns) for number, line in [first] if line]
    names = [name for row in rows if isinstance(row, FileRow) for name in row]
    rest = (_object(line, number, columns) for number, line in numbered)
    return fields_by_name(names, columns), None, chain(rows, rest)


def _object(line: str, number: int, columns: Mapping[str, str | None]) -> Row:
    try:
        value = json.loads(line, parse_float=_number, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        what = "not JSON, or has a name twice" if len(line) < LONGEST_LINE else "too long"
        return UnreadableRow(f"The line is {what}.", number)
    if not isinstance(value, dict):
        return UnreadableRow("The line is not a JSON object.", number)
    if not columns:
        return FileRow(value.items(), number)
    named = dict(fields_by_name(value, columns))
    return FileRow(
        ((named[name] or "", each) for name, each in value.items() if named[name]), number
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name stands twice")
    return value


def _number(text: str) -> float | str:
    # An exponent may stand for digits that are lost, so it stays to be seen.
    return text if "e" in text.lower() else float(text)


def _masked(row: FileRow) -> Mapping[str, str]:
    known = ((field_of(name), value) for name, value in row.items())
    return {name: _shape(value) for name, value in known if name is not None}
