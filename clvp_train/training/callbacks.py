"""Callbacks that Lightning lacks."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from clvp_train.errors import check_number


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` at the newest weights: after every epoch or every so many steps, and when training ends.

    Lightning's `ModelCheckpoint(save_top_k=0, save_last=True)` writes it when training ends and never before.

    Args:
        dirpath: folder of the checkpoint.
        every_n_train_steps: None saves after every epoch.
    """

    def __init__(self, dirpath: str | Path, every_n_train_steps: int | None = None) -> None:
        if every_n_train_steps is not None:
            check_number("callbacks.checkpoint.every_n_train_steps", every_n_train_steps, 1)
        self.path, self.every_n_train_steps = Path(dirpath) / "last.ckpt", every_n_train_steps
        self.last_model_path, self._saved_step = "", 0

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self.every_n_train_steps and trainer.global_step % self.every_n_train_steps == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self.every_n_train_steps:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.global_step > self._saved_step:
            trainer.save_checkpoint(self.path)
            self.last_model_path, self._saved_step = str(self.path), trainer.global_step
