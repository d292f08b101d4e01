"""Checkpoint files: atomic writes, recovery from damaged ones, when the newest weights are saved, and which are the best."""

import os
import shlex
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from clvp_train.errors import Stopped, UserError, handling
from clvp_train.io import CHECKPOINTS, atomic_write
from clvp_train.io.digests import is_intact_archive

LAST, BEFORE_LAST = "last.ckpt", "before-last.ckpt"
RUN_KEY = "clvp_run"  # in a .ckpt: what `RunState` stores


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
            if is_intact_archive(path):
                return path, damaged
            damaged.append(path)
    return None, damaged


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of a training run, its tensors memory-mapped. Raises UserError if it is something else."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what the unpickler raises depends on the bytes
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"resume={path}: not a checkpoint of this package ({reason}). Set it to auto, a run folder, or a .ckpt."
        ) from None
    if not isinstance(stored, dict) or not isinstance(stored.get(RUN_KEY), dict):
        raise UserError(
            f"resume={path}: not a checkpoint of a training run. Start from its weights with model=pretrained."
        )
    return stored


def resume_hint(run: Path) -> str:
    """What to do when the training in a run folder has stopped, as a sentence."""
    if not any((run / CHECKPOINTS).glob("*.ckpt")):
        return "Run the same command again"
    return f"Resume with {shlex.quote(f'resume={os.path.relpath(run)}')}"


def next_log_step(path: str | Path) -> int:
    """The step of the first log row after a checkpoint."""
    stored = read_checkpoint(path)
    return stored[RUN_KEY]["log"].get("step", stored["global_step"])


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` at the newest weights and the one before it as `before-last.ckpt`.

    It saves between two batches, before the first batch of an epoch, and when training ends: then the metrics of the step are
    logged, its validation is done, and the best checkpoint is up to date. SIGINT, SIGTERM and SIGUSR1 also save there before
    training stops. All ranks agree on when to save: a signal may reach one of them only, and clocks differ. It comes before
    other callbacks, so that none of them has seen the start of the next batch, which it will see again when the run resumes.

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
        self._handlers = ExitStack()
        self._group: Any = None

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.remove(self)  # Lightning has moved it to the end
        callbacks.insert(0, self)

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last_model_path = str(trainer.ckpt_path or "")

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # asks the other ranks without waiting for the GPU
        self._handlers.enter_context(handling(self._on_signal))

    def _on_signal(self, number: int, frame: Any) -> None:
        if number == self._signal == signal.SIGINT:
            self._stop()  # the second Ctrl-C does not wait
        self._signal = number

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._save_if_due(trainer, self.every_n_train_steps is None)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_index: int) -> None:
        # a checkpoint does not contain accumulated gradients
        if batch_index and batch_index % trainer.accumulate_grad_batches == 0:
            self._save_if_due(trainer, False)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._save_if_due(trainer, True)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self._handlers.close()
        if self._signal:  # it arrived after the last save
            self._stop(f" after step {trainer.global_step}")

    def _save_if_due(self, trainer: L.Trainer, is_due: bool) -> None:
        """Saves if `is_due`, a setting or a signal says so; stops after a signal."""
        # clocks and signals differ between ranks, but all must save and stop at the same step
        signal_of_any_rank, is_late_on_any_rank = self._maximum(self._signal, self._is_late())
        if signal_of_any_rank:  # one that arrived while the ranks waited counts in the next step
            self._signal = signal_of_any_rank
        if is_due or self._is_due_at(trainer.global_step) or is_late_on_any_rank or signal_of_any_rank:
            self._save(trainer)
        if signal_of_any_rank:
            self._stop(f" after step {trainer.global_step}")

    def _is_due_at(self, step: int) -> bool:
        return self.every_n_train_steps is not None and step % self.every_n_train_steps == 0

    def _is_late(self) -> bool:
        minutes = (time.monotonic() - self._saved_time) / 60
        return self.every_n_minutes is not None and minutes >= self.every_n_minutes

    def _stop(self, when: str = "") -> NoReturn:
        raise Stopped(self._signal, resume_hint(self.path.parent.parent), when)

    def _maximum(self, *flags: int) -> list[int]:
        """The maximum of each flag over all ranks."""
        if self._group is None:
            return [int(flag) for flag in flags]
        maximum = torch.tensor(flags, dtype=torch.int64)
        dist.all_reduce(maximum, dist.ReduceOp.MAX, group=self._group)
        return maximum.tolist()

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.global_step <= self._saved_step:
            return
        # after a resume from another checkpoint last.ckpt may be damaged and must not replace the one before it
        if trainer.is_global_zero and Path(self.last_model_path) == self.path.absolute() and self.path.exists():
            self.path.replace(self.path.with_name(BEFORE_LAST))
        trainer.save_checkpoint(self.path)
        self.last_model_path, self._saved_time = str(self.path.absolute()), time.monotonic()
        self._saved_step = trainer.global_step


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoints by a metric.

    A run that resumes takes as its best what is in the folder, not what the checkpoint that it resumes from names: since then,
    a better one may have replaced that file, or the folder may have been moved.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores nothing: `on_fit_start` reads the files."""

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.ckpt_path is None:
            return
        found: list[tuple[str, torch.Tensor]] = trainer.strategy.broadcast(
            self._stored() if trainer.is_global_zero else []
        )
        kept = found if self.save_top_k == -1 else found[: self.save_top_k]
        self.best_k_models = dict(kept)
        if kept:
            (self.best_model_path, self.best_model_score), (self.kth_best_model_path, self.kth_value) = (
                kept[0],
                kept[-1],
            )
        if trainer.is_global_zero:
            for path, _ in found[len(kept) :]:  # left by a kill between saving a better one and removing this one
                if not Path(path).samefile(trainer.ckpt_path):
                    Path(path).unlink()

    def _stored(self) -> list[tuple[str, torch.Tensor]]:
        """Intact checkpoints of this callback in its folder with their scores, the best first, of equal ones the earliest."""
        found = []
        for path in Path(str(self.dirpath)).glob("*.ckpt"):
            if path.name in (LAST, BEFORE_LAST) or not is_intact_archive(path):
                continue
            try:
                stored = read_checkpoint(path)
            except UserError:  # the user's own file
                continue
            for state in stored["callbacks"].values():
                scores = {Path(file).name: score for file, score in state.get("best_k_models", {}).items()}
                if state.get("monitor") == self.monitor and path.name in scores:
                    found.append((str(path), scores[path.name], stored["global_step"]))
        sign = -1 if self.mode == "max" else 1
        return [item[:2] for item in sorted(found, key=lambda item: (sign * float(item[1]), item[2]))]
