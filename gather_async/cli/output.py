"""Streams of a command, results on standard output and the rest beside them, and its status."""

import contextlib
import errno
import json
import os
import re
import select
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ExitStatus", "Output", "Stream", "cell", "printable", "to_jsonable"]

_ESCAPES = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
# Columns that a reader copies from: they are shown whole, or the table becomes records.
_ID = re.compile(r"(^|[ _])(id|key)$")
_NARROWEST = 8  # characters that another column is given at the least, to be of any use
_GAP = 2


class ExitStatus(IntEnum):
    """The exit status of every command."""

    OK = 0
    FAILURE = 1
    """It failed, or a part of it did."""
    USAGE = 2
    """The command can't be run as it was written."""
    AUTHENTICATION = 3
    """The API key is missing or not accepted."""
    INTERRUPTED = 130
    """Ctrl-C; 128 and SIGINT's number, as shells have it."""


def to_jsonable(value: Any) -> Any:
    """Return what JSON can hold: a model's `to_dict`, ISO 8601 dates, plain text."""
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        return to_dict()
    if isinstance(value, Mapping):
        return {str(name): to_jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return str.__str__(value)
    return value


def printable(value: object) -> str:
    """Return text that can't move the cursor: what a server sends may end up on a terminal."""
    return "".join(
        char if char.isprintable() or char in "\t\n" else "\N{REPLACEMENT CHARACTER}"
        for char in str(value)
    )


def cell(value: object) -> str:
    r"""Return one cell of a table: a tab or line break in a name can't make a row of its own.

    >>> cell("Ada\n2\tForged")
    'Ada\\n2\\tForged'
    """
    text = "" if value is None else str(value)
    return printable("".join(_ESCAPES.get(char, char) for char in text))


class Stream:
    """A standard stream whose loss is noted instead of raised.

    A pipe whose reader left, a full disk and a stream that was closed before the program
    began must not cost the work that a command does; what only prints asks `lost`.
    """

    def __init__(self, name: str) -> None:
        # As it is now: while rich draws something live, `sys` has a stand-in that writes here.
        self._stream: TextIO | None = getattr(sys, name, None)
        self.lost: OSError | None = None
        """Why nothing more can be written; None while all is well."""
        if self._stream is None:
            self.lost = OSError(errno.EBADF, "it is closed")

    @property
    def encoding(self) -> str:
        """The stream's encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether a terminal shows it."""
        stream = self._stream
        return stream is not None and not stream.closed and stream.isatty()

    def fileno(self) -> int:
        """Return the number of its file."""
        if self._stream is None:
            raise OSError(errno.EBADF, "it is closed")
        return self._stream.fileno()

    def has_no_reader(self) -> bool:
        """Return whether it is a pipe whose reader has left; False where that is unknown."""
        if not hasattr(select, "poll"):
            return False
        with contextlib.suppress(OSError, ValueError):
            watched = select.poll()
            watched.register(self.fileno(), select.POLLERR)
            return any(event & select.POLLERR for _, event in watched.poll(0))
        return False

    def write(self, text: str) -> int:
        """Write text, unless the stream is lost."""
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        """Write out what is buffered, unless the stream is lost."""
        self._attempt("flush")

    def _attempt(self, call: str, *arguments: str) -> None:
        stream = self._stream
        if self.lost is not None or stream is None:
            return
        try:
            getattr(stream, call)(*arguments)
        except ValueError:  # closed by someone in this process
            self.lost = OSError(errno.EBADF, "it is closed")
        except OSError as error:
            self.lost = error
            # What is still buffered would fail again when Python ends, with a traceback.
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


class Output:
    """The two streams of a command. rich is imported once something is drawn."""

    def __init__(self) -> None:
        self._out = Stream("stdout")
        self._err = Stream("stderr")

    @property
    def is_lost(self) -> bool:
        """Whether standard output takes nothing more, so that only printing has no point."""
        return self._out.lost is not None

    def has_no_reader(self) -> bool:
        """Return whether standard output is a pipe whose reader has left, without writing."""
        return self._out.has_no_reader()

    @contextlib.contextmanager
    def as_sys(self) -> Iterator[None]:
        """Let argparse write here, which swallows what its own writing raises."""
        out, err = cast("TextIO", self._out), cast("TextIO", self._err)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield

    def flush(self) -> None:
        """Write out what is left in the buffers."""
        self._out.flush()
        self._err.flush()

    @property
    def failure(self) -> OSError | None:
        """Why standard output was lost, unless its reader just left; None if it was not."""
        lost = self._out.lost
        return None if isinstance(lost, BrokenPipeError) else lost

    @cached_property
    def out(self) -> "Console":
        """The console of standard output."""
        return _console(self._out)

    @cached_property
    def err(self) -> "Console":
        """The console of standard error; one with the other's where one terminal shows both."""
        is_one_terminal = self._out.isatty() and self._err.isatty()
        return self.out if is_one_terminal else _console(self._err)

    @property
    def is_piped(self) -> bool:
        """Whether standard output goes to a program or a file."""
        return not self._out.isatty()

    @property
    def is_watched(self) -> bool:
        """Whether a person sees standard error on a terminal."""
        return self._err.isatty()

    def print(self, text: str, *, style: str = "") -> None:
        """Write one line of a result."""
        self._line(self._out, printable(text), style)

    def raw(self, text: str) -> None:
        """Write text as it is, line ends included."""
        self._out.write(text)

    def row(self, *cells: object) -> None:
        """Write one line of cells with tabs between them."""
        self._line(self._out, "\t".join(map(cell, cells)), "")

    def info(self, text: str, *, style: str = "") -> None:
        """Write one line to standard error."""
        self._line(self._err, printable(text), style)

    def error(self, text: str) -> None:
        """Write an error message to standard error."""
        self.info(text, style="bold red")

    def json(self, value: Any, *, indent: int | None = None) -> None:
        """Write one JSON document; ASCII only, so that any consumer reads it."""
        self._line(self._out, json.dumps(value, indent=indent), "")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a table; into a pipe, a line a row and a tab between cells, without a head.

        No id is cut or folded: other columns are shortened, and where even that isn't
        enough, each row becomes a few lines of names and values.
        """
        if self.is_piped:
            for row in rows:
                self.row(*row)
            return
        shown = [[cell(each) for each in row] for row in rows]
        widths = _widths(columns, shown, shutil.get_terminal_size().columns)
        if widths is None:
            self._records(columns, shown)
            return
        self._line(self._out, _aligned(columns, widths), "bold")
        for row in shown:
            self._line(self._out, _aligned(row, widths), "")

    def _records(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        longest = max(map(len, columns))
        for number, row in enumerate(rows):
            if number:
                self.print("")
            for column, value in zip(columns, row, strict=True):
                self.print(f"{column:<{longest}}  {value}")

    def ask(self, question: str) -> str:
        """Return a line from the person at the terminal.

        Raises:
            EOFError: Standard input has ended, or is closed.
        """
        self._err.write(question)
        self._err.flush()
        line = sys.stdin.readline() if sys.stdin is not None else ""
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def _line(self, stream: Stream, text: str, style: str) -> None:
        """Write a line as it is: rich would expand tabs and fold what goes into a pipe."""
        is_drawn_on = "err" in vars(self)  # a line goes above a bar, not into it
        if stream.isatty() and (style or is_drawn_on):
            from rich.text import Text  # noqa: PLC0415 - only a terminal needs it

            console = self.out if stream is self._out else self.err
            console.print(Text(text, style=style), soft_wrap=True)
        else:
            stream.write(f"{text}\n")
            stream.flush()


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Return the columns' widths; None if there is no room for a table."""
    from rich.cells import cell_len  # noqa: PLC0415 - only a terminal needs it

    longest = [max(map(cell_len, each)) for each in zip(columns, *rows, strict=True)]
    rest = width - _GAP * (len(columns) - 1)
    # The narrowest first: what they don't need is left to the others.
    others = sorted(
        (at for at, name in enumerate(columns) if not _ID.search(name)), key=longest.__getitem__
    )
    rest -= sum(longest) - sum(longest[at] for at in others)
    widths = list(longest)
    for left, at in zip(range(len(others), 0, -1), others, strict=True):
        widths[at] = min(longest[at], rest // left)
        if widths[at] < min(longest[at], _NARROWEST):
            return None
        rest -= widths[at]
    return widths if rest >= 0 else None


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return a line of a table; what is too long for its column ends in an ellipsis."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - see above

    shown = (
        # An ideograph takes two columns of the screen.
        set_cell_size(text, width)
        if cell_len(text) <= width
        else set_cell_size(text, width - 1) + "\N{HORIZONTAL ELLIPSIS}"
        for text, width in zip(cells, widths, strict=True)
    )
    return (" " * _GAP).join(shown).rstrip()


def _console(stream: Stream) -> "Console":
    """Return a console that never reads the text of others as markup."""
    from rich.console import Console  # noqa: PLC0415 - a fifth of the start of a command

    file: Any = stream
    return Console(
        file=file,
        force_terminal=None if stream.isatty() else False,
        markup=False,
        highlight=False,
        emoji=False,
    )
