"""Checkpoints that are there whole or not at all."""

import os
import shlex
import signal
import time
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from clvp_train.errors import Stopped, UserError, check_number

LAST, BEFORE_LAST = "last.ckpt", "before-last.ckpt"
SAVED_FIRST = (signal.SIGTERM, signal.SIGUSR1)  # what clusters send before they kill


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when the disk has it, so that a kill leaves none half-written."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises UserError if the file cannot be written."""
        if "://" in str(path):
            return super().save_checkpoint(checkpoint, path, storage_options)
        path = Path(path)
        partial = path.with_name(f"{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter
            partial.unlink(missing_ok=True)
            raise UserError(f"{path} cannot be written ({error}): make room; the checkpoint before it stands") from None


def is_complete(path: Path) -> bool:
    """Whether every part of a .ckpt has the checksum that it was written with."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError):
        return False


def newest_complete(folder: Path, named: Path | None = None) -> tuple[Path | None, list[Path]]:
    """The checkpoint of a run to go on from, and the damaged ones that were passed over.

    Args:
        folder: of checkpoints.
        named: one to prefer.
    """
    others = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    order = [*([named] if named else []), folder / LAST, folder / BEFORE_LAST, *others]
    damaged: list[Path] = []
    for path in dict.fromkeys(order):
        if path.exists():
            if is_complete(path):
                return path, damaged
            damaged.append(path)
    return None, damaged


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` at the newest weights, and the one before it as `before-last.ckpt`.

    It is written when training ends, and before it stops for a SIGTERM or SIGUSR1. All ranks agree on when: a signal may reach
    one alone, and clocks differ.

    Args:
        dirpath: folder of the checkpoints.
        every_n_train_steps: None saves after every epoch instead.
        every_n_minutes: save at the latest after so many; None waits for the end of the epoch or the steps.
    """

    def __init__(
        self, dirpath: str | Path, every_n_train_steps: int | None = None, every_n_minutes: float | None = None
    ) -> None:
        if every_n_train_steps is not None:
            check_number("callbacks.checkpoint.every_n_train_steps", every_n_train_steps, 1)
        if every_n_minutes is not None:
            check_number("callbacks.checkpoint.every_n_minutes", every_n_minutes, 0, whole=False)
        self.path, self.every_n_train_steps, self.every_n_minutes = (
            Path(dirpath) / LAST,
            every_n_train_steps,
            every_n_minutes,
        )
        self.last_model_path, self._saved_step, self._saved_time = "", 0, time.monotonic()
        self._signal = 0
        self._handlers: dict[int, Any] = {}
        self._group: Any = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # asks the other ranks without waiting for the GPU
        # Lightning's own handlers, which were set before, do not save
        self._handlers = {number: signal.signal(number, self._note) for number in SAVED_FIRST}

    def _note(self, number: int, frame: Any) -> None:
        self._signal = number

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.fit_loop._should_accumulate():
            return  # gradients that wait for more are not saved
        every = self.every_n_train_steps
        is_due = every is not None and trainer.global_step % every == 0
        minutes = (time.monotonic() - self._saved_time) / 60
        number, is_late = self._agree(
            self._signal, int(self.every_n_minutes is not None and minutes >= self.every_n_minutes)
        )
        if number or is_due or is_late:
            self._save(trainer)
        if number:
            raise Stopped(
                number,
                f"stopped by {signal.Signals(number).name} after step {trainer.global_step}. Resume with "
                f"resume={shlex.quote(os.path.relpath(self.path.parent.parent))}",
            )

    def _agree(self, *flags: int) -> list[int]:
        """The largest of each flag over all ranks."""
        if self._group is None:
            return list(flags)
        found = torch.tensor(flags)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group)
        return found.tolist()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self.every_n_train_steps:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._save(trainer)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.global_step <= self._saved_step:
            return
        if trainer.is_global_zero and self.path.exists():
            self.path.replace(self.path.with_name(BEFORE_LAST))
        trainer.save_checkpoint(self.path)
        self.last_model_path, self._saved_step, self._saved_time = str(self.path), trainer.global_step, time.monotonic()
