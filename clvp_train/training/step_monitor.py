"""Logs the health of a training next to the loss."""

from typing import Any

import lightning as L
import torch

from clvp_train.data.loader import TimedLoader
from clvp_train.training.module import CLVPModule, is_logging_step


class StepMonitor(L.Callback):
    """Logs with the loss:

    - `train/grad_norm`: of all gradients, before clipping.
    - `train/skipped_steps`: how many steps of the run had gradients that are not finite and were not applied.
    - `train/loss_scale`: with precision 16-mixed.
    - `train/data_seconds`: how long this rank waited for a batch, the mean since the last log.
    - `train/memory_gib`: the most GPU memory that the tensors of this rank have taken so far, in GiB.
    """

    def __init__(self) -> None:
        self._skipped: torch.Tensor | int = (
            0  # on the device of the gradients: reading it in every step would wait for them
        )
        self._step, self._batches, self._waited = 0, 0, 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        assert isinstance(module, CLVPModule)
        self._batches += 1
        if trainer.global_step == self._step or module.gradient_norm is None:  # gradients are still accumulated
            return
        self._step = trainer.global_step
        self._skipped = self._skipped + ~module.gradient_norm.isfinite()
        if is_logging_step(trainer):
            module.log_dict(self._values(trainer, module, module.gradient_norm))

    def _values(
        self, trainer: L.Trainer, module: CLVPModule, gradient_norm: torch.Tensor
    ) -> dict[str, torch.Tensor | float]:
        values: dict[str, torch.Tensor | float] = {
            "train/grad_norm": gradient_norm,
            "train/skipped_steps": self._skipped,
        }
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            values["train/loss_scale"] = scaler.get_scale()
        if isinstance(loader := trainer.train_dataloader, TimedLoader):
            values["train/data_seconds"] = (loader.seconds - self._waited) / self._batches
            self._waited, self._batches = loader.seconds, 0
        if module.device.type == "cuda":
            values["train/memory_gib"] = torch.cuda.max_memory_allocated(module.device) / 2**30
        return {name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"skipped_steps": int(self._skipped)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._skipped = state_dict["skipped_steps"]
