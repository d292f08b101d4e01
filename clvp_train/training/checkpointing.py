"""Checkpoint files: atomic writes, recovery from damaged ones, and when the newest weights are saved."""

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

from clvp_train.errors import Stopped, UserError
from clvp_train.io import atomic_write

LAST, BEFORE_LAST = "last.ckpt", "before-last.ckpt"
RUN_KEY = "clvp_run"  # in a .ckpt: what `RunState` stores
SAVED_FIRST = (signal.SIGTERM, signal.SIGUSR1)  # what clusters send before they kill


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file and renames it, so that a kill never leaves a partial checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises UserError if the file cannot be written."""
        if "://" in str(path):
            return super().save_checkpoint(checkpoint, path, storage_options)
        try:
            with atomic_write(Path(path)) as partial:
                torch.save(checkpoint, partial)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: cannot be written ({reason}). The previous checkpoint is intact; free disk space and resume."
            ) from None


def is_complete(path: Path) -> bool:
    """Whether every part of a .ckpt has the checksum that it was written with."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError):
        return False


def newest_complete(folder: Path, named: Path | None = None) -> tuple[Path | None, list[Path]]:
    """Returns the checkpoint of a run to resume from, and the damaged ones that were skipped.

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


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of a training run, its tensors memory-mapped. Raises UserError if it is something else."""
    stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(stored, dict) or RUN_KEY not in stored:
        raise UserError(
            f"resume={path}: not a checkpoint of a training run. Start from its weights with model=pretrained."
        )
    return stored


def next_log_step(path: str | Path) -> int:
    """The step of the first log row after a checkpoint."""
    stored = read_checkpoint(path)
    return stored[RUN_KEY]["log"].get("step", stored["global_step"])


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` at the newest weights and the one before it as `before-last.ckpt`.

    It saves when training ends, and before it stops for a SIGTERM or SIGUSR1. All ranks agree on when to save: a signal may
    reach one of them only, and clocks differ.

    Args:
        dirpath: folder of the checkpoints.
        every_n_train_steps: None: save after every epoch instead.
        every_n_minutes: save at least this often; None: only at the end of an epoch or after `every_n_train_steps`.
    """

    def __init__(
        self, dirpath: str | Path, every_n_train_steps: int | None = None, every_n_minutes: float | None = 10
    ) -> None:
        self.path = Path(dirpath) / LAST
        self.every_n_train_steps, self.every_n_minutes = every_n_train_steps, every_n_minutes
        self.last_model_path, self._saved_step, self._saved_time = "", 0, time.monotonic()
        self._signal = 0
        self._handlers: dict[int, Any] = {}
        self._group: Any = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # asks the other ranks without waiting for the GPU
        # Lightning's own handlers, which were set before, do not save
        self._handlers = {number: signal.signal(number, self._on_signal) for number in SAVED_FIRST}

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signal = number

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        if (batch_index + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return  # a checkpoint does not contain accumulated gradients
        every = self.every_n_train_steps
        is_due = every is not None and trainer.global_step % every == 0
        minutes = (time.monotonic() - self._saved_time) / 60
        is_late = self.every_n_minutes is not None and minutes >= self.every_n_minutes
        number, is_late_anywhere = self._maximum(self._signal, int(is_late))
        if number or is_due or is_late_anywhere:
            self._save(trainer)
        if number:
            raise Stopped(
                number,
                f"stopped by {signal.Signals(number).name} after step {trainer.global_step}. Resume with "
                f"resume={shlex.quote(os.path.relpath(self.path.parent.parent))}",
            )

    def _maximum(self, *flags: int) -> list[int]:
        """The maximum of each flag over all ranks."""
        if self._group is None:
            return list(flags)
        maximum = torch.tensor(flags)
        dist.all_reduce(maximum, dist.ReduceOp.MAX, group=self._group)
        return maximum.tolist()

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
