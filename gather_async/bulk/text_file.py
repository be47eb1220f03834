"""The text in a file's bytes: its encoding, its lines, and the rows of CSV."""

import codecs
import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import TextIOWrapper
from itertools import chain, islice, takewhile
from typing import BinaryIO

from gather_async.bulk.row_check import FileRow, Row, UnreadableRow, field_of

__all__ = [
    "CsvReader",
    "LONGEST_LINE",
    "guess_encoding",
    "marked_encoding",
    "physical_lines",
    "plausible_in_windows_1252",
]

_BLOCK = 1 << 20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ESCAPED = re.compile("[\ud800-\udfff]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def marked_encoding(head: bytes) -> str | None:
    """Return the encoding that a byte order mark in a file's first bytes names."""
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def guess_encoding(head: bytes, rest: Iterable[bytes] = ()) -> str:
    """Return the encoding of a file's first bytes and the blocks that follow, if any.

    That is UTF-8, unless it has more bytes that break the rules of UTF-8 than characters
    beyond ASCII that keep them: then Windows-1252.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    good = bad = 0
    for block in chain((head,), rest):
        if block.isascii() and not decoder.getstate()[0]:
            continue
        text = decoder.decode(block)
        escaped = len(_ESCAPED.findall(text))
        bad += escaped
        good += len(_NOT_ASCII.findall(text)) - escaped
    # The bytes of a character that the end of the file cuts are left in the decoder.
    return "cp1252" if bad > good else "utf-8"


# Bytes of other encodings become symbols, capitals within a word, or words of accents only.
_NOT_WINDOWS_1252 = re.compile(
    r"[^\W_][^\w\s\x00-\x7f\u2019\u2013\udc80-\udcff]|\u2013[a-z]|[a-z][\xc0-\xde\u0152\u0160\u0178]"
    r"|(?<![A-Za-z])[\xc0-\xff]{3,}(?![A-Za-z])|[\xb2\xb3\xb9\xbc-\xbe]|^[^\w\x00-\x7f\udc80-\udcff]"
)


def plausible_in_windows_1252(row: Row) -> Row:
    """Return the row, or one that is refused if its names can't be in Windows-1252.

    That is what bytes become that belong to another encoding of one byte a letter.
    """
    if isinstance(row, UnreadableRow):
        return row
    for key, text in row.items():
        if not isinstance(text, str) or text.isascii():
            continue
        name = field_of(key)
        if name is not None and _NOT_WINDOWS_1252.search(text):
            return UnreadableRow(
                f"The row's {name} makes no sense in Windows-1252, which was guessed: name"
                " the file's encoding (encoding=, --encoding).",
                row.line,
            )
    return row


def _mark_bytes(error: UnicodeError) -> tuple[str, int]:
    """Return lone surrogates for bytes that an encoding doesn't have, whichever they are."""
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101 - nothing is encoded with it
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


# "surrogateescape" can't mark the halves of a cut character of UTF-16.
codecs.register_error("gather_async.mark", _mark_bytes)

_END_OF_FILE = re.compile(r"\x1a+(?=[\r\n]*$)")

LONGEST_LINE = 1 << 20
"""Characters of a line that are read; no candidate has more."""


def physical_lines(file: BinaryIO, encoding: str) -> Iterator[str]:
    r"""Yield a file's lines with their ends, without byte order marks at the start; close it.

    What the encoding doesn't have becomes a lone surrogate, which the row's check
    refuses: the row is lost, not the file. Of a line longer than 1 Mi characters
    only the beginning is given. ``\r\r\n``, which a conversion makes twice, is one end,
    and DOS's mark of a file's end is nothing.
    """
    held = ""
    for line in _lines_by_any_end(file, encoding):
        if held:
            is_one, whole, held = line == "\r\n", held, ""
            yield f"{whole}\n" if is_one else whole
            if is_one:
                continue
        if line[-1] == "\r":
            held = line
        elif text := _END_OF_FILE.sub("", line):
            yield text
    if held:
        yield held


def _lines_by_any_end(file: BinaryIO, encoding: str) -> Iterator[str]:
    r"""Yield the lines that end in ``\n``, ``\r`` or ``\r\n``."""
    is_first = True
    with TextIOWrapper(file, encoding=encoding, errors="gather_async.mark", newline="") as text:
        while line := text.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE and line[-1] not in "\r\n":
                while (more := text.readline(LONGEST_LINE)) and more[-1] not in "\r\n":
                    pass
            yield line.lstrip("\ufeff") if is_first else line
            is_first = False


_DELIMITERS = ",;\t|: ^~\x1f\x01"
_SAMPLE_LINES = 50
# Characters of one record, as much as the csv module allows one cell.
_LONGEST_RECORD = 1 << 17
_BACKSLASHED = re.compile(r"\\[\"']")
_LINE_BREAK = re.compile(r"[\r\n]")
_IN_APOSTROPHES = re.compile(r"(?:^|[,;\t|: ])'[^']*'(?=[,;\t|: \r\n]|$)")

Dialect = type[csv.Dialect]


class _Lines:
    """Lines with their numbers, those of one record kept so that they can be read again."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self.number = 0
        """The number of the line that was given last."""
        self.taken: list[str] = []
        """The lines of the record."""
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._size > _LONGEST_RECORD:
            raise csv.Error("a record is too long")
        line = self._again.popleft() if self._again else next(self._lines)
        self.number += 1
        self.taken.append(line)
        self._size += len(line)
        return line

    def begin_record(self, *, keep: int | None = None) -> None:
        """Forget the record's lines; those after the first ``keep`` come again."""
        if keep is not None:
            self._again.extendleft(reversed(self.taken[keep:]))
            self.number -= len(self.taken) - keep
        self.taken = []
        self._size = 0


class CsvReader:
    """The rows of a CSV file, each line of it accounted for.

    A quote that is not closed breaks the record on its line, and no other: the lines
    that it swallowed are read anew, and are records if they look like whole ones.
    """

    def __init__(self, lines: Iterator[str], recognised: Callable[[Iterable[str]], int]) -> None:
        """Read the header.

        Args:
            lines: The file's, with their ends.
            recognised: Counts the names of columns that are known among cells.
        """
        sample = list(islice(lines, _SAMPLE_LINES))
        self._lines = _Lines(chain(sample, lines))
        blank = sum(1 for _ in takewhile(lambda line: not line.strip("\r\n \t,;|"), sample))
        marked = "".join(sample[blank : blank + 1]).strip('\r\n "')
        if marked[:4].lower() == "sep=" and len(marked) == len("sep=;"):
            # Excel writes this line for itself, and reads nothing without it.
            blank += 1
            self._lenient = _dialect(marked[4], '"')
        else:
            self._lenient = _guess_dialect(sample[blank:], recognised)
        self.delimiter: str = self._lenient.delimiter
        """What parts the cells."""
        self._strict: Dialect = type("_Strict", (self._lenient,), {"strict": True})
        for _ in range(blank):
            next(self._lines)
        self.header: list[str] = self._read_header()
        """The cells of the first line that isn't blank."""
        self._fields: Sequence[str | None] = ()
        self._doubtful_until = 0
        self._quote_line = 0
        self._is_recovering = True

    def _read_header(self) -> list[str]:
        self._lines.begin_record()
        try:
            return next(csv.reader(self._lines, self._strict), [])
        except csv.Error:
            line = self._lines.taken[0]
            self._lines.begin_record(keep=1)
            return self._parsed(line, self._lenient) or []

    def rows(self, fields: Sequence[str | None]) -> Iterator[Row]:
        """Yield the rows after the header; those without any text don't count.

        Args:
            fields: What each column means; None if it is not read. One of them is the
                ``email``: by the "@" in its cells a line is known for a row.
        """
        self._fields = fields
        lines = self._lines
        reader = csv.reader(lines, self._strict)
        while True:
            lines.begin_record()
            cells: list[str] | None = None
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                reader = csv.reader(lines, self._strict)
            if cells is not None and len(lines.taken) == 1:
                if any(map(str.strip, cells)):
                    yield self._single(lines.taken[0], cells)
                continue
            row, length = self._resolve(cells)
            lines.begin_record(keep=length)
            yield row

    def _single(self, line: str, cells: list[str]) -> Row:
        """Return the row of one line."""
        if "\\" in line and (len(cells) != len(self.header) or self._has(_BACKSLASHED, cells)):
            cells = self._unescaped(line) or cells
        return self._row(cells, self._lines.number)

    def _row(self, cells: Sequence[str], line: int) -> Row:
        """Return a record's row, unless a quote swallowed it: it may be a part of a cell then."""
        if line <= self._doubtful_until:
            has_quotes = any('"' in cell for cell in cells)
            if not self._is_recovering or has_quotes or not self._is_whole(cells):
                where = f"within the quote that line {self._quote_line} opens"
                return UnreadableRow(f"The line lies {where}.", line)
        if len(cells) > len(self._fields) and any(map(str.strip, cells[len(self._fields) :])):
            fault = "The line has more cells than the header: is a quote missing?"
            return UnreadableRow(fault, line)
        pairs = zip(self._fields, cells, strict=False)
        return FileRow(((name, cell) for name, cell in pairs if name is not None), line)

    def _resolve(self, cells: list[str] | None) -> tuple[Row, int]:
        """Return the row that begins with the lines taken, and how many of them it has.

        Args:
            cells: What the csv module made of the lines; None if nothing.
        """
        taken, size = self._lines.taken, len(self._lines.taken)
        first = self._lines.number - size + 1
        alone = self._mended(taken[0])
        if alone is not None:
            return self._row(alone, first), 1
        is_full = cells is not None and len(cells) == len(self.header)
        if cells is not None and is_full and not self._swallows(taken):
            return self._row(cells, first), size
        opened, fault = _scan(taken, self._lenient)
        if size == 1 and fault:
            return UnreadableRow(fault, first), 1
        if self._swallows(taken[: opened + 1]):
            opened = 0  # an earlier quote is closed by one of another record
        self._quote_line = first + opened
        self._doubtful_until = max(self._doubtful_until, first + size - 1)
        # A note may quote whole records: what lies within it is no candidate.
        self._is_recovering = not is_full or self._has(_LINE_BREAK, cells or ())
        fault = f"The quote that line {self._quote_line} opens isn't closed on it, and swallows the"
        fault = f"{fault} lines that follow: close or remove it."
        return UnreadableRow(fault, first), opened + 1

    def _has(self, pattern: re.Pattern[str], cells: Sequence[str]) -> bool:
        """Return whether a cell of a column that is read has the pattern."""
        pairs = zip(self._fields, cells, strict=False)
        return any(name is not None and pattern.search(cell) for name, cell in pairs)

    def _mended(self, line: str) -> list[str] | None:
        """Return a line's cells if its quotes are only escaped, or followed by spaces."""
        cells = self._unescaped(line) if "\\" in line else None
        if cells is not None:
            return cells
        quote = self._lenient.quotechar or '"'
        tight = re.sub(rf"{quote}[ \t]+(?={re.escape(self.delimiter)}|[\r\n]*$)", quote, line)
        return self._parsed(tight, self._strict, is_full=True) if tight != line else None

    def _unescaped(self, line: str) -> list[str] | None:
        """Return a line's cells if backslashes escape in it, and make it a whole record."""
        delimiter = re.escape(self.delimiter)
        line = re.sub(rf"(?<={delimiter})\\N(?={delimiter}|[\r\n]|$)", "", line)  # MySQL's NULL
        if re.search(rf"\\[^\"'\\{delimiter}]", line):
            return None
        escaping = type("_Escaping", (self._strict,), {"escapechar": "\\"})
        return self._parsed(line, escaping, is_full=True)

    def _parsed(self, line: str, dialect: Dialect, *, is_full: bool = False) -> list[str] | None:
        try:
            cells = next(csv.reader([line], dialect), None)
        except csv.Error:
            return None
        return None if is_full and len(cells or ()) != len(self.header) else cells

    def _swallows(self, taken: Sequence[str]) -> bool:
        """Return whether lines of one record look like records of their own."""
        whole = [self._is_whole(self._parsed(line, self._lenient) or ()) for line in taken[1:]]
        if any(whole[:-1]):
            return True
        # The end of a cell with a line break looks whole as well; its beginning doesn't.
        plain = taken[0].replace(self._lenient.quotechar or '"', "")
        return whole[-1:] == [True] and self._is_whole(self._parsed(plain, self._lenient) or ())

    def _is_whole(self, cells: Sequence[str]) -> bool:
        return len(cells) == len(self.header) and "@" in cells[self._fields.index("email")]


def _scan(lines: Sequence[str], dialect: Dialect) -> tuple[int, str | None]:
    """Return the index of the line of the last opening quote, and a fault after a closing one."""
    quote, ends = dialect.quotechar or '"', (dialect.delimiter, "\r", "\n", "")
    opened, is_inside, is_start = 0, False, True
    for number, line in enumerate(lines):
        position = 0
        while position < len(line):
            character, after = line[position], line[position + 1 : position + 2]
            position += 1
            if not is_inside:
                if character == quote and is_start:
                    opened, is_inside = number, True
                is_start = character in ends or (is_start and character == " ")
            elif character == quote:
                if after == quote:
                    position += 1
                elif after in ends:
                    is_inside = False
                else:
                    return opened, "Text follows a closing quote: write quotes in a cell twice."
    return opened, None if is_inside else "A cell is longer than any name, address or number."


def _dialect(delimiter: str, quote: str) -> Dialect:
    """Return Excel's dialect with another delimiter, and quotes after a delimiter and a space."""
    rules = {"delimiter": delimiter, "quotechar": quote, "skipinitialspace": delimiter != " "}
    return type("_Like", (csv.excel,), rules)


def _guess_dialect(sample: Sequence[str], recognised: Callable[[Iterable[str]], int]) -> Dialect:
    """Return the dialect that makes the most sense of a file's first lines."""
    dialects = [_dialect(delimiter, '"') for delimiter in _DELIMITERS]
    # Names begin with apostrophes, too.
    if 2 * sum(map(bool, map(_IN_APOSTROPHES.search, sample))) > len(sample):
        dialects += [_dialect(delimiter, "'") for delimiter in _DELIMITERS]
    # `max` keeps the first of equals.
    return max(dialects, key=lambda dialect: _score(dialect, sample, recognised))


def _score(
    dialect: Dialect, lines: Sequence[str], recognised: Callable[[Iterable[str]], int]
) -> tuple[int, int, int]:
    """Return the columns that the header names, lines cut like it, and no quotes left over."""
    header: list[str] = []
    alike = wrapped = 0
    rows = csv.reader(lines, dialect)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return recognised(header), alike, -wrapped
        except csv.Error:
            continue
        header = header or row
        alike += len(row) == len(header)
        wrapped += sum(len(cell) > 1 and cell[0] in "\"'" and cell[0] == cell[-1] for cell in row)
