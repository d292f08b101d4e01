"""CLVP: scores how well a sequence of speech codes matches a text.

Two bidirectional transformer encoders, one for text tokens and one for speech codes, with a shared embedding space. From
"Better speech synthesis through scaling" (Betker 2023, https://arxiv.org/abs/2305.07243); the architecture is the
`CLVP(use_xformers=True)` of tortoise-tts 3.0.0 (`tortoise/models/clvp.py`, `xtransformers.py`) and the `ClvpEncoder` of
transformers. Imports only torch, transformers and `configuration_clvp`, because it is uploaded to the Hub as remote code.

Shapes: B batch, T text length, S speech length, L either length, D width, P projection width, F feed-forward width,
H heads, K width of a head, R rotated dims of a head.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, can_return_tuple, logging

from .configuration_clvp import CLVPConfig, CLVPSpeechConfig, CLVPTextConfig

logger = logging.get_logger(__name__)

TowerConfig = CLVPTextConfig | CLVPSpeechConfig


@dataclass
class CLVPOutput(ModelOutput):
    """Output of `CLVPModel`.

    Fields:
        loss: (), mean of the cross entropies text -> speech and speech -> text, in nats; only with `return_loss`.
        logits_per_speech: (B of speech, B of text), cosine similarity times exp(logit_scale).
        logits_per_text: (B of text, B of speech), the same transposed.
        text_embeds, speech_embeds: (B, P), projected and L2-normalised.
        text_model_output, speech_model_output: outputs of the two encoders.
    """

    loss: Tensor | None = None
    logits_per_speech: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    speech_embeds: Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    speech_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


@dataclass
class CLVPTextModelOutput(ModelOutput):
    """`text_embeds` (B, P) projected, not normalised; `last_hidden_state` (B, T, D); the rest on request."""

    text_embeds: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class CLVPSpeechModelOutput(ModelOutput):
    """`speech_embeds` (B, P) projected, not normalised; `last_hidden_state` (B, S, D); the rest on request."""

    speech_embeds: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def eager_attention(
    module: nn.Module,
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Plain attention, which also returns the probabilities. `attention_mask` is boolean or additive.

    Returns (B, L, H, K) outputs and (B, H, L, L) probabilities.
    """
    scores_BHLL = q_BHLK @ k_BHLK.transpose(-1, -2) * scaling
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores_BHLL = scores_BHLL.masked_fill(~attention_mask, torch.finfo(scores_BHLL.dtype).min)
        else:
            scores_BHLL = scores_BHLL + attention_mask
    # bfloat16 and float16 are too coarse for a sum over hundreds of keys
    wide = torch.promote_types(scores_BHLL.dtype, torch.float32)
    probs_BHLL = scores_BHLL.softmax(-1, dtype=wide).to(v_BHLK.dtype)
    probs_BHLL = F.dropout(probs_BHLL, dropout, module.training)
    return (probs_BHLL @ v_BHLK).transpose(1, 2), probs_BHLL


class Packed(NamedTuple):
    """Where the rows of a packed sequence are, for `packed_attention`."""

    bounds: Tensor  # (rows + 1,) int32: the start of each row, and the end of the last
    longest: int  # length of a row at most


class AttentionContext(NamedTuple):
    """What the attention of all layers shares in a forward pass."""

    mask: Tensor | Packed | None  # as the implementation takes it; None: no padding
    rotary: tuple[Tensor, Tensor] | None  # of `rotary_table`, in the dtype of the computation
    implementation: str  # "sdpa", "eager", …; packed sequences have their own


def packed_attention(
    module: nn.Module, q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, packed: Packed, scaling: float, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention within each row of one packed sequence (B = 1). Returns (1, L, H, K) outputs."""
    if q_BHLK.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        q_LHK, k_LHK, v_LHK = (x_BHLK[0].transpose(0, 1) for x_BHLK in (q_BHLK, k_BHLK, v_BHLK))
        bounds, longest = packed
        out_LHK = varlen_attn(q_LHK, k_LHK, v_LHK, bounds, bounds, longest, longest, scale=scaling)
        return cast(Tensor, out_LHK)[None], None
    # CPUs have no kernel for it, this is slow there
    row_L = torch.bucketize(torch.arange(q_BHLK.shape[2], dtype=torch.int32), packed.bounds[1:], right=True)
    out_BHLK = F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, row_L[:, None] == row_L, scale=scaling)
    return out_BHLK.transpose(1, 2), None


def _pack(mask_BL: Tensor, num_positions: int, longest: int) -> tuple[Tensor, Packed]:
    """The indices of the real positions among all B × L, row after row, and where the rows are among them.

    Args:
        mask_BL: True for real positions.
        num_positions: how many to select; more than are real select some that are not, as a last row that nothing reads.
        longest: length of a row at most.
    """
    # real positions first, in order; without a wait for their number
    index_L = (~mask_BL).flatten().argsort(stable=True)[:num_positions]
    ends_B = mask_BL.sum(1).cumsum(0)
    bounds = torch.cat((ends_B.new_zeros(1), ends_B, ends_B.new_full((1,), len(index_L))))
    return index_L, Packed(bounds.int(), longest)


def _unpack(x_1LD: Tensor, index_L: Tensor, shape: torch.Size) -> Tensor:
    """Puts the positions that `_pack` has selected back in their places among zeros: (*shape, D)."""
    return x_1LD.new_zeros(shape.numel(), x_1LD.shape[-1]).index_copy(0, index_L, x_1LD[0]).unflatten(0, shape)


def positions(length: int, mask_BL: Tensor | None, device: torch.device) -> Tensor:
    """(1 or B, L) positions that rotary angles belong to.

    They count from the first one that is not padding: values are rotated too, so outputs depend on absolute positions and left
    padding would change them otherwise. Gaps in a mask keep their positions.
    """
    position_BL = torch.arange(length, device=device)[None]
    return position_BL if mask_BL is None else position_BL - mask_BL.int().argmax(-1, keepdim=True)


def rotary_table(rotary_dim: int, position_BL: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, (B, L, 1, 1, R) float32, as `_rotate` needs them: the first R / 2 sines negated."""
    # computed in each forward: a buffer would be rounded by `.to(torch.bfloat16)` and lost on the meta device
    dims = torch.arange(0, rotary_dim, 2, device=position_BL.device)
    angle = position_BL[:, :, None, None, None].float() * (1.0 / (10000 ** (dims.float() / rotary_dim)))
    return torch.cat((angle, angle), dim=-1).cos(), torch.cat((-angle, angle), dim=-1).sin()


def _rotate(x_BL3HK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    head, tail = x_BL3HK.split((cos.shape[-1], x_BL3HK.shape[-1] - cos.shape[-1]), dim=-1)
    first, second = head.chunk(2, dim=-1)
    return torch.cat((torch.addcmul(head * cos, torch.cat((second, first), dim=-1), sin), tail), dim=-1)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What a linear layer returns for `x`."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class LayerWeights(NamedTuple):
    """Weights and biases of the linear layers of an encoder layer, in the dtype of the computation: see `layer_weights`."""

    qkv: tuple[Tensor, Tensor | None]  # of the three projections, one below the other
    out: tuple[Tensor, Tensor | None]
    fc1: tuple[Tensor, Tensor | None]
    fc2: tuple[Tensor, Tensor | None]


def _linear(layer: nn.Module, x: Tensor, weights: tuple[Tensor, Tensor | None] | None) -> Tensor:
    return layer(x) if weights is None else F.linear(x, *weights)


def _residual_std(config: TowerConfig) -> float:
    # both branches of every layer add to the residual stream: keep its variance independent of the depth
    return config.initializer_factor * config.initializer_range * (2 * config.num_hidden_layers) ** -0.5


class CLVPRMSNorm(nn.Module):
    """Root-mean-square norm over the last dim, of the kind `config.rms_norm` (see the config)."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        # sqrt(rms ** 2 + 1e-16) equals max(rms, 1e-8) in float32 for any rms above 1e-4, and is one fused kernel
        self.eps = 1e-16 if config.rms_norm == "tortoise" else config.layer_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class CLVPAttention(nn.Module):
    """Bidirectional self-attention with the leading dims of q, k and v rotated."""

    is_causal = False

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.config = config
        self.head_dim = cast(int, config.head_dim)
        self.scaling = self.head_dim**-0.5
        inner, bias = config.num_attention_heads * self.head_dim, config.use_attention_bias
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(config.hidden_size, inner, bias=bias) for _ in range(3))
        self.out_proj = nn.Linear(inner, config.hidden_size)
        self.out_proj.init_std = _residual_std(config)  # type: ignore[assignment]

    def forward(
        self, x_BLD: Tensor, context: AttentionContext, weights: LayerWeights | None
    ) -> tuple[Tensor, Tensor | None]:
        if weights is None:
            qkv = torch.cat([project(x_BLD) for project in (self.q_proj, self.k_proj, self.v_proj)], dim=-1)
        else:
            qkv = F.linear(x_BLD, *weights.qkv)
        qkv_BL3HK = qkv.view(*x_BLD.shape[:-1], 3, -1, self.head_dim)
        if context.rotary is not None:
            qkv_BL3HK = _rotate(qkv_BL3HK, *context.rotary)
        # on CPUs bfloat16 attention is no faster, and its backward pass over short sequences is 4 times as slow
        dtype = qkv_BL3HK.dtype
        widen = dtype == torch.bfloat16 and x_BLD.device.type == "cpu" and context.implementation == "sdpa"
        if widen:
            qkv_BL3HK = qkv_BL3HK.float()
        q_BHLK, k_BHLK, v_BHLK = (x_BLHK.transpose(1, 2) for x_BLHK in qkv_BL3HK.unbind(2))
        attend: Any = packed_attention
        if not isinstance(context.mask, Packed):
            attend = ALL_ATTENTION_FUNCTIONS.get_interface(context.implementation, eager_attention)
        dropout = self.config.attention_dropout if self.training else 0.0
        with torch.autocast("cpu", enabled=False) if widen else nullcontext():
            out_BLHK, probs_BHLL = attend(
                self, q_BHLK, k_BHLK, v_BHLK, context.mask, scaling=self.scaling, dropout=dropout, is_causal=False
            )
        out_BLD = out_BLHK.flatten(2).to(dtype)
        return _linear(self.out_proj, out_BLD, weights.out if weights else None), probs_BHLL


class CLVPGate(nn.Module):
    """Gated linear unit: one projection gives the values and, through the activation, their gates."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, x_BLD: Tensor, weights: LayerWeights | None) -> Tensor:
        value_BLF, gate_BLF = _linear(self.proj, x_BLD, weights.fc1 if weights else None).chunk(2, dim=-1)
        return value_BLF * self.activation(gate_BLF)


class CLVPMLP(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        self.fc1 = CLVPGate(config)
        self.dropout = nn.Dropout(config.dropout)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.fc2.init_std = _residual_std(config)  # type: ignore[assignment]

    def forward(self, x_BLD: Tensor, weights: LayerWeights | None) -> Tensor:
        return _linear(self.fc2, self.dropout(self.fc1(x_BLD, weights)), weights.fc2 if weights else None)


class CLVPEncoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: TowerConfig):
        super().__init__()
        self.input_rmsnorm = CLVPRMSNorm(config)
        self.self_attn = CLVPAttention(config)
        self.post_attention_rmsnorm = CLVPRMSNorm(config)
        self.mlp = CLVPMLP(config)

    def forward(
        self, x_BLD: Tensor, context: AttentionContext, weights: LayerWeights | None
    ) -> tuple[Tensor, Tensor | None]:
        attended_BLD, probs_BHLL = self.self_attn(self.input_rmsnorm(x_BLD), context, weights)
        x_BLD = x_BLD + attended_BLD
        return x_BLD + self.mlp(self.post_attention_rmsnorm(x_BLD), weights), probs_BHLL

    def weights(self, dtype: torch.dtype) -> LayerWeights | None:
        attention, mlp = self.self_attn, self.mlp
        linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, mlp.fc1.proj, mlp.fc2)
        if any(type(linear) is not nn.Linear for linear in linears):
            return None

        def one(tensors: Any) -> Tensor:
            return (tensors[0] if len(tensors) == 1 else torch.cat(tensors)).to(dtype)

        def joined(*layers: nn.Linear) -> tuple[Tensor, Tensor | None]:
            weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
            return one(weights), None if biases[0] is None else one(biases)

        return LayerWeights(joined(*linears[:3]), *(joined(linear) for linear in linears[3:]))


class CLVPPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and saving of all CLVP models, and the attention implementations they support."""

    config_class: Any = CLVPConfig
    base_model_prefix = "clvp"
    supports_gradient_checkpointing = True
    _input_embed_layer = "token_embedding"
    _no_split_modules = ["CLVPEncoderLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            tower = self.config.get_text_config()
            std = getattr(module, "init_std", tower.initializer_factor * tower.initializer_range)
            init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, CLVPModel):
            init.constant_(module.logit_scale, module.config.logit_scale_init_value)
        else:
            super()._init_weights(module)


class _CLVPEncoder(CLVPPreTrainedModel):
    """The common part of both towers: from ids to one hidden state per position and one per sequence."""

    def __init__(self, config: TowerConfig):
        super().__init__(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([CLVPEncoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def layer_weights(self) -> list[LayerWeights | None]:
        """The weights of each layer as `forward` takes them: q, k and v as one matrix, all cast to the dtype of autocast.

        With cached gradients or several chunks of a batch this is done once instead of once for each. They are differentiable,
        and valid until the parameters change. None for a layer with another kind of linear layer, such as an adapter.
        """
        dtype = _compute_dtype(self.token_embedding.weight)
        return [layer.weights(dtype) for layer in self.layers]

    def _encode(
        self,
        ids_BL: Tensor,
        mask_BL: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        layer_weights: Sequence[LayerWeights | None] | None,
        packed: tuple[int, int] | None,
    ) -> BaseModelOutputWithPooling:
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        mask_BL = self._honoured_mask(ids_BL, mask_BL)
        position_BL, shape, index_L = positions(ids_BL.shape[1], mask_BL, ids_BL.device), ids_BL.shape, None
        attended: Tensor | Packed | None = mask_BL
        if packed is not None and mask_BL is not None:
            index_L, attended = _pack(mask_BL, *packed)
            ids_BL, position_BL = (values_BL.flatten()[index_L][None] for values_BL in (ids_BL, position_BL))
        x_BLD = self.token_embedding(ids_BL)
        context = self._context(x_BLD, position_BL, attended, bool(output_attentions))
        hidden_states, attentions = [x_BLD], []
        for layer, weights in zip(self.layers, layer_weights or [None] * len(self.layers)):
            x_BLD, probs_BHLL = layer(x_BLD, context, weights)
            if output_hidden_states:
                hidden_states.append(x_BLD)
            if output_attentions:
                attentions.append(probs_BHLL)
        x_BLD = self.final_layer_norm(x_BLD)
        if index_L is not None:
            x_BLD = _unpack(x_BLD, index_L, shape)
        hidden_states[-1] = x_BLD
        return BaseModelOutputWithPooling(
            last_hidden_state=x_BLD,
            pooler_output=self._summarise(x_BLD, mask_BL),
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

    def _honoured_mask(self, ids_BL: Tensor, mask_BL: Tensor | None) -> Tensor | None:
        """The boolean mask, or None without one and with padding="tortoise". Raises ValueError if it does not fit the ids."""
        if mask_BL is not None and mask_BL.shape != ids_BL.shape:
            raise ValueError(
                f"{type(self).__name__}: the mask has shape {tuple(mask_BL.shape)} and the ids {tuple(ids_BL.shape)}. "
                "Pass one 0 or 1 for each id."
            )
        return None if mask_BL is None or self.config.padding == "tortoise" else mask_BL.bool()

    def _context(
        self, x_BLD: Tensor, position_BL: Tensor, mask: Tensor | Packed | None, output_attentions: bool
    ) -> AttentionContext:
        """What all layers share, from the (B, L) mask or the bounds of packed rows."""
        rotary, implementation = None, self._implementation(x_BLD, output_attentions)
        if self.config.use_rotary_embedding:
            cos, sin = rotary_table(cast(int, self.config.rotary_dim), position_BL)
            rotary = cos.to(_compute_dtype(x_BLD)), sin.to(_compute_dtype(x_BLD))
        if not isinstance(mask, Packed):
            mask = self._attention_mask(x_BLD, mask, implementation)
        return AttentionContext(mask, rotary, implementation)

    def _implementation(self, x_BLD: Tensor, output_attentions: bool) -> str:
        """The attention that computes this: the configured one unless it cannot."""
        configured = cast(str, self.config._attn_implementation)
        if output_attentions and configured != "eager":
            logger.warning_once(f"{configured} returns no attentions: using eager attention.")
            return "eager"
        # flash attention has no float32, in which a model that was trained with it is validated
        return "sdpa" if "flash_attention" in configured and _compute_dtype(x_BLD).itemsize > 2 else configured

    def _attention_mask(self, x_BLD: Tensor, mask_BL: Tensor | None, implementation: str) -> Any:
        if mask_BL is None:
            return None
        if implementation in ("eager", "sdpa"):
            return mask_BL[:, None, None]
        # without the skip, nothing waits for the device to learn whether the mask is all ones; pass None if nothing is padded
        return create_bidirectional_mask(
            config=self.config, inputs_embeds=x_BLD, attention_mask=mask_BL, allow_is_bidirectional_skip=False
        )

    def _summarise(self, x_BLD: Tensor, mask_BL: Tensor | None) -> Tensor:
        kind = self.config.summary_type
        if mask_BL is None:
            return x_BLD.mean(1) if kind == "mean" else x_BLD[:, 0 if kind == "first" else -1]
        if kind == "mean":
            # a row that is all padding gives zeros instead of a division by zero
            return x_BLD.masked_fill(~mask_BL[..., None], 0).sum(1) / mask_BL.sum(1, keepdim=True).clamp(min=1)
        length = mask_BL.shape[1]
        index_B = mask_BL.int().argmax(1) if kind == "first" else length - 1 - mask_BL.flip(1).int().argmax(1)
        return x_BLD[torch.arange(len(x_BLD), device=x_BLD.device), index_B]


class CLVPTextModel(_CLVPEncoder):
    """The text encoder without its projection. `from_pretrained` also reads it from the folder of a complete CLVP."""

    config_class = CLVPTextConfig
    base_model_prefix = "text_model"
    _keys_to_ignore_on_load_unexpected = [r"^speech_|^text_projection|^logit_scale"]  # noqa: RUF012

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        layer_weights: Sequence[LayerWeights | None] | None = None,
        packed: tuple[int, int] | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encodes texts. As in all models here, `return_dict=False` gives a plain tuple without the fields that are None.

        Args:
            input_ids: (B, T) text tokens.
            attention_mask: (B, T), 1 for tokens and 0 for padding, which may be on either side. None: no padding. Ignored
                if `config.padding` is "tortoise".
            output_attentions: also return the probabilities, (B, H, T, T) per layer, computed by eager attention.
            output_hidden_states: also return the embeddings and the output of each layer, (B, T, D) each; the last one is
                `last_hidden_state`.
            layer_weights: of `layer_weights()`, to use instead of the layers' own.
            packed: compute the real positions only, as one sequence: how many positions to compute, which may be more than are
                real, and the length of the longest row at most, or all positions if the mask has gaps. Needs a mask; without
                attention dropout, hidden states and attentions. On CUDA in 16 bits.

        Returns:
            `last_hidden_state` (B, T, D), after the final norm, and `pooler_output` (B, D), its summary.

        Raises:
            ValueError: the mask and the ids have different shapes.
        """
        return self._encode(input_ids, attention_mask, output_attentions, output_hidden_states, layer_weights, packed)


class CLVPSpeechModel(_CLVPEncoder):
    """The speech encoder without its projection. `from_pretrained` also reads it from the folder of a complete CLVP."""

    config_class = CLVPSpeechConfig
    base_model_prefix = "speech_model"
    main_input_name = "speech_ids"
    _keys_to_ignore_on_load_unexpected = [r"^text_|^speech_projection|^logit_scale"]  # noqa: RUF012

    @can_return_tuple
    def forward(
        self,
        speech_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        layer_weights: Sequence[LayerWeights | None] | None = None,
        packed: tuple[int, int] | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encodes (B, S) speech codes; otherwise as `CLVPTextModel.forward`."""
        return self._encode(speech_ids, attention_mask, output_attentions, output_hidden_states, layer_weights, packed)


def _projection(config: TowerConfig, width: int) -> nn.Linear:
    layer = nn.Linear(config.hidden_size, width, bias=False)
    layer.init_std = config.initializer_factor * config.hidden_size**-0.5
    return layer


class CLVPTextModelWithProjection(CLVPPreTrainedModel):
    """The text encoder with its projection. `from_pretrained` also reads both from the folder of a complete CLVP."""

    config_class = CLVPTextConfig
    base_model_prefix = "text_model"
    _keys_to_ignore_on_load_unexpected = CLVPTextModel._keys_to_ignore_on_load_unexpected

    def __init__(self, config: CLVPTextConfig):
        super().__init__(config)
        self.text_model = CLVPTextModel(config)
        self.text_projection = _projection(config, config.projection_dim)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CLVPTextModelOutput:
        """Arguments as in `CLVPTextModel.forward`; `text_embeds` (B, P) are projected and not normalised."""
        tower = self.text_model(input_ids, attention_mask, output_attentions, output_hidden_states, return_dict=True)
        embeds_BP = self.text_projection(tower.pooler_output)
        return CLVPTextModelOutput(embeds_BP, tower.last_hidden_state, tower.hidden_states, tower.attentions)


class CLVPSpeechModelWithProjection(CLVPPreTrainedModel):
    """The speech encoder with its projection. `from_pretrained` also reads both from the folder of a complete CLVP."""

    config_class = CLVPSpeechConfig
    base_model_prefix = "speech_model"
    main_input_name = "speech_ids"
    _keys_to_ignore_on_load_unexpected = CLVPSpeechModel._keys_to_ignore_on_load_unexpected

    def __init__(self, config: CLVPSpeechConfig):
        super().__init__(config)
        self.speech_model = CLVPSpeechModel(config)
        self.speech_projection = _projection(config, config.projection_dim)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        speech_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CLVPSpeechModelOutput:
        """Arguments as in `CLVPSpeechModel.forward`; `speech_embeds` (B, P) are projected and not normalised."""
        tower = self.speech_model(speech_ids, attention_mask, output_attentions, output_hidden_states, return_dict=True)
        embeds_BP = self.speech_projection(tower.pooler_output)
        return CLVPSpeechModelOutput(embeds_BP, tower.last_hidden_state, tower.hidden_states, tower.attentions)


class CLVPModel(CLVPPreTrainedModel):
    """The complete CLVP. `logit_scale` is the log of the factor on cosine similarities.

    `get_input_embeddings`, `set_input_embeddings` and `resize_token_embeddings` act on the text tokens; for the speech codes
    call them on `speech_model`.
    """

    def __init__(self, config: CLVPConfig):
        super().__init__(config)
        self.text_model = CLVPTextModel._from_config(config.text_config)
        self.speech_model = CLVPSpeechModel._from_config(config.speech_config)
        width = cast(int, config.projection_dim)
        self.text_projection = _projection(self.text_model.config, width)
        self.speech_projection = _projection(self.speech_model.config, width)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()
        # post_init collects the towers' patterns; here nothing may be ignored
        self._keys_to_ignore_on_load_unexpected = set()

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As in transformers."""
        # digests of the files that are replaced, which clvp_train's commands write and compare
        Path(save_directory, "SHA256SUMS").unlink(missing_ok=True)
        super().save_pretrained(save_directory, *args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        """Returns the embedding of the text tokens."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Sets the embedding of the text tokens."""
        self.text_model.set_input_embeddings(value)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """(B, T) text tokens -> (B, P), projected and not normalised; more arguments as in `CLVPTextModel.forward`."""
        text = self.text_model(input_ids, attention_mask, return_dict=True, **kwargs)
        return self.text_projection(text.pooler_output)

    def get_speech_features(self, speech_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """(B, S) speech codes -> (B, P), projected and not normalised; more arguments as in `CLVPSpeechModel.forward`."""
        speech = self.speech_model(speech_ids, attention_mask, return_dict=True, **kwargs)
        return self.speech_projection(speech.pooler_output)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        speech_ids: Tensor,
        text_attention_mask: Tensor | None = None,
        speech_attention_mask: Tensor | None = None,
        return_loss: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        attention_mask: Tensor | None = None,
    ) -> CLVPOutput:
        """Scores every text of a batch against every code sequence of another batch.

        Args:
            input_ids: (B, T) text tokens.
            speech_ids: (B, S) speech codes. The two batch sizes may differ, except with `return_loss`.
            text_attention_mask: (B, T), 1 for tokens and 0 for padding. None: no padding.
            speech_attention_mask: (B, S), likewise.
            return_loss: also return the symmetric contrastive loss; row i of the codes is the match of row i of the texts.
            output_attentions, output_hidden_states: passed to both encoders (see `CLVPTextModel.forward`).
            attention_mask: another name of `text_attention_mask`, that of tokenizers and processors.

        Raises:
            ValueError: `return_loss` with different batch sizes, a mask and ids of different shapes, or both names of a mask.
        """
        if attention_mask is not None:
            if text_attention_mask is not None:
                raise ValueError("attention_mask and text_attention_mask are the same: set one of them.")
            text_attention_mask = attention_mask
        outputs = (output_attentions, output_hidden_states)
        text = self.text_model(input_ids, text_attention_mask, *outputs, return_dict=True)
        speech = self.speech_model(speech_ids, speech_attention_mask, *outputs, return_dict=True)
        text_BP, speech_BP = self.text_projection(text.pooler_output), self.speech_projection(speech.pooler_output)
        # bfloat16 keeps 3 digits: with a scale of 100 that would be an error of half a logit
        with torch.autocast(text_BP.device.type, enabled=False):
            wide = torch.promote_types(text_BP.dtype, torch.float32)
            text_BP, speech_BP = F.normalize(text_BP.to(wide), dim=-1), F.normalize(speech_BP.to(wide), dim=-1)
            logits_per_text = self.logit_scale.to(wide).exp() * text_BP @ speech_BP.t()
            loss = contrastive_loss(logits_per_text) if return_loss else None
        return CLVPOutput(loss, logits_per_text.t(), logits_per_text, text_BP, speech_BP, text, speech)

    @classmethod
    def from_tortoise(cls, path: str | os.PathLike[str]) -> CLVPModel:
        """Reads a tortoise-tts checkpoint (`clvp2.pth`): its norm, heads of 64, and padding="tortoise". In eval mode.

        Raises:
            ValueError: a key is missing or unexpected, or a tensor does not fit; the message names the file and the keys.
        """
        return cls._from_weights(path, *_converter("convert_tortoise").read_tortoise(path))

    def save_tortoise(self, path: str | os.PathLike[str]) -> None:
        """Writes the weights under tortoise-tts' names, as a replacement for its `clvp2.pth`.

        Raises:
            ValueError: tortoise-tts does not support this architecture; the message names the fields.
        """
        torch.save(_converter("convert_tortoise").tortoise_state_dict(self), path)

    @classmethod
    def from_transformers(cls, name_or_path: str | os.PathLike[str], **hub_kwargs: Any) -> CLVPModel:
        """Reads the encoders and the scale of a transformers `ClvpModelForConditionalGeneration`. In eval mode.

        The model has transformers' norm and padding="mask". The autoregressive part is not read.

        Args:
            name_or_path: a folder or a Hub id, with safetensors or bin weights.
            hub_kwargs: `revision`, `token`, `cache_dir` etc.

        Raises:
            ValueError: a key is missing or unexpected, or a tensor does not fit; the message names the file and the keys.
            UserError: the checkpoint does not exist or cannot be read.
        """
        return cls._from_weights(
            name_or_path, *_converter("convert_transformers").read_transformers(name_or_path, **hub_kwargs)
        )

    def save_transformers(
        self, folder: str | os.PathLike[str], base: str | os.PathLike[str], **hub_kwargs: Any
    ) -> None:
        """Writes a transformers `ClvpModelForConditionalGeneration` that generates as `base` does and scores as this model.

        Scores differ by less than 1e-4 for a model with tortoise-tts' norm, and not at all for one with transformers'.
        transformers ignores `config.padding`: its `generate` ends the text with one 0, as padding="tortoise" does, and
        `pad_to_max_mel_tokens` pads the codes.

        Args:
            folder: the output folder.
            base: a folder or a Hub id in the same format, which provides the autoregressive model and the tokenizer.
            hub_kwargs: `revision`, `token`, `cache_dir` etc., for `base`.

        Raises:
            ValueError: transformers does not support this architecture, or `base` does not fit.
        """
        _converter("convert_transformers").write_transformers(self, folder, base, **hub_kwargs)

    @classmethod
    def _from_weights(cls, source: Any, config: dict[str, Any], weights: dict[str, Tensor]) -> CLVPModel:
        with torch.device("meta"):
            model = cls(cls.config_class(**config))
        try:
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise ValueError(f"{source}: {error}") from error
        return model.eval()


def contrastive_loss(logits_per_text: Tensor) -> Tensor:
    """Mean of the cross entropies over rows and columns of (B, B) logits with the matches on the diagonal, in nats.

    Raises:
        ValueError: the logits are not square.
    """
    texts, speeches = logits_per_text.shape
    if texts != speeches:
        raise ValueError(f"return_loss needs as many texts as code sequences, got {texts} and {speeches}.")
    target = torch.arange(texts, device=logits_per_text.device)
    return (F.cross_entropy(logits_per_text, target) + F.cross_entropy(logits_per_text.t(), target)) / 2


def _converter(module: str) -> Any:
    # by name, as transformers refuses remote code that imports a package which is not installed
    try:
        return importlib.import_module(f"clvp_train.models.{module}")
    except ImportError as error:
        raise ImportError("Converting checkpoints needs the clvp_train package: pip install clvp_train.") from error


__all__ = [
    "CLVPModel",
    "CLVPOutput",
    "CLVPPreTrainedModel",
    "CLVPSpeechModel",
    "CLVPSpeechModelOutput",
    "CLVPSpeechModelWithProjection",
    "CLVPTextModel",
    "CLVPTextModelOutput",
    "CLVPTextModelWithProjection",
]
