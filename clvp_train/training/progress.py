"""What a run prints while it trains: one bar on a terminal, one line per validation in a file or a SLURM log."""

import logging
import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

log = logging.getLogger(__name__)


class TrainingProgress(ProgressBar):
    """Shows epoch, step, training loss, primary metric, pairs per second and time left.

    The bar covers all of training and fits into 80 columns. Where standard error or standard output is not a terminal, every
    validation logs a line there instead.

    Args:
        metric: of the validation.
    """

    def __init__(self, metric: str = "val/R@1") -> None:
        super().__init__()
        self.metric = metric
        self._is_enabled = True
        self._bar: Any = None
        self._total, self._first_step, self._start = 0, 0, 0.0

    def disable(self) -> None:
        """Called by Lightning on all ranks except rank 0."""
        self._is_enabled = False

    def enable(self) -> None:
        self._is_enabled = True

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._total, self._first_step = getattr(module, "total_steps", 0), trainer.global_step
        self._start = time.monotonic()
        if self._is_enabled and sys.stderr.isatty():
            # the bar takes what the columns leave, so that a narrow terminal cuts off the bar first
            self._bar = tqdm(total=self._total, initial=self._first_step, bar_format="{desc} {bar}", dynamic_ncols=True)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        if self._bar is not None and trainer.global_step > self._bar.n:
            self._bar.set_description_str(" ".join(self._columns(trainer)), refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        is_shown = self._bar is not None and sys.stdout.isatty()
        if self._is_enabled and trainer.state.fn == "fit" and not trainer.sanity_checking and not is_shown:
            log.info(", ".join(self._columns(trainer)))

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _columns(self, trainer: L.Trainer) -> list[str]:
        epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        columns = [f"epoch {trainer.current_epoch + 1}{epochs}", f"step {trainer.global_step}/{self._total}"]
        formats = [
            ("train/loss", "loss {:.3f}"),
            (self.metric, f"{self.metric.removeprefix('val/')} {{:.3f}}"),
            ("train/pairs_per_second", "{:.0f} pairs/s"),
        ]
        values = trainer.callback_metrics
        columns += [text.format(float(values[name])) for name, text in formats if name in values]
        return [*columns, f"{self._time_left(trainer.global_step)} left"]

    def _time_left(self, step: int) -> str:
        done, left = step - self._first_step, max(0, self._total - step)
        return tqdm.format_interval((time.monotonic() - self._start) * left / done) if done else "?"
