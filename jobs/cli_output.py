"""What the `pymk` command prints: results on stdout, everything else on stderr."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import orjson
from rich.console import Console
from rich.table import Table

WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""

console = Console(stderr=True, highlight=False)
"""For progress, warnings and errors."""


class Output:
    """The command's one result. `claim_stdout` keeps stdout for it: whatever else writes there goes to stderr."""

    def __init__(self) -> None:
        self._stream: TextIO = sys.stdout

    def claim_stdout(self) -> None:
        sys.stdout.flush()
        self._stream = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def json(self, value: Any) -> None:
        self._stream.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
        self._stream.flush()

    def show(self, value: Any, as_json: bool, render: Callable[[Console], None]) -> None:
        """One JSON object with `--json`, else what `render` prints."""
        if as_json:
            self.json(value)
        else:
            width = None if self._stream.isatty() else WIDTH
            render(Console(file=self._stream, highlight=False, width=width))
            self._stream.flush()


output = Output()


def progress(line: str) -> None:
    console.print(f"[dim]pymk[/dim] {line}", soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A rich table of text cells."""
    made = Table(title=title, title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made
