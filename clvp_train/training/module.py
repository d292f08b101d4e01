"""The LightningModule. Shapes: B rows a rank, M hard negatives a rank, L length, N gallery, D width."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from clvp_train.data.collate import Batch
from clvp_train.errors import UserError
from clvp_train.inference.chunked_encoding import encode_in_chunks
from clvp_train.losses import SymmetricContrastiveLoss, gather
from clvp_train.metrics import PRIMARY, RetrievalRanks, mean_of_directions, retrieval_ranks, retrieval_summary
from clvp_train.models import CLVPModel
from clvp_train.models.loading import CONFIG_KEY
from clvp_train.training.optim import OptimConfig, build_optimizer, build_scheduler, freeze
from clvp_train.training.throughput import Throughput

MAX_LOG_SCALE = math.log(100)  # as in CLIP
Tower = Literal["text", "speech"]


@dataclass(frozen=True)
class TrainingConfig:
    """How the gradients of a batch are computed. Only the two mask settings change what is learned."""

    chunk_size: int = 32  # rows that an encoder takes at once, sorted by length; 0: the batch with all of its padding
    cached_gradients: bool = False  # needs the memory of one chunk and the embeddings, for one more forward pass
    gradient_checkpointing: bool = False  # needs the memory of one layer of a chunk, for one more forward pass
    compile: bool = False  # layer by layer
    text_mask_percentage: float = 0.0  # share of text tokens that are masked, 0 to 1; the name is Tortoise's
    voice_mask_percentage: float = 0.0  # share of speech codes that are masked


def mask_tokens(mask_BL: torch.Tensor, share: float) -> torch.Tensor:
    """Removes a random share of the tokens from an attention mask, for attention and pooling, so that the model cannot rely on
    any single one. A row's first token stays because positions count from it.

    Source: `text_mask_percentage` and `voice_mask_percentage` in tortoise-tts' `tortoise/models/clvp.py`.
    """
    if share == 0:
        return mask_BL
    kept_BL = torch.rand(mask_BL.shape, device=mask_BL.device) >= share
    kept_BL[:, 0] = True
    return mask_BL & kept_BL


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
        if self.settings.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        if self.settings.compile:
            for layer in (*model.text_model.layers, *model.speech_model.layers):
                layer.compile(dynamic=True)  # chunks have many lengths
        self.throughput = Throughput(model, self.settings.chunk_size)
        self.gradient_norm: torch.Tensor | None = None
        self.validated: tuple[torch.Tensor, torch.Tensor, RetrievalRanks] | None = None
        self.val_names = val_names
        self._embeds: dict[int, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {}  # by loader
        self._batch_index = 0

    def embed(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """L2-normalised (B, D) embeddings of texts and (B + M, D) of codes and their hard negatives, at least in float32."""
        text_mask, (speech_ids, speech_mask) = batch["text_attention_mask"], _speech(batch)
        if self.training:
            text_mask = mask_tokens(text_mask, self.settings.text_mask_percentage)
            speech_mask = mask_tokens(speech_mask, self.settings.voice_mask_percentage)
        return (
            nn.functional.normalize(self.project("text", batch["input_ids"], text_mask), dim=-1),
            nn.functional.normalize(self.project("speech", speech_ids, speech_mask), dim=-1),
        )

    def project(self, tower: Tower, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """(B, D) projections of one tower, not normalised, at least in float32."""
        encode = self.model.get_text_features if tower == "text" else self.model.get_speech_features
        settings = self.settings
        embeds_BD = encode_in_chunks(encode, ids_BL, mask_BL, settings.chunk_size, cached=settings.cached_gradients)
        return embeds_BD.to(torch.promote_types(embeds_BD.dtype, torch.float32))

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        self._batch_index = batch_index
        # seeded for each batch, so that a run that resumes has no generator state to restore
        noise = np.random.SeedSequence((self.seed, self.current_epoch, batch_index, self.global_rank))
        torch.manual_seed(int(noise.generate_state(1, np.uint64)[0]))

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        text_BD, speech_BD = self.embed(batch)
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
        # the mean over ranks of a loss over own rows is the loss of the global batch
        self.log("train/loss", output.loss, prog_bar=True, sync_dist=True)
        self.log("train/accuracy", output.accuracy, prog_bar=True, sync_dist=True)
        for name, value in output.parts.items():
            self.log(f"train/{name}", value, sync_dist=True)
        self.log("train/scale", self.model.logit_scale.detach().exp())
        return output.loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        masks = [batch["text_attention_mask"], _speech(batch)[1]]
        mixed = "mixed" in str(self.trainer.precision)
        dtype = torch.get_autocast_dtype(self.device.type) if mixed else self.model.dtype
        for name, value in self.throughput.measure(masks, self.trainer.world_size, dtype).items():
            self.log(name, value, prog_bar=name == "train/pairs_per_second")

    def on_validation_start(self) -> None:
        self.throughput.start()

    def validation_step(self, batch: Batch, batch_index: int, dataloader_idx: int = 0) -> None:
        # in full precision whatever the training precision, so that train.py and evaluate.py report the same values
        with torch.autocast(self.device.type, enabled=False):
            self._embeds.setdefault(dataloader_idx, []).append((batch["text"], *self.embed(batch)))

    def on_validation_epoch_end(self) -> None:
        for loader, embeds in sorted(self._embeds.items(), reverse=True):  # the first one last, for `validated`
            numbers, texts, speeches = (gather(torch.cat(parts)) for parts in zip(*embeds))
            size = int(numbers.max()) + 1
            text_ND, speech_ND = texts.new_zeros(size, texts.shape[1]), speeches.new_zeros(size, speeches.shape[1])
            text_ND[numbers], speech_ND[numbers] = texts, speeches  # a text that two ranks embedded has one row
            ranks = retrieval_ranks(text_ND, speech_ND)
            prefix = f"val/{self.val_names[loader]}/" if loader else "val/"
            for name, value in mean_of_directions(retrieval_summary(ranks)).items():
                self.log(f"{prefix}{name}", value, prog_bar=name == "R@1" and loader == 0)
            self.validated = (text_ND, speech_ND, ranks)
        self._embeds.clear()

    def on_validation_end(self) -> None:
        self.validated = None  # the callbacks have used it

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.model.config.to_dict()

    def configure_optimizers(self) -> OptimizerLRScheduler:
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
        # with 16-mixed the scaler skips such a step and lowers its scale
        if not norm.isfinite() and self.trainer.precision != "16-mixed":
            raise UserError(
                f"training has diverged: the gradients of epoch {self.current_epoch}, batch {self._batch_index} are not finite "
                f"(loss {self.trainer.callback_metrics.get('train/loss', norm):.4g}, step {self.global_step}). Nothing of this "
                "batch was applied or saved; lower optim.lr, or inspect the batch."
            )
        if self.optim.gradient_clip_norm > 0:
            nn.utils.clip_grads_with_norm_(self.parameters(), self.optim.gradient_clip_norm, norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0.0, MAX_LOG_SCALE)


def _speech(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(B + M, S) ids and mask of codes and their hard negatives, padded to the longest of both."""
    rows = [("speech_ids", "negative_ids"), ("speech_attention_mask", "negative_attention_mask")]
    if "negative_ids" not in batch:
        return batch["speech_ids"], batch["speech_attention_mask"]
    length = max(batch[name].shape[1] for name in rows[0])
    ids, mask = (
        torch.cat([nn.functional.pad(batch[name], (0, length - batch[name].shape[1])) for name in names])
        for names in rows
    )
    return ids, mask
