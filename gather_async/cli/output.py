"""Where commands write: results to standard output, everything else to standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import Factory, field, frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gather_async.models.fields import Model

__all__ = ["Output", "printable", "to_jsonable"]


def to_jsonable(value: Any) -> Any:
    """Return what JSON can hold: a model's `to_dict`, ISO 8601 dates, plain text."""
    if isinstance(value, Model):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(name): to_jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return str.__str__(value)
    return value


def _console(*, stderr: bool) -> Console:
    """Make a console that never reads the text of others as markup."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def printable(value: object) -> str:
    """Return text that can't move the cursor: what a server sends may end up on a terminal."""
    return "".join(
        char if char.isprintable() or char in "\t\n" else "\N{REPLACEMENT CHARACTER}"
        for char in str(value)
    )


def _second_console(out: Console) -> Console:
    """Use one console where one terminal shows both, so that lines go above a live display."""
    is_one_terminal = sys.stdout.isatty() and sys.stderr.isatty()
    return out if is_one_terminal else _console(stderr=True)


@frozen
class Output:
    """The two streams of a command."""

    out: Console = field(factory=lambda: _console(stderr=False))
    err: Console = field(default=Factory(lambda self: _second_console(self.out), takes_self=True))

    def print(self, text: str, *, style: str = "") -> None:
        """Write one line of a result."""
        _write(self.out, printable(text), style)

    def info(self, text: str, *, style: str = "") -> None:
        """Write one line to standard error."""
        _write(self.err, printable(text), style)

    def error(self, text: str) -> None:
        """Write an error message to standard error."""
        self.info(text, style="bold red")

    def json(self, value: Any, *, indent: int | None = None) -> None:
        """Write one JSON document; ASCII only, so that any consumer reads it."""
        _write(self.out, json.dumps(value, indent=indent))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a table; into a pipe, a line a row and a tab between cells, without a head."""
        if not self.out.is_terminal:
            for row in rows:
                _write(self.out, "\t".join(map(printable, row)))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self.out.print(table)

    def ask(self, question: str) -> str:
        """Return a line from the person at the terminal.

        Raises:
            EOFError: Standard input has ended.
        """
        return self.err.input(question, markup=False)


def _write(console: Console, text: str, style: str = "") -> None:
    """Write a line as it is: rich would expand tabs and fold what goes into a pipe."""
    if console.is_terminal:
        console.print(Text(text, style=style), soft_wrap=True)
    else:
        print(text, file=console.file, flush=True)
