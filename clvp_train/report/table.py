"""Tables of a report, as Markdown and on a terminal, and the format of their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as ConsoleTable

from clvp_train.io.sanitize import escape_markdown

Metrics = dict[str, Any]  # of `evaluation.evaluate_model`
INTERVALS = "In brackets: 95% bootstrap intervals over texts."


@dataclass(frozen=True)
class Table:
    """Columns after the first hold numbers, unless `words` is true."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: bool = False


def table_lines(table: Table) -> list[str]:
    """Returns the lines of a table in Markdown."""
    lines = []
    if table.rows:
        lines += [_line(table.header), _line(["---"] * len(table.header)), *map(_line, table.rows)]
    note = escape_markdown(table.note)
    return lines + (["", note] if table.rows and note else [note])


def print_table(table: Table, console: Console | None = None) -> None:
    """Prints a table in the width of the terminal."""
    # names from data may look like rich's markup
    shown = ConsoleTable(*map(escape, table.header), title=escape(table.title), caption=escape(table.note))
    for row in table.rows:
        shown.add_row(*map(escape, row))
    (console or Console()).print(shown)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def rate(result: dict[str, Any]) -> str:
    return with_interval(result["value"], result["interval"])


def with_interval(value: float, bounds: Sequence[float] | None, digits: int = 3, signed: bool = False) -> str:
    sign = "+" if signed else ""
    shown = f"{value:{sign}.{digits}f}"
    return f"{shown} ({bounds[0]:{sign}.{digits}f} to {bounds[1]:{sign}.{digits}f})" if bounds else shown
