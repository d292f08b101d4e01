"""What a checkpoint knows of its run beyond Lightning's own state, and how a run goes on from it.

Lightning restores weights, optimiser, schedule and callbacks. The rest is here: the place in the epoch, which the DataModule
needs, the rows of the log, and the facts that must not change on the way.
"""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from clvp_train.errors import UserError
from clvp_train.training.csv_log import CSVLog
from clvp_train.training.wandb_log import WandbLog

KEY = "clvp_run"  # in a .ckpt
COUNTING = (CSVLog, WandbLog)  # loggers that know how many rows they hold


class RunState(L.Callback):
    """Writes the facts of the run and the place in its log into every checkpoint.

    Args:
        fixed: settings that a run cannot go on with if they change, by the names that a user gives them; plain values.
        free: those that may change.
        overrides: what the run was started with, for `stored_overrides`.
    """

    def __init__(self, fixed: dict[str, Any], free: dict[str, Any], overrides: list[str]) -> None:
        self.fixed, self.free, self.overrides = fixed, free, overrides
        self._log: dict[str, Any] = {}

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            logger.save()  # what is not on the disk yet would be lost with a kill
        log: dict[str, Any] = {"rows": next((one.rows for one in trainer.loggers if isinstance(one, COUNTING)), 0)}
        connector, epoch_loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
        progress: Any = epoch_loop.batch_progress.current
        # at the end of a batch its own row is not logged yet
        if progress.completed < progress.processed and connector.should_update_logs:
            log["step"] = epoch_loop._batches_that_stepped
            log["waiting"] = {name: float(value) for name, value in connector.metrics["log"].items()}
        checkpoint[KEY] = {"fixed": self.fixed, "free": self.free, "overrides": self.overrides, "log": log}

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._log = checkpoint[KEY]["log"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if "waiting" in self._log:
            for logger in trainer.loggers:
                logger.log_metrics(self._log["waiting"], self._log["step"])
        self._log = {}

    def go_on(self, path: str, trainer: L.Trainer, steps_per_epoch: int) -> tuple[tuple[int, int], list[str]]:
        """Readies the loggers, before training starts.

        Args:
            path: a whole checkpoint.
            trainer: the one that will go on.
            steps_per_epoch: batches in an epoch.

        Returns:
            The epoch and how many of its batches are done, and what has changed since, in words.

        Raises:
            UserError: it is no checkpoint of a run, or of one that cannot go on with these settings.
        """
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(stored, dict) or KEY not in stored:
            raise UserError(f"resume={path} is no checkpoint of a run: start from its weights with model=pretrained")
        told = stored[KEY]
        changed = _differences(told["fixed"], self.fixed)
        if changed:
            raise UserError(
                f"resume={path} cannot go on with another {'; '.join(changed)}: set it as it was, or start anew from its "
                f"weights with model=pretrained model.checkpoint={path}"
            )
        for logger in trainer.loggers:
            if isinstance(logger, COUNTING) and trainer.is_global_zero:
                logger.keep(told["log"]["rows"])
            if isinstance(logger, TensorBoardLogger):
                logger._kwargs["purge_step"] = told["log"].get("step", stored["global_step"])
        return _place(stored["loops"]["fit_loop"], steps_per_epoch), _differences(told["free"], self.free)


def _place(loop: dict[str, Any], steps_per_epoch: int) -> tuple[int, int]:
    epoch, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]["current"]["ready"]
    if epoch["processed"] == epoch["started"]:  # saved after the epoch's end
        return epoch["processed"], 0
    return (epoch["processed"], batches) if batches < steps_per_epoch else (epoch["processed"] + 1, 0)


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    names = [name for name in dict.fromkeys([*there, *here]) if there.get(name) != here.get(name)]
    return [f"{name} ({there.get(name)} then, {here.get(name)} now)" for name in names]


def stored_overrides(path: Path) -> list[str] | None:
    """The overrides that the run of a checkpoint was started with; None if the checkpoint does not say."""
    stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return stored.get(KEY, {}).get("overrides") if isinstance(stored, dict) else None
