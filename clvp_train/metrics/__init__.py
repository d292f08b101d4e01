"""What a checkpoint is judged by."""

from clvp_train.metrics.report import METRICS_FILE, print_report, write_report
from clvp_train.metrics.retrieval import MODE, PRIMARY, ranks, retrieval, summary

__all__ = ["METRICS_FILE", "MODE", "PRIMARY", "print_report", "ranks", "retrieval", "summary", "write_report"]
