"""Tortoise's autoregressive model: a voice and a text to the logits of speech codes.

Its parts are those of the paper ("Better speech synthesis through scaling", Betker 2023) and of tortoise-tts'
`models/autoregressive.py`; its blocks are transformers' GPT-2 blocks, so published weights fit as they are.
Shapes: B batch, T text length, S speech length, P prompt length, L any length, D width, H heads, M mel channels, F mel frames,
V speech vocabulary.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional
from transformers import ClvpConfig, GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from clvp_train.errors import UserError

Positions = Literal["served", "trained"]
FUSED = {"gelu_new": "gelu_pytorch_tanh"}  # the same function in one kernel


class KeyValueCache:
    """Keys and values of all layers in tensors allocated once: (layers, B, H, L, D / H) each."""

    def __init__(self, shape: tuple[int, int, int, int, int], like: torch.Tensor) -> None:
        self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        self.length = 0

    def keep(self, rows: torch.Tensor) -> None:
        """Drops all rows of the batch but these."""
        self.keys, self.values = self.keys.index_select(1, rows), self.values.index_select(1, rows)

    def grow(self, positions: int) -> None:
        """Makes room for so many further positions."""
        padding = (0, 0, 0, positions)
        self.keys, self.values = functional.pad(self.keys, padding), functional.pad(self.values, padding)


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
    """Reference speech to the latent that stands for its voice: the first position of an attention stack over mel frames."""

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


def num_groups(width: int) -> int:
    """The number of groups that tortoise-tts normalises `width` channels in (`arch_util.normalization`)."""
    groups = 8 if width <= 16 else 16 if width <= 64 else 32
    while width % groups:
        groups //= 2
    return groups


class AutoRegressive(nn.Module):
    """Voice latent, text and codes so far to the next code's logits.

    A prompt is [latent, 255, text …, 0, 0, 8192] (ids as in the published model); codes follow until 8193.

    Args:
        config: transformers' composite configuration; `text_config` gives the text ids, `decoder_config` the stack.
        positions: "served" counts speech positions 0, 2, 3, … as tortoise-tts with its cache and transformers do; "trained"
            counts 0, 1, 2, … as the published model was trained.
    """

    def __init__(self, config: ClvpConfig, positions: Positions = "served") -> None:
        super().__init__()
        if positions not in get_args(Positions):
            raise UserError(f"positions={positions!r}: choose one of {', '.join(get_args(Positions))}")
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
        """The longest text that fits, in tokens: three position rows go to the start token and the two stop tokens."""
        return self.config.decoder_config.max_text_tokens - 3

    @property
    def max_codes(self) -> int:
        """The most codes that can follow a prompt."""
        return self.config.decoder_config.max_position_embeddings - 2

    def prompt(self, latents_BD: torch.Tensor, texts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded prompts: (B, P, D) embeddings and the (B, P) mask of what is real."""
        framed = [[self.start_text, *text, self.stop_text, self.stop_text] for text in texts]
        longest = max(len(text) for text in framed)
        device = latents_BD.device
        ids_BT = torch.tensor([[self.stop_text] * (longest - len(text)) + text for text in framed], device=device)
        pad_B1 = torch.tensor([[longest - len(text)] for text in framed], device=device)
        position_BT = torch.arange(longest, device=device) - pad_B1
        text_BTD = self.text_embedding(ids_BT) + self.text_position(position_BT.clamp(min=0))
        # the latent stands right before its own text, whatever the padding
        prompt = torch.cat([torch.zeros_like(text_BTD[:, :1]), text_BTD], dim=1)
        prompt[torch.arange(len(framed), device=device), pad_B1[:, 0]] = latents_BD.to(prompt.dtype)
        mask_BP = torch.arange(longest + 1, device=device) >= pad_B1
        start_B1 = torch.full((len(framed), 1), self.start_speech, device=device)
        prompt = torch.cat([prompt, self.speech_vectors(start_B1, first=0)], dim=1)
        return prompt, functional.pad(mask_BP, (0, 1), value=True)

    def speech_vectors(self, ids_BS: torch.Tensor, first: int) -> torch.Tensor:
        """Embeddings of (B, S) speech ids that stand at places `first`, `first` + 1, …; the start token's place is 0."""
        places = torch.arange(first, first + ids_BS.shape[1], device=ids_BS.device)
        if self.positions == "served":
            places = torch.where(places > 0, places + 1, places)
        return self.speech_embedding(ids_BS) + self.speech_position(places)

    def logits(self, x_BLD: torch.Tensor, mask: torch.Tensor, cache: KeyValueCache | None = None) -> torch.Tensor:
        """Runs the stack and the head: (B, L, D) vectors to (B, L, V) logits.

        Args:
            x_BLD: embeddings of a prompt, of codes, or of both.
            mask: what each position may attend to, broadcastable to (B, 1, L, length of the keys), True where it may.
            cache: keys and values of what came before, extended in place.
        """
        B, L, D = x_BLD.shape
        for index, block in enumerate(self.blocks):
            q, k, v = (
                part.view(B, L, self.num_heads, -1).transpose(1, 2)
                for part in block.attn.c_attn(block.ln_1(x_BLD)).split(D, dim=2)
            )
            if cache is not None:
                end = cache.length + L
                cache.keys[index][:, :, cache.length : end] = k
                cache.values[index][:, :, cache.length : end] = v
                k, v = cache.keys[index][:, :, :end], cache.values[index][:, :, :end]
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x_BLD = x_BLD + block.attn.resid_dropout(block.attn.c_proj(attended.transpose(1, 2).reshape(B, L, D)))
            x_BLD = x_BLD + block.mlp(block.ln_2(x_BLD))
        if cache is not None:
            cache.length += L
            x_BLD = x_BLD[:, -1:]
        return self.head(self.final_norm(self.layer_norm(x_BLD)))
