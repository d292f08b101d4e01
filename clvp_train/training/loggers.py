"""Loggers that a resumed run continues: a CSV file, TensorBoard and Weights & Biases."""

import csv
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from clvp_train.io import atomic_write
from clvp_train.training.checkpointing import next_log_step

WANDB_ID_FILE = "logs/wandb_id"  # in the run folder
# seconds; what W&B holds back for longer, 15 by default, is lost if the process is killed
WANDB_SETTINGS = {"x_transaction_log_flush_interval": 0.1}


class CSVLog(Logger):
    """Writes `metrics.csv` and `hparams.yaml`.

    Lightning's CSVLogger deletes the file of an earlier run in the same folder, so it cannot continue one.

    Args:
        save_dir: the run folder.
        name: of the folder in it.
        flush_logs_every_n_steps: how often to write rows to disk; they are also written at every checkpoint.

    Attributes:
        rows: number of rows that were logged.
    """

    rows = 0
    name = version = save_dir = ""  # of Lightning's interface

    def __init__(self, save_dir: str | Path, name: str = "logs", flush_logs_every_n_steps: int = 100) -> None:
        super().__init__()
        self.save_dir, self.name, self.file = str(save_dir), name, Path(save_dir, name, "metrics.csv")
        self.flush_logs_every_n_steps = flush_logs_every_n_steps
        self._columns: list[str] = []  # of the file; [] before the first row is written
        self._pending: list[dict[str, Any]] = []

    def keep(self, rows: int) -> None:
        """Continues an existing file after its first `rows` rows; later ones were logged after the checkpoint."""
        if not self.file.exists():
            return
        columns, kept = self._read()
        self._write(columns, kept[:rows])
        self.rows = len(kept[:rows])

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        save_hparams_to_yaml(str(self.file.with_name("hparams.yaml")), params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        step = self.rows if step is None else step
        values = {name: value.item() if isinstance(value, torch.Tensor) else value for name, value in metrics.items()}
        self._pending.append(values | {"step": step})
        self.rows += 1
        if (step + 1) % self.flush_logs_every_n_steps == 0:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        if not self._pending:
            return
        columns = sorted({*self._columns, *(name for row in self._pending for name in row)})
        if columns == self._columns:
            with self.file.open("a", newline="") as file:
                csv.DictWriter(file, columns).writerows(self._pending)
        else:  # a new column changes the header
            self._write(columns, [*(self._read()[1] if self._columns else ()), *self._pending])
        self._pending = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _read(self) -> tuple[list[str], list[dict[str, Any]]]:
        with self.file.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            return list(reader.fieldnames or ()), rows

    def _write(self, columns: list[str], rows: list[dict[str, Any]]) -> None:
        with atomic_write(self.file) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        self._columns = columns


class TensorBoardLog(TensorBoardLogger):
    """TensorBoard events. A resumed run discards the events that were logged after its checkpoint.

    Args:
        save_dir: the run folder.
        resume: the checkpoint from which a run resumes.
        settings: of `TensorBoardLogger`.
    """

    def __init__(self, save_dir: str | Path, resume: str | None = None, **settings: Any) -> None:
        super().__init__(save_dir, purge_step=next_log_step(resume) if resume else None, **settings)


class WandbLog(WandbLogger):
    """A W&B logger that is offline where no key is set, so that a run never waits for a login.

    Args:
        save_dir: the run folder, which stores the id of the W&B run.
        resume: the checkpoint from which a run resumes, in the W&B run of the stored id; None: a new W&B run.
        id: of the W&B run; None: the stored one, WANDB_RUN_ID, or a new one.
        offline: None: follows WANDB_MODE or, if that is not set, is offline unless a key is found.
        artifact: whether `end` uploads the model as an artifact.
        settings: of `WandbLogger`.

    Attributes:
        rows: number of rows that were logged, which is W&B's `_step` of the next one.
    """

    rows = 0

    def __init__(
        self,
        save_dir: str | Path = ".",
        resume: str | None = None,
        id: str | None = None,
        offline: bool | None = None,
        artifact: bool = False,
        **settings: Any,
    ) -> None:
        import wandb  # here and in `end`: it is slow to import and needed only with logger=wandb

        if wandb.run is not None:
            wandb.finish()  # a failed job of the same sweep; this run would log into its W&B run
        if offline is None:
            mode = os.environ.get("WANDB_MODE")
            offline = mode in ("offline", "dryrun") if mode else not wandb.login(prompt=False, verify=False)
        # `login` has fixed the mode already, so `offline` alone would have no effect
        settings["mode"] = "offline" if offline else None
        id = id or _wandb_id(Path(save_dir, WANDB_ID_FILE), resume is not None)
        super().__init__(
            save_dir=save_dir, id=id, offline=offline, log_model=False, settings=WANDB_SETTINGS, **settings
        )
        self.artifact = artifact

    def keep(self, rows: int) -> None:
        """Continues after the first `rows` rows; later ones were logged after the checkpoint.

        Online, W&B ignores rows that it has. Offline, it cannot know them and would start at 0.
        """
        self.rows = rows

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.experiment.log({**metrics, "trainer/global_step": step}, step=self.rows)
        self.rows += 1

    @rank_zero_only
    def end(self, model: Path) -> None:
        """Ends the W&B run, with the model folder as an artifact if `artifact` is set.

        The folder is not copied: offline, `wandb sync` reads it where it is.
        """
        if self.artifact:
            import wandb

            artifact = wandb.Artifact(f"model-{self.version}", "model")
            artifact.add_dir(str(model), policy="immutable")
            self.experiment.log_artifact(artifact)
        self.experiment.finish()


def _wandb_id(file: Path, resumes: bool) -> str:
    """The stored id of a run that resumes; otherwise a new one, which is stored."""
    if resumes and file.exists():
        return file.read_text().strip()
    new = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    _store(file, new)
    return new


@rank_zero_only
def _store(file: Path, id: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{id}\n")
