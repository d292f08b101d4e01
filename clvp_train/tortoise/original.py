"""The one place that knows tortoise-tts' own key names: `autoregressive.pth` and DL-Art-School's `dvae.pth` to our models."""

import re
from collections.abc import Iterable

import torch
from transformers import ClvpConfig

from clvp_train.errors import UserError
from clvp_train.tortoise.dvae import DVAEConfig

HEAD_WIDTH = 64  # of every head, as tortoise-tts recommends and the published model has it
THEIRS = {
    r"^conditioning_encoder\.mel_conv\.": "conditioning_encoder.init.",
    r"^conditioning_encoder\.group_norms\.(\d+)\.": r"conditioning_encoder.attn.\1.norm.",
    r"^conditioning_encoder\.mel_attn_blocks\.(\d+)\.out_proj\.": r"conditioning_encoder.attn.\1.proj_out.",
    r"^conditioning_encoder\.mel_attn_blocks\.(\d+)\.[qkv]_proj\.": r"conditioning_encoder.attn.\1.qkv.",
    r"^text_position\.": "text_pos_embedding.emb.",
    r"^speech_position\.": "mel_pos_embedding.emb.",
    r"^speech_embedding\.": "mel_embedding.",
    r"^blocks\.": "gpt.h.",
    r"^layer_norm\.": "gpt.ln_f.",
    r"^head\.": "mel_head.",
}
LEFT_OUT = (
    r"^gpt\.h\.\d+\.attn\.(bias|masked_bias)$",  # causal masks, which old transformers stored; in the published file
    r"^text_head\.",  # predicts the text, a second loss of its training
    r"^gpt\.wte\.",  # the speech embedding again, where `post_init_gpt2_config` puts it
    r"^inference_model\.",  # all weights again, as `post_init_gpt2_config` wraps them for `generate`
)
NO_AR = "{} does not hold an AR as tortoise-tts stores it"
NO_DVAE = "{} does not hold a DVAE as DL-Art-School stores Tortoise's"
MEND = "give the file as its author published it or training saved it"
DVAE_LEFT_OUT = (r"^discrete_loss\.",)  # counts of drawn codes, for a loss of its training


def original_config(original: dict[str, torch.Tensor], source: str, heads: int | None = None) -> ClvpConfig:
    """The configuration of the AR in a state dict of tortoise-tts' `UnifiedVoice`.

    Shapes tell all but the number of heads. The start token of texts and the start and stop token of codes are the last ids
    of their vocabularies (255; 8192 and 8193), as `UnifiedVoice` has them unless told otherwise.

    Args:
        original: names and tensors of `autoregressive.pth`, made by tortoise-tts' `models/autoregressive.py`.
        source: the file's name, for errors.
        heads: of every attention; None takes width // 64.

    Raises:
        UserError: it is no `UnifiedVoice`, or the heads do not divide its width.
    """
    shapes = _shapes(
        original,
        ("conditioning_encoder.init.weight", 3),
        *((f"{name}.weight", 2) for name in ("text_embedding", "mel_embedding")),
        *((f"{name}.emb.weight", 2) for name in ("text_pos_embedding", "mel_pos_embedding")),
        complaint=NO_AR.format(source),
    )
    (_, num_mels, _), (text_rows, _), (vocab_size, width), (text_places, _), (speech_places, _) = shapes
    heads = max(1, width // HEAD_WIDTH) if heads is None else heads
    if heads < 1 or width % heads:
        raise UserError(f"tortoise.heads={heads} does not divide the width {width} of {source}: set it to a divisor")
    return ClvpConfig(
        text_config={"vocab_size": text_rows, "bos_token_id": text_rows - 1, "eos_token_id": 0},
        speech_config={"vocab_size": vocab_size - 2},
        decoder_config={
            "hidden_size": width,
            "num_hidden_layers": _count(original, r"^gpt\.h\.(\d+)\.ln_1\.weight$"),
            "num_attention_heads": heads,
            "num_mel_attn_blocks": _count(original, r"^conditioning_encoder\.attn\.(\d+)\.qkv\.weight$"),
            "feature_size": num_mels,
            "vocab_size": vocab_size,
            "bos_token_id": vocab_size - 2,
            "eos_token_id": vocab_size - 1,
            "max_text_tokens": text_places,
            "max_position_embeddings": speech_places,
        },
    )


def from_original(
    original: dict[str, torch.Tensor], expected: Iterable[str], heads: int, source: str
) -> dict[str, torch.Tensor]:
    """Turns a state dict of `UnifiedVoice` into that of `AutoRegressive`.

    Args:
        original: see `original_config`.
        expected: the keys of the AR's state dict.
        heads: of every attention.
        source: the file's name, for errors.

    Raises:
        UserError: a key is missing or unknown.
    """
    wanted = {key: original_key(key) for key in expected}
    _check_keys(original, wanted.values(), LEFT_OUT, NO_AR.format(source))
    return {ours: _convert(ours, original[theirs], heads) for ours, theirs in wanted.items()}


def original_dvae_config(original: dict[str, torch.Tensor], source: str) -> DVAEConfig:
    """The configuration of the DVAE in a state dict of DL-Art-School's `lucidrains_dvae`: one dimension, no transposed
    convolutions, `Quantize` for its codebook.

    Raises:
        UserError: it is no such DVAE.
    """
    required = (("encoder.0.0.weight", 3), ("codebook.embed", 2))
    (hidden_dim, num_mels, kernel_size), (codebook_dim, num_tokens) = _shapes(
        original, *required, complaint=NO_DVAE.format(source)
    )
    return DVAEConfig(
        num_mels=num_mels,
        num_tokens=num_tokens,
        codebook_dim=codebook_dim,
        hidden_dim=hidden_dim,
        num_layers=_count(original, r"^encoder\.(\d+)\.0\.weight$"),
        num_res_blocks=_count(original, r"^encoder\.(\d+)\.net\.0\.weight$"),
        kernel_size=kernel_size,
    )


def from_original_dvae(
    original: dict[str, torch.Tensor], expected: Iterable[str], source: str
) -> dict[str, torch.Tensor]:
    """The state dict of `DiscreteVAE`: the same keys, without what only training used. Raises as `from_original` does."""
    keys = list(expected)
    _check_keys(original, keys, DVAE_LEFT_OUT, NO_DVAE.format(source))
    return {key: original[key] for key in keys}


def original_key(key: str) -> str:
    """tortoise-tts' name for a weight of `AutoRegressive`."""
    for pattern, theirs in THEIRS.items():
        key, renamed = re.subn(pattern, theirs, key)
        if renamed:
            break
    return key


def _convert(key: str, theirs: torch.Tensor, heads: int) -> torch.Tensor:
    if not key.startswith("conditioning_encoder.mel_attn_blocks."):
        return theirs
    # convolutions over single frames there, linear layers here
    tensor = theirs.flatten(start_dim=1) if theirs.ndim > 1 else theirs
    if key.rsplit(".", 2)[1] == "out_proj" or len(tensor) % (3 * heads):
        return tensor
    # theirs goes head by head, each with its query, key and value
    part = "qkv".index(key.rsplit(".", 2)[1][0])
    return tensor.unflatten(0, (heads, 3, -1))[:, part].flatten(0, 1)


def _shapes(original: dict[str, torch.Tensor], *required: tuple[str, int], complaint: str) -> list[torch.Size]:
    """The shapes of these keys, which must have so many dimensions."""
    missing = [key for key, _ in required if key not in original]
    if missing:
        raise UserError(f"{complaint}: {len(missing)} keys missing {missing[:3]}; {MEND}")
    for key, dimensions in required:
        if original[key].ndim != dimensions:
            raise UserError(f"{complaint}: {key} is of shape {tuple(original[key].shape)}; {MEND}")
    return [original[key].shape for key, _ in required]


def _check_keys(
    original: dict[str, torch.Tensor], wanted: Iterable[str], left_out: tuple[str, ...], complaint: str
) -> None:
    left = original.keys() - set(wanted)
    missing = sorted(set(wanted) - original.keys())
    unknown = sorted(key for key in left if not any(re.search(pattern, key) for pattern in left_out))
    if missing or unknown:
        raise UserError(
            f"{complaint}: {len(missing)} keys missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}; {MEND}"
        )


def _count(state: dict[str, torch.Tensor], pattern: str) -> int:
    return len({match[1] for key in state if (match := re.search(pattern, key))})
