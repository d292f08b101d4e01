"""The log of a run at Weights & Biases, one W&B run however often it is broken off."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

ID = "logs/wandb_id"  # in the run folder
FLUSHED = {
    "x_transaction_log_flush_interval": 0.1
}  # seconds; what W&B holds back longer, 15 by itself, is lost with a kill


class WandbLog(WandbLogger):
    """A W&B logger that stays offline where no key is set, so that a run never waits for a login.

    Args:
        save_dir: the run folder; it keeps the W&B run's id.
        resume: the checkpoint from which a run goes on, as the W&B run whose id is kept; None begins a new one.
        id: of the W&B run. None takes the one that is kept, WANDB_RUN_ID, or a new one.
        offline: None decides by WANDB_MODE, and where that is not set by whether a key is found.
        artifact: whether `end` makes an artifact of the model.
        settings: for `WandbLogger`.

    Attributes:
        rows: how many were written so far, which is W&B's `_step` of the next.
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
        if wandb.run is not None:
            wandb.finish()  # of a job before in a sweep, which failed; this one would go on with it
        if offline is None:
            mode = os.environ.get("WANDB_MODE")
            offline = mode in ("offline", "dryrun") if mode else not wandb.login(prompt=False, verify=False)
        # `login` has fixed the settings, so that `offline` alone would come too late
        settings["mode"] = "offline" if offline else None
        id = id or _id(Path(save_dir, ID), resume is not None)
        super().__init__(save_dir=save_dir, id=id, offline=offline, log_model=False, settings=FLUSHED, **settings)
        self.artifact = artifact

    def keep(self, rows: int) -> None:
        """Goes on behind the first rows of the run; those behind them were logged after the checkpoint.

        W&B ignores the rows that it has. Offline, it cannot know them, and begins anew at 0 unless it is told where.
        """
        self.rows = rows

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.experiment.log({**metrics, "trainer/global_step": step}, step=self.rows)
        self.rows += 1

    @rank_zero_only
    def end(self, model: Path) -> None:
        """Ends the W&B run, with an artifact of the model if that is wanted.

        Args:
            model: folder. Nothing of it is copied: offline, `wandb sync` reads it where it lies.
        """
        if self.artifact:
            artifact = wandb.Artifact(f"model-{self.version}", "model")
            artifact.add_dir(str(model), policy="immutable")
            self.experiment.log_artifact(artifact)
        self.experiment.finish()


def _id(file: Path, goes_on: bool) -> str:
    """The one that is kept, or a new one, kept from now on."""
    if goes_on and file.exists():
        return file.read_text().strip()
    new = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    _keep(file, new)
    return new


@rank_zero_only
def _keep(file: Path, id: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{id}\n")
