"""Reports: figures, tables and pages for the metrics of an evaluation."""

from clvp_train.report.figure_data import FigureData, read_history
from clvp_train.report.figures import draw, png
from clvp_train.report.page import (
    MARKDOWN_FILE,
    METRICS_FILE,
    PAGE_FILE,
    Page,
    Sample,
    comparison_page,
    evaluation_page,
    read_metrics,
    write_metrics,
    write_report,
)
from clvp_train.report.reranking import worth
from clvp_train.report.table import Table, print_table, table_lines
from clvp_train.report.tables import print_summary, tables

__all__ = [
    "MARKDOWN_FILE",
    "METRICS_FILE",
    "PAGE_FILE",
    "FigureData",
    "Page",
    "Sample",
    "Table",
    "comparison_page",
    "draw",
    "evaluation_page",
    "png",
    "print_summary",
    "print_table",
    "read_history",
    "read_metrics",
    "table_lines",
    "tables",
    "worth",
    "write_metrics",
    "write_report",
]
