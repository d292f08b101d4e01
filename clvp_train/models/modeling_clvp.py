"""CLVP: scores how well a sequence of speech codes says a text.

Two transformer encoders without a causal order, one for text tokens and one for speech codes, meet in one space. From
"Better speech synthesis through scaling" (Betker 2023, https://arxiv.org/abs/2305.07243); the architecture is the
`CLVP(use_xformers=True)` of tortoise-tts 3.0.0 (`tortoise/models/clvp.py`, `xtransformers.py`) and the `ClvpEncoder`
of transformers. Imports torch, transformers and `configuration_clvp` only: it travels to the Hub as remote code.

Shapes: B batch, T text length, S speech length, L either length, D width, P projection width, F feed-forward width,
H heads, K width of a head, R rotated dims of a head.
"""

from __future__ import annotations

import importlib
import os
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

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
from transformers.utils import ModelOutput, logging

from .configuration_clvp import CLVPConfig, CLVPSpeechConfig, CLVPTextConfig

logger = logging.get_logger(__name__)


@dataclass
class CLVPOutput(ModelOutput):
    """What `CLVPModel` returns.

    Fields:
        loss: (), mean of the cross entropies text -> speech and speech -> text, in nats; None unless asked for.
        logits_per_speech: (B of speech, B of text), cosine similarity times exp(logit_scale).
        logits_per_text: (B of text, B of speech), the same transposed.
        text_embeds, speech_embeds: (B, P), projected and L2-normalised.
        text_model_output, speech_model_output: what the halves returned.
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
    """`text_embeds` (B, P) projected, not normalised; `last_hidden_state` (B, T, D); and, if asked for, the rest."""

    text_embeds: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class CLVPSpeechModelOutput(ModelOutput):
    """`speech_embeds` (B, P) projected, not normalised; `last_hidden_state` (B, S, D); and, if asked for, the rest."""

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
    """Attention written out, for those who want the probabilities. `attention_mask` is boolean or additive.

    Returns (B, L, H, K) and the probabilities (B, H, L, L).
    """
    scores_BHLL = q_BHLK @ k_BHLK.transpose(-1, -2) * scaling
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores_BHLL = scores_BHLL.masked_fill(~attention_mask, torch.finfo(scores_BHLL.dtype).min)
        else:
            scores_BHLL = scores_BHLL + attention_mask
    # Tower precision cannot hold a sum over hundreds of keys.
    wide = torch.promote_types(scores_BHLL.dtype, torch.float32)
    probs_BHLL = scores_BHLL.softmax(-1, dtype=wide).to(v_BHLK.dtype)
    probs_BHLL = F.dropout(probs_BHLL, dropout, module.training)
    return (probs_BHLL @ v_BHLK).transpose(1, 2), probs_BHLL


def rotary_table(rotary_dim: int, length: int, mask_BL: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, (1 or B, 1, L, R) float32.

    Positions count from the first one that is not padding. Values are rotated too, which makes an output depend on
    absolute positions: left padding would change it otherwise. Gaps in a mask keep their positions.
    """
    # Computed anew in each forward: a buffer would be rounded by `.to(torch.bfloat16)` and lost on the meta device.
    inverse_frequency = 1.0 / (10000 ** (torch.arange(0, rotary_dim, 2, device=device).float() / rotary_dim))
    position_BL = torch.arange(length, device=device)[None]
    if mask_BL is not None:
        position_BL = position_BL - mask_BL.int().argmax(-1, keepdim=True)
    angle = position_BL[:, None, :, None].float() * inverse_frequency
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def _rotate(x_BHLK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    head, tail = x_BHLK.split((cos.shape[-1], x_BHLK.shape[-1] - cos.shape[-1]), dim=-1)
    first, second = head.chunk(2, dim=-1)
    return torch.cat((head * cos + torch.cat((-second, first), dim=-1) * sin, tail), dim=-1)


def _residual_std(config: CLVPTextConfig | CLVPSpeechConfig) -> float:
    # Both branches of every layer add to the residual stream: keep its variance free of the depth.
    return config.initializer_factor * config.initializer_range * (2 * config.num_hidden_layers) ** -0.5


class CLVPRMSNorm(nn.Module):
    """Root-mean-square norm over the last dim; `config.rms_norm` says which (see the config)."""

    def __init__(self, config: CLVPTextConfig | CLVPSpeechConfig):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        # sqrt(rms ** 2 + 1e-16) is max(rms, 1e-8) to float32 rounding for any rms above 1e-4, and one fused kernel.
        self.eps = 1e-16 if config.rms_norm == "tortoise" else config.layer_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class CLVPAttention(nn.Module):
    """Self-attention of every position on every other, with the leading dims of q, k and v rotated."""

    is_causal = False

    def __init__(self, config: CLVPTextConfig | CLVPSpeechConfig):
        super().__init__()
        self.config = config
        self.head_dim = cast(int, config.head_dim)
        self.scaling = self.head_dim**-0.5
        inner, bias = config.num_attention_heads * self.head_dim, config.use_attention_bias
        self.q_proj = nn.Linear(config.hidden_size, inner, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, inner, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, inner, bias=bias)
        self.out_proj = nn.Linear(inner, config.hidden_size)
        self.out_proj.init_std = _residual_std(config)  # type: ignore[assignment]

    def forward(
        self, x_BLD: Tensor, mask: Tensor | None, rotary: tuple[Tensor, Tensor] | None, eager: bool
    ) -> tuple[Tensor, Tensor | None]:
        shape = (*x_BLD.shape[:-1], -1, self.head_dim)
        q_BHLK, k_BHLK, v_BHLK = (
            project(x_BLD).view(shape).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if rotary is not None:
            cos, sin = (table.to(q_BHLK.dtype) for table in rotary)
            q_BHLK, k_BHLK, v_BHLK = (_rotate(x, cos, sin) for x in (q_BHLK, k_BHLK, v_BHLK))
        implementation = "eager" if eager else self.config._attn_implementation
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        dropout = self.config.attention_dropout if self.training else 0.0
        # On a CPU attention in bfloat16 is no faster, and its backward pass over short sequences 4 times as slow.
        dtype = q_BHLK.dtype
        widen = dtype == torch.bfloat16 and q_BHLK.device.type == "cpu" and implementation == "sdpa"
        if widen:
            q_BHLK, k_BHLK, v_BHLK = q_BHLK.float(), k_BHLK.float(), v_BHLK.float()
        with torch.autocast("cpu", enabled=False) if widen else nullcontext():
            out_BLHK, probs_BHLL = attend(
                self, q_BHLK, k_BHLK, v_BHLK, mask, scaling=self.scaling, dropout=dropout, is_causal=False
            )
        return self.out_proj(out_BLHK.flatten(2).to(dtype)), probs_BHLL


class CLVPGate(nn.Module):
    """The gated half of the feed-forward: one projection gives values and, through the activation, their gates."""

    def __init__(self, config: CLVPTextConfig | CLVPSpeechConfig):
        super().__init__()
        self.proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, x_BLD: Tensor) -> Tensor:
        value_BLF, gate_BLF = self.proj(x_BLD).chunk(2, dim=-1)
        return value_BLF * self.activation(gate_BLF)


class CLVPMLP(nn.Module):
    def __init__(self, config: CLVPTextConfig | CLVPSpeechConfig):
        super().__init__()
        self.fc1 = CLVPGate(config)
        self.dropout = nn.Dropout(config.dropout)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.fc2.init_std = _residual_std(config)  # type: ignore[assignment]

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.fc2(self.dropout(self.fc1(x_BLD)))


class CLVPEncoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: CLVPTextConfig | CLVPSpeechConfig):
        super().__init__()
        self.input_rmsnorm = CLVPRMSNorm(config)
        self.self_attn = CLVPAttention(config)
        self.post_attention_rmsnorm = CLVPRMSNorm(config)
        self.mlp = CLVPMLP(config)

    def forward(
        self, x_BLD: Tensor, mask: Tensor | None, rotary: tuple[Tensor, Tensor] | None, eager: bool
    ) -> tuple[Tensor, Tensor | None]:
        attended_BLD, probs_BHLL = self.self_attn(self.input_rmsnorm(x_BLD), mask, rotary, eager)
        x_BLD = x_BLD + attended_BLD
        return x_BLD + self.mlp(self.post_attention_rmsnorm(x_BLD)), probs_BHLL


class CLVPPreTrainedModel(PreTrainedModel):
    """What every CLVP model shares: how weights start, load and save, and which attention they can run."""

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
            half = self.config.get_text_config()
            std = getattr(module, "init_std", half.initializer_factor * half.initializer_range)
            init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, CLVPModel):
            init.constant_(module.logit_scale, module.config.logit_scale_init_value)
        else:
            super()._init_weights(module)


class _CLVPEncoder(CLVPPreTrainedModel):
    """What the text and the speech half have in common: ids in, one hidden state a position and one a sequence out."""

    def __init__(self, config: CLVPTextConfig | CLVPSpeechConfig):
        super().__init__(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([CLVPEncoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def _encode(
        self,
        ids_BL: Tensor,
        mask_BL: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        return_dict: bool | None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return_dict = config.return_dict if return_dict is None else return_dict
        if mask_BL is not None and mask_BL.shape != ids_BL.shape:
            raise ValueError(
                f"{type(self).__name__}: the mask's shape {tuple(mask_BL.shape)} is not that of the ids, "
                f"{tuple(ids_BL.shape)}: give one 0 or 1 for each id."
            )
        x_BLD = self.token_embedding(ids_BL)
        mask_BL = None if mask_BL is None or config.padding == "tortoise" else mask_BL.bool()
        rotary = None
        if config.use_rotary_embedding:
            rotary = rotary_table(cast(int, config.rotary_dim), ids_BL.shape[1], mask_BL, x_BLD.device)
        eager = bool(output_attentions) and config._attn_implementation != "eager"
        if eager:
            logger.warning_once(
                f"{config._attn_implementation} keeps no attentions: eager runs where they are asked for."
            )
        mask: Any = None
        if mask_BL is not None and eager:
            mask = mask_BL[:, None, None]
        elif mask_BL is not None:
            # Without the skip nothing asks the device whether the mask is all ones. Pass None where nothing is padded.
            mask = create_bidirectional_mask(
                config=config, inputs_embeds=x_BLD, attention_mask=mask_BL, allow_is_bidirectional_skip=False
            )
        hidden_states, attentions = [x_BLD], []
        for layer in self.layers:
            x_BLD, probs_BHLL = layer(x_BLD, mask, rotary, eager)
            if output_hidden_states:
                hidden_states.append(x_BLD)
            if output_attentions:
                attentions.append(probs_BHLL)
        x_BLD = self.final_layer_norm(x_BLD)
        hidden_states[-1] = x_BLD
        output = BaseModelOutputWithPooling(
            last_hidden_state=x_BLD,
            pooler_output=self._summarise(x_BLD, mask_BL),
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
        return output if return_dict else output.to_tuple()

    def _summarise(self, x_BLD: Tensor, mask_BL: Tensor | None) -> Tensor:
        kind = self.config.summary_type
        if mask_BL is None:
            return x_BLD.mean(1) if kind == "mean" else x_BLD[:, 0 if kind == "first" else -1]
        if kind == "mean":
            # A row without any id gives zeros, never a division by zero.
            return x_BLD.masked_fill(~mask_BL[..., None], 0).sum(1) / mask_BL.sum(1, keepdim=True).clamp(min=1)
        length = mask_BL.shape[1]
        index_B = mask_BL.int().argmax(1) if kind == "first" else length - 1 - mask_BL.flip(1).int().argmax(1)
        return x_BLD[torch.arange(len(x_BLD), device=x_BLD.device), index_B]


class CLVPTextModel(_CLVPEncoder):
    """The text half without its projection. `from_pretrained` on a folder of a whole CLVP takes the text half."""

    config_class = CLVPTextConfig
    base_model_prefix = "text_model"
    _keys_to_ignore_on_load_unexpected = [r"^speech_|^text_projection|^logit_scale"]  # noqa: RUF012

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode texts.

        Args:
            input_ids: (B, T) text tokens.
            attention_mask: (B, T), 1 where there is a token and 0 where there is padding, on either side. None: no
                padding. Ignored if `config.padding` is "tortoise".
            output_attentions: also return the probabilities, (B, H, T, T) a layer; they are computed by "eager".
            output_hidden_states: also return the embeddings and what each layer gave, (B, T, D) each; the last one is
                `last_hidden_state`.
            return_dict: False for a plain tuple.

        Returns:
            `last_hidden_state` (B, T, D), after the final norm, and `pooler_output` (B, D), its summary.

        Raises:
            ValueError: the mask has another shape than the ids.
        """
        return self._encode(input_ids, attention_mask, output_attentions, output_hidden_states, return_dict)


class CLVPSpeechModel(_CLVPEncoder):
    """The speech half without its projection. `from_pretrained` on a folder of a whole CLVP takes the speech half."""

    config_class = CLVPSpeechConfig
    base_model_prefix = "speech_model"
    main_input_name = "speech_ids"
    _keys_to_ignore_on_load_unexpected = [r"^text_|^speech_projection|^logit_scale"]  # noqa: RUF012

    def forward(
        self,
        speech_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode speech codes: `speech_ids` (B, S), 21.5 a second; the rest as in `CLVPTextModel.forward`."""
        return self._encode(speech_ids, attention_mask, output_attentions, output_hidden_states, return_dict)


def _projection(config: CLVPTextConfig | CLVPSpeechConfig) -> nn.Linear:
    layer = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
    layer.init_std = config.initializer_factor * config.hidden_size**-0.5
    return layer


class CLVPTextModelWithProjection(CLVPPreTrainedModel):
    """The text half with its projection. `from_pretrained` on a folder of a whole CLVP takes both."""

    config_class = CLVPTextConfig
    base_model_prefix = "text_model"
    _keys_to_ignore_on_load_unexpected = CLVPTextModel._keys_to_ignore_on_load_unexpected

    def __init__(self, config: CLVPTextConfig):
        super().__init__(config)
        self.text_model = CLVPTextModel(config)
        self.text_projection = _projection(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CLVPTextModelOutput | tuple[Any, ...]:
        """Arguments as in `CLVPTextModel.forward`; `text_embeds` (B, P) come projected and not normalised."""
        half = self.text_model(input_ids, attention_mask, output_attentions, output_hidden_states, return_dict=True)
        output = CLVPTextModelOutput(
            self.text_projection(half.pooler_output), half.last_hidden_state, half.hidden_states, half.attentions
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class CLVPSpeechModelWithProjection(CLVPPreTrainedModel):
    """The speech half with its projection. `from_pretrained` on a folder of a whole CLVP takes both."""

    config_class = CLVPSpeechConfig
    base_model_prefix = "speech_model"
    main_input_name = "speech_ids"
    _keys_to_ignore_on_load_unexpected = CLVPSpeechModel._keys_to_ignore_on_load_unexpected

    def __init__(self, config: CLVPSpeechConfig):
        super().__init__(config)
        self.speech_model = CLVPSpeechModel(config)
        self.speech_projection = _projection(config)
        self.post_init()

    def forward(
        self,
        speech_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CLVPSpeechModelOutput | tuple[Any, ...]:
        """Arguments as in `CLVPSpeechModel.forward`; `speech_embeds` (B, P) come projected and not normalised."""
        half = self.speech_model(speech_ids, attention_mask, output_attentions, output_hidden_states, return_dict=True)
        output = CLVPSpeechModelOutput(
            self.speech_projection(half.pooler_output), half.last_hidden_state, half.hidden_states, half.attentions
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class CLVPModel(CLVPPreTrainedModel):
    """A whole CLVP. `logit_scale` is the log of the factor on cosine similarities.

    `get_input_embeddings`, `set_input_embeddings` and `resize_token_embeddings` are about the text tokens; for the
    speech codes call them on `speech_model`.
    """

    def __init__(self, config: CLVPConfig):
        super().__init__(config)
        self.text_model = CLVPTextModel._from_config(config.text_config)
        self.speech_model = CLVPSpeechModel._from_config(config.speech_config)
        self.text_projection = _projection(self.text_model.config)
        self.speech_projection = _projection(self.speech_model.config)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()
        # What a half may skip in a whole folder is what a whole model must have.
        self._keys_to_ignore_on_load_unexpected = set()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the text tokens; `speech_model.get_input_embeddings()` is that of the speech codes."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Set the embedding of the text tokens."""
        self.text_model.set_input_embeddings(value)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Texts (B, T) -> (B, P), projected and not normalised."""
        return self.text_projection(self.text_model(input_ids, attention_mask, return_dict=True).pooler_output)

    def get_speech_features(self, speech_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Speech codes (B, S) -> (B, P), projected and not normalised."""
        return self.speech_projection(self.speech_model(speech_ids, attention_mask, return_dict=True).pooler_output)

    def forward(
        self,
        input_ids: Tensor,
        speech_ids: Tensor,
        text_attention_mask: Tensor | None = None,
        speech_attention_mask: Tensor | None = None,
        return_loss: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CLVPOutput | tuple[Any, ...]:
        """Score every text of a batch against every code sequence of another.

        Args:
            input_ids: (B, T) text tokens.
            speech_ids: (B, S) speech codes, 21.5 a second. B may differ from that of the texts, unless a loss is asked.
            text_attention_mask: (B, T), 1 on tokens and 0 on padding. None: no padding.
            speech_attention_mask: (B, S), likewise.
            return_loss: also return the symmetric contrastive loss, row i of the texts being said by row i of the codes.
            output_attentions, output_hidden_states: passed to both halves (see `CLVPTextModel.forward`).
            return_dict: False for a plain tuple, without what is None.

        Raises:
            ValueError: a loss of unequal batches, or a mask of another shape than its ids.
        """
        wanted = (output_attentions, output_hidden_states)
        text = self.text_model(input_ids, text_attention_mask, *wanted, return_dict=True)
        speech = self.speech_model(speech_ids, speech_attention_mask, *wanted, return_dict=True)
        text_BP, speech_BP = self.text_projection(text.pooler_output), self.speech_projection(speech.pooler_output)
        # Tower precision keeps 3 digits: with a scale of 100 that would be half a logit.
        with torch.autocast(text_BP.device.type, enabled=False):
            wide = torch.promote_types(text_BP.dtype, torch.float32)
            text_BP, speech_BP = F.normalize(text_BP.to(wide), dim=-1), F.normalize(speech_BP.to(wide), dim=-1)
            logits_per_text = self.logit_scale.to(wide).exp() * text_BP @ speech_BP.t()
            loss = contrastive_loss(logits_per_text) if return_loss else None
        output = CLVPOutput(loss, logits_per_text.t(), logits_per_text, text_BP, speech_BP, text, speech)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    @classmethod
    def from_tortoise(cls, path: str | os.PathLike[str]) -> CLVPModel:
        """Read a tortoise-tts checkpoint (`clvp2.pth`): its norm, heads of 64, and padding="tortoise". In eval mode.

        Raises:
            ValueError: a key is missing or unexpected, or a tensor does not fit; the message names file and keys.
        """
        return cls._from_weights(path, *_format("tortoise").read_tortoise(path))

    def save_tortoise(self, path: str | os.PathLike[str]) -> None:
        """Write the weights under tortoise-tts' names, to serve as its `clvp2.pth`.

        Raises:
            ValueError: tortoise-tts cannot hold this architecture; the message names the fields.
        """
        _format("tortoise").write_tortoise(self, path)

    @classmethod
    def from_transformers(cls, name_or_path: str | os.PathLike[str], **hub_kwargs: Any) -> CLVPModel:
        """Read the encoders and the scale of a transformers `ClvpModelForConditionalGeneration`. In eval mode.

        The model has transformers' norm and padding="mask". The autoregressive part is left aside.

        Args:
            name_or_path: a folder or a Hub id, with safetensors or bin weights.
            hub_kwargs: `revision`, `token`, `cache_dir` and the like.

        Raises:
            ValueError: a key is missing or unexpected, or a tensor does not fit; the message names file and keys.
        """
        return cls._from_weights(name_or_path, *_format("transformers").read_transformers(name_or_path, **hub_kwargs))

    def save_transformers(
        self, folder: str | os.PathLike[str], base: str | os.PathLike[str], **hub_kwargs: Any
    ) -> None:
        """Write a transformers `ClvpModelForConditionalGeneration` that draws as `base` does and scores as this does.

        Scores differ by less than 1e-4 for a model with tortoise-tts' norm, and not at all for one with transformers'.
        transformers ignores `config.padding`: its `generate` ends the text with one 0, as padding="tortoise" does, and
        `pad_to_max_mel_tokens` fills up the codes.

        Args:
            folder: to write to.
            base: a folder or a Hub id in the same format, whose autoregressive model and tokenizer are taken.
            hub_kwargs: `revision`, `token`, `cache_dir` and the like, for `base`.

        Raises:
            ValueError: transformers cannot hold this architecture, or `base` does not fit; the message says what.
        """
        _format("transformers").write_transformers(self, folder, base, **hub_kwargs)

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
    """Mean of the cross entropies of rows and of columns of (B, B) logits whose diagonal holds the pairs, in nats.

    Raises:
        ValueError: the logits are not square.
    """
    texts, speeches = logits_per_text.shape
    if texts != speeches:
        raise ValueError(f"A loss needs as many texts as code sequences, not {texts} and {speeches}.")
    target = torch.arange(texts, device=logits_per_text.device)
    return (F.cross_entropy(logits_per_text, target) + F.cross_entropy(logits_per_text.t(), target)) / 2


def _format(of: str) -> Any:
    try:
        return importlib.import_module(f"clvp_train.models.{of}_format")
    except ImportError as error:
        raise ImportError("Foreign checkpoints need the clvp_train package: pip install clvp_train.") from error


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
