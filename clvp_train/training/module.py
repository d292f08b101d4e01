"""The LightningModule. Shapes: B rows a rank, N gallery, D width."""

import math
import time
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from clvp_train.errors import check_number
from clvp_train.losses import SymmetricContrastiveLoss, gather
from clvp_train.metrics import retrieval
from clvp_train.models import CLVPModel
from clvp_train.models.loading import CONFIG_KEY
from clvp_train.training.encode import encode_in_chunks
from clvp_train.training.optim import OptimConfig, adamw, warmup_cosine

MAX_LOG_SCALE = math.log(100)  # as in CLIP
Batch = dict[str, torch.Tensor]


class CLVPModule(L.LightningModule):
    """Trains a `CLVPModel` by contrast over the global batch and evaluates it by retrieval.

    Args:
        model: what is trained.
        loss: objective over the two sets of embeddings, see `losses`.
        optim: optimiser and schedule.
        total_steps: length of the schedule in optimiser steps.
        chunk_size: rows that an encoder takes at once, sorted by length, see `encode_in_chunks`; 0 takes all.
    """

    def __init__(
        self,
        model: CLVPModel,
        loss: nn.Module | None = None,
        optim: OptimConfig | None = None,
        total_steps: int = 1000,
        chunk_size: int = 0,
    ) -> None:
        super().__init__()
        check_number("chunk_size", chunk_size, 0)
        self.model, self.loss = model, loss or SymmetricContrastiveLoss()
        self.optim, self.total_steps = optim or OptimConfig(), total_steps
        # a model that ignores masks is served one fixed length, padding and all
        self.chunk_size = chunk_size if model.config.padding == "mask" else 0
        self.metrics: dict[str, Any] = {}  # of the last validation or test
        self._embeds: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._last_step = 0.0

    def embed(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """L2-normalised (B, D) embeddings of texts and codes, in float32."""
        encode = partial(encode_in_chunks, chunk_size=self.chunk_size)
        text_BD = encode(self.model.get_text_features, batch["input_ids"], batch["text_attention_mask"])
        speech_BD = encode(self.model.get_speech_features, batch["speech_ids"], batch["speech_attention_mask"])
        return nn.functional.normalize(text_BD.float(), dim=-1), nn.functional.normalize(speech_BD.float(), dim=-1)

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        text_BD, speech_BD = self.embed(batch)
        output = self.loss(text_BD, speech_BD, self.model.logit_scale)
        now = time.monotonic()
        pairs_per_second = len(text_BD) * self.trainer.world_size / (now - self._last_step)
        self._last_step = now
        # the mean over ranks of a loss over own rows is the loss of the whole batch
        self.log("train/loss", output.loss, prog_bar=True, sync_dist=True)
        self.log("train/accuracy", output.accuracy, prog_bar=True, sync_dist=True)
        self.log("train/scale", self.model.logit_scale.detach().exp())
        self.log("train/pairs_per_second", pairs_per_second, prog_bar=True)
        return output.loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        with torch.no_grad():
            self.model.logit_scale.clamp_(0.0, MAX_LOG_SCALE)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        # in full precision whatever training runs in, so that train.py and evaluate.py report the same figures
        with torch.autocast(self.device.type, enabled=False):
            self._embeds.append((batch["text"], *self.embed(batch)))

    def on_validation_epoch_end(self) -> None:
        self._evaluate("val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.validation_step(batch, batch_index)

    def on_test_epoch_end(self) -> None:
        self._evaluate("test")

    def _evaluate(self, split: str) -> None:
        numbers, texts, speeches = (gather(torch.cat(parts)) for parts in zip(*self._embeds))
        self._embeds.clear()
        size = int(numbers.max()) + 1
        text_ND, speech_ND = texts.new_zeros(size, texts.shape[1]), speeches.new_zeros(size, speeches.shape[1])
        text_ND[numbers], speech_ND[numbers] = texts, speeches  # a text embedded twice lands in one place
        self.metrics = retrieval(text_ND, speech_ND)
        both = self.metrics["text_to_speech"], self.metrics["speech_to_text"]
        for name in both[0]:
            self.log(f"{split}/{name}", (both[0][name] + both[1][name]) / 2, prog_bar=name == "R@1")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.model.config.to_dict()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # under a loss scale the fused optimiser unscales inside its step, too late for the clipping below
        optimizer = adamw(self.model, self.optim, fused=self.trainer.precision != "16-mixed")
        schedule = warmup_cosine(optimizer, self.optim, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        # by hand, because Lightning's own clipping refuses a fused optimiser under mixed precision
        if self.optim.gradient_clip_norm > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.gradient_clip_norm)
