"""The log of a run as a CSV file that a run which goes on carries on."""

import csv
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


class _Appending(ExperimentWriter):
    """Lightning's own removes the file that it finds."""

    def _check_log_dir_exists(self) -> None:
        pass


class CSVLog(CSVLogger):
    """`metrics.csv`, to which a run that goes on appends.

    Attributes:
        rows: how many were written so far.
    """

    rows = 0

    def keep(self, rows: int) -> None:
        """Takes over the first rows of the file that is there; those behind them were logged after the checkpoint."""
        file = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
        if not file.exists():
            return
        with file.open(newline="") as there:
            reader = csv.DictReader(there)
            header, kept = list(reader.fieldnames or ()), [row for row, _ in zip(reader, range(rows))]
        partial = file.with_suffix(".partial")
        with partial.open("w", newline="") as here:
            writer = csv.DictWriter(here, header)
            writer.writeheader()
            writer.writerows(kept)
        os.replace(partial, file)
        experiment = _Appending(self.log_dir)
        experiment.metrics_keys = header
        self._experiment, self.rows = experiment, len(kept)

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        self.rows += 1
