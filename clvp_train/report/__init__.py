"""What an evaluation found, for people: tables, figures, one page."""

from clvp_train.report.figures import draw
from clvp_train.report.files import (
    METRICS_FILE,
    PAGE_FILE,
    print_report,
    print_table,
    write_metrics,
    write_report,
)
from clvp_train.report.page import Page, png, table_lines
from clvp_train.report.pictures import FigureData
from clvp_train.report.tables import Table, comparison, tables

__all__ = [
    "METRICS_FILE",
    "PAGE_FILE",
    "FigureData",
    "Page",
    "Table",
    "comparison",
    "draw",
    "png",
    "print_report",
    "print_table",
    "table_lines",
    "tables",
    "write_metrics",
    "write_report",
]
