"""The report of an evaluation: a JSON file for programs, a table for people."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

METRICS_FILE = "metrics.json"


def write_report(metrics: dict[str, Any], folder: Path) -> Path:
    """Writes `metrics.json` whole or not at all and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{METRICS_FILE}.partial"
    partial.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    return partial.replace(folder / METRICS_FILE)


def print_report(metrics: dict[str, Any], console: Console | None = None) -> None:
    """Prints both directions of retrieval as one table."""
    title = f"Retrieval among {metrics['gallery']} sentences (R@1 by chance: {metrics['chance_R@1']:.4f})"
    table = Table("", "text → speech", "speech → text", title=title)
    for name, value in metrics["text_to_speech"].items():
        digits = 1 if name.endswith("rank") else 3
        table.add_row(name, f"{value:.{digits}f}", f"{metrics['speech_to_text'][name]:.{digits}f}")
    (console or Console()).print(table)
