"""A report's files, and what of it a terminal shows."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as ConsoleTable

from clvp_train.io import write_text
from clvp_train.report import tables as make
from clvp_train.report.page import Page, html, markdown, svg

METRICS_FILE, PAGE_FILE, MARKDOWN_FILE, FIGURES = "metrics.json", "index.html", "report.md", "figures"


def write_metrics(metrics: dict[str, Any], folder: Path) -> Path:
    """Writes `metrics.json` whole or not at all and returns its path."""
    return write_text(folder / METRICS_FILE, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")


def write_report(page: Page, folder: Path) -> Path:
    """Writes `index.html`, `report.md` and the figures that it shows, each whole or not at all. Returns the path of
    `index.html`."""
    for name, (_, figure) in page.figures.items():
        write_text(folder / FIGURES / f"{name}.svg", svg(figure))
    write_text(folder / MARKDOWN_FILE, markdown(page, FIGURES))
    return write_text(folder / PAGE_FILE, html(page))


def print_report(metrics: dict[str, Any], console: Console | None = None) -> None:
    """Prints what matters most as tables."""
    for table in (make.retrieval(metrics), make.perturbations(metrics), make.rerank(metrics)):
        if table:
            print_table(table, console)
    for part, reason in metrics.get("left_out", {}).items():
        (console or Console()).print(f"not measured: {part}: {reason}", markup=False, highlight=False)


def print_table(table: make.Table, console: Console | None = None) -> None:
    """Prints a table in the width of the terminal."""
    shown = ConsoleTable(*table.header, title=table.title, caption=table.note)
    for row in table.rows:
        shown.add_row(*row)
    (console or Console()).print(shown)
