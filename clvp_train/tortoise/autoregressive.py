"""Tortoise's autoregressive model (AR): from a voice and a text to the logits of speech codes.

Source: "Better speech synthesis through scaling" (Betker 2023) and tortoise-tts' `models/autoregressive.py`. The blocks are
transformers' GPT-2 blocks, so published weights need no conversion.

Shapes: B batch, T text length, S speech length, P prompt length, L any length, D width, H heads, M mel channels, F mel frames,
V speech vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional
from transformers import ClvpConfig, GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from clvp_train.errors import UserError

Positions = Literal["served", "trained"]
PROMPT_FRAME = 4  # positions of a prompt besides its text: the latent, the start token and two stop tokens
# layer, queries, keys and values, (B, H, L, D / H) each -> attention output, (B, H, L, D / H)
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
FUSED = {"gelu_new": "gelu_pytorch_tanh"}  # the same function as one kernel


class ConditioningAttention(nn.Module):
    def __init__(self, width: int, num_heads: int, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=bias) for _ in range(3))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BFD: torch.Tensor) -> torch.Tensor:
        heads = (len(x_BFD), -1, self.num_heads, x_BFD.shape[-1] // self.num_heads)
        q, k, v = (
            projection(x_BFD).view(heads).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x_BFD.shape))


class ConditioningEncoder(nn.Module):
    """From reference speech to the conditioning latent of its voice, the first output of an attention stack over mel frames."""

    def __init__(self, config: ClvpConfig) -> None:
        super().__init__()
        decoder = config.decoder_config
        width, layers = decoder.hidden_size, range(decoder.num_mel_attn_blocks)
        self.mel_conv = nn.Conv1d(decoder.feature_size, width, kernel_size=1)
        self.group_norms = nn.ModuleList(nn.GroupNorm(num_groups(width), width) for _ in layers)
        self.mel_attn_blocks = nn.ModuleList(
            ConditioningAttention(width, decoder.num_attention_heads, decoder.use_attention_bias) for _ in layers
        )

    def forward(self, mel_BMF: torch.Tensor) -> torch.Tensor:
        """(B, 80, F) to (B, D)."""
        x_BDF = self.mel_conv(mel_BMF)
        for norm, attention in zip(self.group_norms, self.mel_attn_blocks):
            x_BDF = x_BDF + attention(norm(x_BDF).transpose(1, 2)).transpose(1, 2)
        return x_BDF[:, :, 0]


def attend_causally(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention without a cache."""
    if q.device.type == "cpu":  # where bfloat16 attention is slower than float32
        q, k, v = q.float(), k.float(), v.float()
    with torch.autocast(q.device.type, enabled=False):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def num_groups(width: int) -> int:
    """Number of groups in which tortoise-tts normalises `width` channels (`arch_util.normalization`)."""
    groups = 8 if width <= 16 else 16 if width <= 64 else 32
    while width % groups:
        groups //= 2
    return groups


class AutoRegressive(nn.Module):
    """From the conditioning latent, the text and the codes so far to the logits of the next code.

    A prompt is [latent, 255, text …, 0, 0, 8192] (ids as in the published model); codes follow until 8193.

    Args:
        config: transformers' composite configuration; `text_config` gives the text ids, `decoder_config` the stack.
        positions: "served" counts speech positions 0, 2, 3, … as tortoise-tts with its cache and transformers do; "trained"
            counts 0, 1, 2, … as the published model was trained.
    """

    def __init__(self, config: ClvpConfig, positions: Positions = "served") -> None:
        super().__init__()
        if positions not in get_args(Positions):
            raise UserError(f"tortoise.positions={positions}: unknown. Use one of {', '.join(get_args(Positions))}.")
        text, decoder = config.text_config, config.decoder_config
        self.config, self.positions = config, positions
        self.start_text, self.stop_text = text.bos_token_id, text.eos_token_id
        self.start_speech, self.stop_speech = decoder.bos_token_id, decoder.eos_token_id
        self.num_heads, width = decoder.num_attention_heads, decoder.hidden_size
        self.conditioning_encoder = ConditioningEncoder(config)
        self.text_embedding = nn.Embedding(text.vocab_size, width)
        self.text_position = nn.Embedding(decoder.max_text_tokens, width)
        self.speech_embedding = nn.Embedding(decoder.vocab_size, width)
        self.speech_position = nn.Embedding(decoder.max_position_embeddings, width)
        activation = str(decoder.activation_function)
        gpt2 = GPT2Config(
            n_embd=width,
            n_layer=decoder.num_hidden_layers,
            n_head=decoder.num_attention_heads,
            n_inner=decoder.n_inner,
            activation_function=FUSED.get(activation, activation),
            layer_norm_epsilon=decoder.layer_norm_epsilon,
            resid_pdrop=decoder.resid_pdrop,
        )
        self.blocks = nn.ModuleList(GPT2Block(gpt2, layer_idx=layer) for layer in range(decoder.num_hidden_layers))
        self.layer_norm = nn.LayerNorm(width, eps=decoder.layer_norm_epsilon)
        self.final_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, decoder.vocab_size)

    @property
    def max_text_tokens(self) -> int:
        """The longest text that fits, in tokens: the start token and two stop tokens take three positions."""
        return self.config.decoder_config.max_text_tokens - 3

    @property
    def max_codes(self) -> int:
        """The maximum number of codes after a prompt."""
        return self.config.decoder_config.max_position_embeddings - 2

    def prompt(self, latents_BD: torch.Tensor, texts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (B, P, D) embeddings of [latent, 255, text …, 0, 0], padded on the right, and their (B,) lengths."""
        framed = [[self.start_text, *text, self.stop_text, self.stop_text] for text in texts]
        lengths_B = torch.tensor([len(text) for text in framed], device=latents_BD.device)
        longest = max(len(text) for text in framed)
        padded = [text + [self.stop_text] * (longest - len(text)) for text in framed]
        ids_BT = torch.tensor(padded, device=latents_BD.device)
        text_BTD = self.text_embedding(ids_BT) + self.text_position(torch.arange(longest, device=ids_BT.device))
        return torch.cat([latents_BD[:, None].to(text_BTD.dtype), text_BTD], dim=1), lengths_B + 1

    def speech_vectors(self, ids: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Embeddings of speech ids at these steps, both of the same shape; the start token is at step 0."""
        positions = torch.where(steps > 0, steps + 1, steps) if self.positions == "served" else steps
        return self.speech_embedding(ids) + self.speech_position(positions)

    def stack(self, x_BLD: torch.Tensor, attend: Attend) -> torch.Tensor:
        """Runs the blocks with `attend` as attention, so that they are independent of the cache."""
        B, L, D = x_BLD.shape
        for layer, block in enumerate(self.blocks):
            q, k, v = (
                part.view(B, L, self.num_heads, -1).transpose(1, 2)
                for part in block.attn.c_attn(block.ln_1(x_BLD)).split(D, dim=2)
            )
            attended = attend(layer, q, k, v).transpose(1, 2).reshape(B, L, D)
            x_BLD = x_BLD + block.attn.resid_dropout(block.attn.c_proj(attended))
            x_BLD = x_BLD + block.mlp(block.ln_2(x_BLD))
        return x_BLD

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(…, D) outputs of `stack` to (…, V) logits of the next speech id."""
        return self.head(self.final_norm(self.layer_norm(x)))

    def forward(self, latents_BD: torch.Tensor, texts: Sequence[Sequence[int]], codes_BS: torch.Tensor) -> torch.Tensor:
        """Returns (B, S + 1, V) logits of the given codes and of the one after them, in one pass.

        Args:
            latents_BD: conditioning latents.
            texts: B lists of token ids.
            codes_BS: speech codes, padded on the right with any id; logits at padded positions are undefined.
        """
        prompt_BPD, lengths_B = self.prompt(latents_BD, texts)
        steps = torch.arange(codes_BS.shape[1] + 1, device=codes_BS.device)
        speech_BSD = self.speech_vectors(functional.pad(codes_BS, (1, 0), value=self.start_speech), steps)
        # each row's codes directly follow its own prompt, so that causal attention never sees the padding
        x_BLD = functional.pad(prompt_BPD, (0, 0, 0, len(steps)))
        rows_B1, positions_BS = torch.arange(len(x_BLD), device=x_BLD.device)[:, None], lengths_B[:, None] + steps
        x_BLD = x_BLD.index_put((rows_B1, positions_BS), speech_BSD.to(x_BLD.dtype))
        return self.logits(self.stack(x_BLD, attend_causally)[rows_B1, positions_BS])
