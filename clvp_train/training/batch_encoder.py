"""From a batch to its embeddings. Shapes: B rows a rank, M hard negatives a rank, L length, S length of codes, D width."""

from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from clvp_train.data.collate import Batch
from clvp_train.errors import UserError
from clvp_train.inference.chunked_encoding import (
    Lengths,
    computed_positions,
    default_chunk_tokens,
    encode_in_chunks,
    row_lengths,
)
from clvp_train.models import CLVPModel

Tower = Literal["text", "speech"]


@dataclass(frozen=True)
class TrainingConfig:
    """How the gradients of a batch are computed. Only the two mask settings change what is learned."""

    # positions that an encoder takes at once; 0: the batch with all of its padding; None: by device
    chunk_tokens: int | None = None
    cached_gradients: bool = False  # needs the memory of one chunk and the embeddings, for one more forward pass
    gradient_checkpointing: bool = False  # needs the memory of one layer of a chunk, for one more forward pass
    compile: bool = False  # layer by layer
    packed: bool | None = None  # no padding at all; None: on CUDA in 16 bits, uncompiled and without attention dropout
    # in a row, for gradients that are not finite; None: 20 with 16-mixed, otherwise 0
    max_skipped_steps: int | None = None
    text_mask_percentage: float = 0.0  # share of text tokens that are masked, 0 to 1; the name is Tortoise's
    voice_mask_percentage: float = 0.0  # share of speech codes that are masked


class BatchEncoder:
    """Embeds the texts and the codes of batches as the settings say.

    Args:
        model: whose layers are prepared for gradient checkpointing and compilation.
        settings: see `TrainingConfig`.

    Raises:
        UserError: the model does not support a setting.
    """

    def __init__(self, model: CLVPModel, settings: TrainingConfig) -> None:
        self.model, self.settings = model, settings
        self._was_packed = False  # of the last batch
        if settings.packed and _drops_attention(model):
            raise UserError("training.packed=true: has no attention dropout. Set it to false, or attention_dropout=0.")
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if settings.compile:
            compile_layers(model)

    def embed(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """L2-normalised (B, D) embeddings of texts and (B + M, D) of codes and their hard negatives, at least in float32. In
        training mode tokens are masked."""
        text_mask, (speech_ids, speech_mask) = batch["text_attention_mask"], _speech(batch)
        text_lengths, speech_lengths = host_lengths(batch) if "text_lengths" in batch else (None, None)
        shares = (self.settings.text_mask_percentage, self.settings.voice_mask_percentage)
        text_share, speech_share = shares if self.model.training else (0.0, 0.0)
        text_mask = mask_tokens(text_mask, text_share)
        text_BD = self.project("text", batch["input_ids"], text_mask, text_lengths, text_share > 0)
        speech_mask = mask_tokens(speech_mask, speech_share)
        speech_BD = self.project("speech", speech_ids, speech_mask, speech_lengths, speech_share > 0)
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
        takes_more = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in signature(encode).parameters.values())
        self._was_packed = self._packs()
        embeds_BD = encode_in_chunks(
            partial(encode, layer_weights=encoder.layer_weights()) if takes_more else encode,
            ids_BL,
            mask_BL,
            self.chunk_tokens,
            lengths_B,
            cached=self.settings.cached_gradients,
            has_gaps=has_gaps,
            one_graph=self.settings.compile and model.training,
            packed=self._was_packed and takes_more,
        )
        return embeds_BD.to(torch.promote_types(embeds_BD.dtype, torch.float32))

    def count_positions(self, batch: Batch) -> int:
        """How many positions `embed` has just computed for a batch, padding included."""
        widths = batch["text_attention_mask"].shape[1], _speech(batch)[1].shape[1]
        return sum(
            computed_positions(lengths_B, self.chunk_tokens, width, self._was_packed)
            for lengths_B, width in zip(host_lengths(batch), widths)
        )

    @property
    def chunk_tokens(self) -> int:
        """`settings.chunk_tokens`, or the default of the device."""
        setting = self.settings.chunk_tokens
        return default_chunk_tokens(self._device) if setting is None else setting

    @property
    def _device(self) -> torch.device:
        return self.model.logit_scale.device

    def _packs(self) -> bool:
        """Whether the encoders compute no padding, here and now: the kernel needs 16 bits, which validation does not use, and
        a GPU of the Ampere generation or later."""
        device, setting = self._device, self.settings.packed
        kind = device.type
        has_kernel = kind == "cuda" and torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind).itemsize == 2
        has_kernel = has_kernel and torch.cuda.get_device_capability(device) >= (8, 0)
        if setting is not None:
            return setting and (has_kernel or kind == "cpu")
        return has_kernel and not _drops_attention(self.model) and not self.settings.compile


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


def compile_layers(model: CLVPModel, **settings: Any) -> None:
    """Compiles each layer, so that the state dict keeps its keys. `settings` are those of `torch.compile`."""
    # chunks have many lengths; rows and lengths that are equal by chance must not share a symbol, or each needs a graph. torch
    # has no public switch for it: its own messages name this one
    torch.fx.experimental._config.use_duck_shape = False
    for layer in (*model.text_model.layers, *model.speech_model.layers):
        layer.compile(dynamic=True, **settings)


def _drops_attention(model: CLVPModel) -> bool:
    return any(tower.attention_dropout > 0 for tower in (model.config.text_config, model.config.speech_config))


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
