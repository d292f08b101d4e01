"""The LightningModule. Shapes: B rows a rank, M hard negatives a rank, L length, N gallery, D width."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from clvp_train.data.collate import Batch
from clvp_train.errors import UserError
from clvp_train.inference.chunked_encoding import (
    Lengths,
    computed_positions,
    default_chunk_tokens,
    encode_in_chunks,
    row_lengths,
)
from clvp_train.losses import SymmetricContrastiveLoss, gather
from clvp_train.metrics import PRIMARY, RetrievalRanks, mean_of_directions, retrieval_ranks, retrieval_summary
from clvp_train.models import CLVPModel
from clvp_train.models.loading import CONFIG_KEY
from clvp_train.training.optim import OptimConfig, build_optimizer, build_scheduler, freeze
from clvp_train.training.throughput import Throughput

log = logging.getLogger(__name__)
MAX_LOG_SCALE = math.log(100)  # as in CLIP
SKIPPED_BY_LOSS_SCALE = 20  # with 16-mixed, steps in a row that look for a loss scale
Tower = Literal["text", "speech"]


@dataclass(frozen=True)
class TrainingConfig:
    """How the gradients of a batch are computed. Only the two mask settings change what is learned."""

    chunk_tokens: int | None = (
        None  # positions that an encoder takes at once; 0: the batch with all of its padding; None: by device
    )
    cached_gradients: bool = False  # needs the memory of one chunk and the embeddings, for one more forward pass
    gradient_checkpointing: bool = False  # needs the memory of one layer of a chunk, for one more forward pass
    compile: bool = False  # layer by layer
    packed: bool | None = None  # no padding at all; None: on CUDA in 16 bits, uncompiled and without attention dropout
    max_skipped_steps: int | None = (
        None  # in a row, for gradients that are not finite; None: 20 with 16-mixed, otherwise 0
    )
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
        if self.settings.packed and _drops_attention(model):
            raise UserError("training.packed=true: has no attention dropout. Set it to false, or attention_dropout=0.")
        if self.settings.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if self.settings.compile:
            compile_layers(model)
        self.throughput = Throughput(model)
        self.gradient_norm: torch.Tensor | None = None
        self.validated: tuple[torch.Tensor, torch.Tensor, RetrievalRanks] | None = None
        self.val_names = val_names
        self._embeds: dict[int, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {}  # by loader
        self._batch_index, self._skipped_in_a_row, self._was_packed = 0, 0, False
        self._outputs: dict[str, torch.Tensor] = {}  # of the last step of this rank, on the device

    def embed(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """L2-normalised (B, D) embeddings of texts and (B + M, D) of codes and their hard negatives, at least in float32."""
        text_mask, (speech_ids, speech_mask) = batch["text_attention_mask"], _speech(batch)
        shares = (self.settings.text_mask_percentage, self.settings.voice_mask_percentage) if self.training else (0, 0)
        text_lengths, speech_lengths = host_lengths(batch) if "text_lengths" in batch else (None, None)
        text_BD = self.project(
            "text", batch["input_ids"], mask_tokens(text_mask, shares[0]), text_lengths, shares[0] > 0
        )
        speech_mask = mask_tokens(speech_mask, shares[1])
        speech_BD = self.project("speech", speech_ids, speech_mask, speech_lengths, shares[1] > 0)
        return nn.functional.normalize(text_BD, dim=-1), nn.functional.normalize(speech_BD, dim=-1)

    def project(
        self,
        tower: Tower,
        ids_BL: torch.Tensor,
        mask_BL: torch.Tensor,
        lengths_B: Lengths | None = None,
        has_gaps: bool = False,
    ) -> torch.Tensor:
        """(B, D) projections of one tower, not normalised, at least in float32. The other arguments are those of
        `encode_in_chunks`."""
        model = self.model
        encoder, encode = (
            (model.text_model, model.get_text_features)
            if tower == "text"
            else (model.speech_model, model.get_speech_features)
        )
        # own models may take ids and mask only
        takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature(encode).parameters.values())
        embeds_BD = encode_in_chunks(
            partial(encode, layer_weights=encoder.layer_weights()) if takes_more else encode,
            ids_BL,
            mask_BL,
            self.chunk_tokens,
            lengths_B,
            cached=self.settings.cached_gradients,
            has_gaps=has_gaps,
            one_graph=self.settings.compile and self.training,
            packed=self.is_packed and takes_more,
        )
        return embeds_BD.to(torch.promote_types(embeds_BD.dtype, torch.float32))

    @property
    def is_packed(self) -> bool:
        """Whether the encoders compute no padding, here and now: the kernel needs 16 bits, which validation does not use, and
        a GPU of the Ampere generation or later."""
        kind, setting = self.device.type, self.settings.packed
        has_kernel = kind == "cuda" and torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind).itemsize == 2
        has_kernel = has_kernel and torch.cuda.get_device_capability(self.device) >= (8, 0)
        if setting is not None:
            return setting and (has_kernel or kind == "cpu")
        return has_kernel and not _drops_attention(self.model) and not self.settings.compile

    @property
    def chunk_tokens(self) -> int:
        """`settings.chunk_tokens`, or the default of the device."""
        setting = self.settings.chunk_tokens
        return default_chunk_tokens(self.device) if setting is None else setting

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
        self._was_packed = self.is_packed
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
        lengths, widths = host_lengths(batch), (batch["text_attention_mask"].shape[1], _speech(batch)[1].shape[1])
        positions = sum(
            computed_positions(rows_B, self.chunk_tokens, width, self._was_packed)
            for rows_B, width in zip(lengths, widths)
        )
        work = self.throughput.measure(lengths, positions, self.trainer.world_size, self.device, dtype)
        if self.trainer._logger_connector.should_update_logs or self.trainer.is_last_batch:
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
            self._embeds.setdefault(dataloader_idx, []).append((batch["text"], *self.embed(batch)))

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


def compile_layers(model: CLVPModel, **settings: Any) -> None:
    """Compiles each layer, so that the state dict keeps its keys. `settings` are those of `torch.compile`."""
    # chunks have many lengths; rows and lengths that are equal by chance must not share a symbol, or each needs a graph
    torch.fx.experimental._config.use_duck_shape = False
    for layer in (*model.text_model.layers, *model.speech_model.layers):
        layer.compile(dynamic=True, **settings)


def _drops_attention(model: CLVPModel) -> bool:
    return any(tower.attention_dropout > 0 for tower in (model.config.text_config, model.config.speech_config))


def half_weights(precision: object) -> str:
    """Why weights of 16 bits cannot be trained."""
    return (
        f"trainer.precision={precision}: weights of 16 bits round small updates away, so that the temperature never moves. Set "
        "trainer.precision=bf16-mixed."
    )


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


def host_lengths(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """(B,) lengths of the texts and (B + M,) of the codes and their hard negatives, on the host. Waits for the device only if
    the batch is not of `Collate`, which counts them."""
    if "text_lengths" not in batch:
        text_B, speech_B = row_lengths(batch["text_attention_mask"]), row_lengths(_speech(batch)[1])
        return text_B.cpu().numpy(), speech_B.cpu().numpy()
    speech = [batch[name] for name in ("speech_lengths", "negative_lengths") if name in batch]
    return np.asarray(batch["text_lengths"]), np.concatenate(speech)
