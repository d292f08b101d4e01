"""The LightningModule. Shapes: B rows a rank, M hard negatives a rank, L length, N gallery, D width."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from clvp_train.data.collate import Batch
from clvp_train.errors import UserError
from clvp_train.losses import SymmetricContrastiveLoss, gather
from clvp_train.metrics import PRIMARY, RetrievalRanks, mean_of_directions, retrieval_ranks, retrieval_summary
from clvp_train.models import CLVPModel
from clvp_train.models.loading import CONFIG_KEY
from clvp_train.training.batch_encoder import BatchEncoder, TrainingConfig, host_lengths
from clvp_train.training.optim import OptimConfig, build_optimizer, build_scheduler, freeze
from clvp_train.training.throughput import Throughput

log = logging.getLogger(__name__)
MAX_LOG_SCALE = math.log(100)  # as in CLIP
SKIPPED_BY_LOSS_SCALE = 20  # with 16-mixed, steps in a row that look for a loss scale


class CLVPModule(L.LightningModule):
    """Trains a `CLVPModel` with a contrastive loss over the global batch and validates it by retrieval.

    Args:
        model: what is trained.
        loss: of the two sets of embeddings, see `losses`.
        optim: optimiser and schedule.
        total_steps: length of the schedule in optimiser steps.
        training: how a batch is turned into gradients.
        seed: of dropout and token masking.
        val_names: of the validation loaders. The metrics of the first are `val/…`, those of the others `val/NAME/…`.

    Attributes:
        batch_encoder: embeds batches.
        gradient_norm: of the last optimiser step, before clipping; None before the first.
        validated: (N, D) texts, (N, D) codes and their ranks, for callbacks during validation; otherwise None.
    """

    def __init__(
        self,
        model: CLVPModel,
        loss: nn.Module | None = None,
        optim: OptimConfig | None = None,
        total_steps: int = 1000,
        training: TrainingConfig | None = None,
        seed: int = 0,
        val_names: Sequence[str] = ("",),
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss or SymmetricContrastiveLoss()
        self.optim, self.total_steps = optim or OptimConfig(), total_steps
        self.settings, self.seed = training or TrainingConfig(), seed
        # with padding="tortoise" the codes are padded as tortoise-tts pads them, under a mask of ones; texts, which it encodes
        # one at a time and unpadded, need a mask to give the same result in a batch
        for config in (model.config.text_config, model.config.speech_config):
            config.padding = "mask"
        freeze(model, self.optim.freeze)
        self.batch_encoder = BatchEncoder(model, self.settings)
        self.throughput = Throughput(model)
        self.gradient_norm: torch.Tensor | None = None
        self.validated: tuple[torch.Tensor, torch.Tensor, RetrievalRanks] | None = None
        self.val_names = val_names
        self._embeds: dict[int, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {}  # by loader
        self._batch_index, self._skipped_in_a_row = 0, 0
        self._outputs: dict[str, torch.Tensor] = {}  # of the last step of this rank, on the device

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        self._batch_index = batch_index
        # seeded for each batch, so that a run that resumes has no generator state to restore
        noise = np.random.SeedSequence((self.seed, self.current_epoch, batch_index, self.global_rank))
        torch.manual_seed(int(noise.generate_state(1, np.uint64)[0]))

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        text_BD, speech_BD = self.batch_encoder.embed(batch)
        speech_BD, negatives_MD = speech_BD.split([len(text_BD), len(speech_BD) - len(text_BD)])
        more = {"qualities_BL": batch["qualities"]} if getattr(self.loss, "needs_qualities", False) else {}
        # bfloat16 has 3 digits: with a scale of 100 the error would be half a logit
        with torch.autocast(self.device.type, enabled=False):
            output = self.loss(
                text_BD,
                speech_BD,
                self.model.logit_scale,
                batch.get("key"),
                negatives_MD if len(negatives_MD) else None,
                **more,
            )
        outputs = {
            "loss": output.loss,
            "accuracy": output.accuracy,
            "scale": self.model.logit_scale.exp(),
            **output.parts,
        }
        self._outputs = {f"train/{name}": value.detach() for name, value in outputs.items()}
        return output.loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        mixed = "mixed" in str(self.trainer.precision)
        dtype = torch.get_autocast_dtype(self.device.type) if mixed else self.model.dtype
        lengths, positions = host_lengths(batch), self.batch_encoder.count_positions(batch)
        work = self.throughput.measure(lengths, positions, self.trainer.world_size, self.device, dtype)
        if is_logging_step(self.trainer) or self.trainer.is_last_batch:
            self._log_step(work)

    def _log_step(self, work: dict[str, float]) -> None:
        """Logs a training step: one sum over ranks and one read from the device for all values."""
        # the mean over ranks of a loss over own rows is the loss of the global batch
        values = torch.stack([value.float() for value in self._outputs.values()])
        if self.trainer.world_size > 1:
            dist.all_reduce(values)
        metrics = dict(zip(self._outputs, (values / self.trainer.world_size).tolist())) | work
        self._log_on_host(metrics)

    def _log_on_host(self, metrics: dict[str, float]) -> None:
        """Logs numbers as tensors on the host. Lightning would copy plain numbers to the device, and loggers and progress bars
        would wait for the device to read them."""
        for name, value in metrics.items():
            self.log(name, torch.tensor(value, dtype=torch.float32))

    def on_validation_start(self) -> None:
        self.throughput.start()

    def validation_step(self, batch: Batch, batch_index: int, dataloader_idx: int = 0) -> None:
        with self.full_precision():
            self._embeds.setdefault(dataloader_idx, []).append((batch["text"], *self.batch_encoder.embed(batch)))

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Embeds in float32, on CUDA multiplied in TF32, whatever the training precision, and without compiled layers, so that
        train.py and evaluate.py report the same values. Ranks are compared exactly, see `retrieval_ranks`."""
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.device.type, enabled=False))
            if self.settings.compile:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if self.device.type == "cuda":
                stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
                torch.set_float32_matmul_precision("high")
            yield

    def on_validation_epoch_end(self) -> None:
        for loader, embeds in sorted(self._embeds.items(), reverse=True):  # the first one last, for `validated`
            numbers, texts, speeches = (gather(torch.cat(parts)) for parts in zip(*embeds))
            size = int(numbers.max()) + 1
            text_ND, speech_ND = texts.new_zeros(size, texts.shape[1]), speeches.new_zeros(size, speeches.shape[1])
            text_ND[numbers], speech_ND[numbers] = texts, speeches  # a text that two ranks embedded has one row
            ranks = retrieval_ranks(text_ND, speech_ND)
            prefix = f"val/{self.val_names[loader]}/" if loader else "val/"
            means = mean_of_directions(retrieval_summary(ranks))
            self._log_on_host({f"{prefix}{name}": value for name, value in means.items()})
            self.validated = (text_ND, speech_ND, ranks)
        self._embeds.clear()

    def on_validation_end(self) -> None:
        self.validated = None  # the callbacks have used it

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.model.config.to_dict()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if any(parameter.dtype.itemsize < 4 for parameter in self.parameters() if parameter.requires_grad):
            raise UserError(half_weights(self.trainer.precision))
        # with a loss scale a fused optimiser unscales inside its step, too late for the clipping below
        optimizer = build_optimizer(self, self.optim, fused=self.trainer.precision != "16-mixed")
        schedule = build_scheduler(optimizer, self.optim, self.total_steps)
        if schedule is None:
            return optimizer
        settings: dict[str, Any] = {"scheduler": schedule, "interval": "step"}
        if isinstance(schedule, ReduceLROnPlateau):
            every = self.trainer.check_val_every_n_epoch
            settings |= {"interval": "epoch", "frequency": every or 1, "monitor": PRIMARY, "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": settings}  # type: ignore[return-value]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        # Lightning's own accepts subclasses of torch's LRScheduler only by default
        scheduler.step() if metric is None else scheduler.step(metric)

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        # Lightning's own clipping refuses a fused optimiser under mixed precision
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        self.gradient_norm = norm = nn.utils.get_total_norm(gradients)
        if not norm.isfinite():  # the one read from the device of a step; the same on all ranks
            self._skip_step()
            return
        self._skipped_in_a_row = 0
        if self.optim.gradient_clip_norm > 0:
            nn.utils.clip_grads_with_norm_(self.parameters(), self.optim.gradient_clip_norm, norm)

    def _skip_step(self) -> None:
        """Keeps the optimiser from applying gradients that are not finite. Raises UserError after too many in a row."""
        self._skipped_in_a_row += 1
        has_scaler, limit = self.trainer.precision == "16-mixed", self.settings.max_skipped_steps
        place = f"epoch {self.current_epoch}, batch {self._batch_index}"
        loss = f"loss {float(self._outputs['train/loss']):.4g}, step {self.global_step}"
        if self._skipped_in_a_row > (SKIPPED_BY_LOSS_SCALE * has_scaler if limit is None else limit):
            raise UserError(
                f"training has diverged: the gradients of {place} are not finite ({loss}), {self._skipped_in_a_row} in a row. "
                "Nothing of this batch was applied or saved; lower optim.lr, or inspect the batch. training.max_skipped_steps "
                "skips such batches."
            )
        if has_scaler:  # it skips the step and lowers its scale
            log.info("step skipped to find a loss scale: %s, %s", place, loss)
            return
        log.warning("step skipped: the gradients of %s are not finite (%s)", place, loss)
        for parameter in self.parameters():
            parameter.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0.0, MAX_LOG_SCALE)


def is_logging_step(trainer: L.Trainer) -> bool:
    """Whether the step of this batch is logged, by `log_every_n_steps`. Lightning's own callbacks ask like this; `global_step`
    alone does not tell, as it counts a step of accumulated batches after the last of them."""
    return trainer._logger_connector.should_update_logs


def half_weights(precision: object) -> str:
    """Why weights of 16 bits cannot be trained."""
    return (
        f"trainer.precision={precision}: weights of 16 bits round small updates away, so that the temperature never moves. Set "
        "trainer.precision=bf16-mixed."
    )
