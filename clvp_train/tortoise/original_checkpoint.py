"""Reads the files that Tortoise's author published, or that fine-tuning tools write: tortoise-tts' `autoregressive.pth` and
DL-Art-School's `dvae.pth`. The only module that knows their state-dict keys."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import ClvpConfig, ClvpFeatureExtractor

from clvp_train.errors import UserError
from clvp_train.models.weight_files import read_state_dict, read_stored
from clvp_train.tortoise.audio import NUM_MELS
from clvp_train.tortoise.autoregressive import AutoRegressive, Positions
from clvp_train.tortoise.dvae import DiscreteVAE, DVAEConfig
from clvp_train.tortoise.parts import TortoiseParts, check_keys, load_weights, make_sampling
from clvp_train.tortoise.tokenizer import read_original_tokenizer

AUTOREGRESSIVE_FILE = "autoregressive.pth"
HEAD_WIDTH = 64  # of every head in the published model
# start of a key of `AutoRegressive` -> start of tortoise-tts' key
KEY_PATTERNS = {
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
UNUSED = (
    r"^gpt\.h\.\d+\.attn\.(bias|masked_bias)$",  # causal masks, which old transformers stored; in the published file
    r"^text_head\.",  # predicts the text, for an auxiliary training loss
    r"^gpt\.wte\.",  # a second reference to the speech embedding, made by `post_init_gpt2_config`
    r"^inference_model\.",  # a second reference to all weights, made by `post_init_gpt2_config` for `generate`
)
DVAE_UNUSED = (r"^discrete_loss\.",)  # counts of used codes, for a training loss
NO_AR = "{}: not an AR as tortoise-tts stores it"
NO_DVAE = "{}: not a DVAE as DL-Art-School stores Tortoise's"
ADVICE = "Use the file as published by its author or saved by training."


@dataclass(frozen=True)
class OriginalFiles:
    """Paths of the parts of an original Tortoise."""

    autoregressive: Path  # tortoise-tts' `autoregressive.pth`, or a fine-tuned one
    tokenizer: Path  # tortoise-tts' `tortoise/data/tokenizer.json`
    mel_norms: Path  # tortoise-tts' `tortoise/data/mel_norms.pth`
    dvae: Path | None = None  # DL-Art-School's `dvae.pth`

    @classmethod
    def find(cls, folder: str | Path, **given: str | Path | None) -> "OriginalFiles":
        """Returns the given files, and the default names in a folder for the others; a DVAE only if it exists."""
        folder = Path(folder).expanduser()
        paths = {name: Path(path).expanduser() for name, path in given.items() if path}
        dvae = folder / "dvae.pth"
        return cls(
            autoregressive=paths.get("autoregressive", folder / AUTOREGRESSIVE_FILE),
            tokenizer=paths.get("tokenizer", folder / "tokenizer.json"),
            mel_norms=paths.get("mel_norms", folder / "mel_norms.pth"),
            dvae=paths.get("dvae", dvae if dvae.is_file() else None),
        )

    def all(self) -> list[Path]:
        """The files that exist for this Tortoise, in a fixed order."""
        return [file for file in (self.autoregressive, self.tokenizer, self.mel_norms, self.dvae) if file is not None]


def read_original(
    files: OriginalFiles, heads: int | None, positions: Positions, sampling: dict[str, Any]
) -> TortoiseParts:
    """Reads original files, without executing pickled code.

    Args:
        heads: attention heads of the AR; None: width // 64.
        positions: see `AutoRegressive`.
        sampling: fields of `Sampling` that override the defaults; None leaves one unchanged.

    Raises:
        UserError: a file is missing, damaged or of another kind, keys are missing or unknown, or shapes do not fit.
    """
    copy = "Copy it from tortoise-tts' folder tortoise/data, or set its path."
    for file, advice in (
        (files.autoregressive, "Set the path of the AR's weights."),
        (files.tokenizer, copy),
        (files.mel_norms, copy),
    ):
        if not file.is_file():
            raise UserError(f"{file}: not found. {advice}")
    source = str(files.autoregressive)
    original = read_state_dict(files.autoregressive)
    autoregressive = AutoRegressive(original_config(original, source, heads), positions)
    state = from_original(original, autoregressive.state_dict().keys(), autoregressive.num_heads, source)
    load_weights(autoregressive, state, f"{source}: weights of inconsistent sizes")
    tokenizer = read_original_tokenizer(files.tokenizer)
    if tokenizer.vocab_size > autoregressive.start_text:
        raise UserError(
            f"{files.tokenizer}: {tokenizer.vocab_size} tokens, but the AR in {source} has {autoregressive.start_text}. Use "
            "the tokenizer that it was trained with."
        )
    return TortoiseParts(
        autoregressive=autoregressive,
        tokenizer=tokenizer,
        feature_extractor=ClvpFeatureExtractor(mel_norms=_read_mel_norms(files.mel_norms)),
        dvae=None if files.dvae is None else _read_dvae(files.dvae),
        sampling=make_sampling(autoregressive, {}, sampling),
    )


def _read_mel_norms(file: Path) -> list[float]:
    norms = read_stored(file)
    if not isinstance(norms, torch.Tensor) or norms.shape != (NUM_MELS,) or not bool((norms != 0).all()):
        raise UserError(f"{file}: not {NUM_MELS} divisors, one per mel channel. Use tortoise-tts' mel_norms.pth.")
    return norms.float().tolist()


def _read_dvae(file: Path) -> DiscreteVAE:
    original = read_state_dict(file)
    dvae = DiscreteVAE(original_dvae_config(original, str(file)))
    state = from_original_dvae(original, dvae.state_dict().keys(), str(file))
    load_weights(dvae, state, f"{file}: weights of inconsistent sizes")
    return dvae


def original_config(original: dict[str, torch.Tensor], source: str, heads: int | None = None) -> ClvpConfig:
    """Derives the configuration of the AR from a state dict of tortoise-tts' `UnifiedVoice`.

    Everything but the number of heads follows from shapes. The start token of texts and the start and stop token of codes
    are the last ids of their vocabularies (255; 8192 and 8193), the defaults of `UnifiedVoice`.

    Args:
        original: the state dict in `autoregressive.pth`, of tortoise-tts' `models/autoregressive.py`.
        source: the file's name, for errors.
        heads: of every attention; None: width // 64.

    Raises:
        UserError: the state dict is of another model, or the heads do not divide its width.
    """
    required = [("conditioning_encoder.init.weight", 3), ("text_embedding.weight", 2), ("mel_embedding.weight", 2)]
    required += [("text_pos_embedding.emb.weight", 2), ("mel_pos_embedding.emb.weight", 2)]
    shapes = _shapes(original, required, NO_AR.format(source))
    (_, num_mels, _), (text_rows, _), (vocab_size, width), (text_positions, _), (speech_positions, _) = shapes
    heads = max(1, width // HEAD_WIDTH) if heads is None else heads
    if heads < 1 or width % heads:
        raise UserError(f"tortoise.heads={heads}: not a divisor of the width {width} of {source}. Use a divisor.")
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
            "max_text_tokens": text_positions,
            "max_position_embeddings": speech_positions,
        },
    )


def from_original(
    original: dict[str, torch.Tensor], expected: Iterable[str], heads: int, source: str
) -> dict[str, torch.Tensor]:
    """Converts a state dict of `UnifiedVoice` to one of `AutoRegressive`.

    Args:
        original: see `original_config`.
        expected: the keys of the AR's state dict.
        heads: of every attention.
        source: the file's name, for errors.

    Raises:
        UserError: a key is missing or unknown.
    """
    names = {key: original_key(key) for key in expected}
    _check(original, names.values(), UNUSED, NO_AR.format(source))
    return {ours: _convert(ours, original[theirs], heads) for ours, theirs in names.items()}


def original_dvae_config(original: dict[str, torch.Tensor], source: str) -> DVAEConfig:
    """Derives the configuration of a DVAE from a state dict of DL-Art-School's `lucidrains_dvae`, one-dimensional, without
    transposed convolutions, and with `Quantize` as codebook.

    Raises:
        UserError: the state dict is of another model.
    """
    required = [("encoder.0.0.weight", 3), ("codebook.embed", 2)]
    shapes = _shapes(original, required, NO_DVAE.format(source))
    (hidden_dim, num_mels, kernel_size), (codebook_dim, num_tokens) = shapes
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
    """Returns the state dict of `DiscreteVAE`: the same keys, without those of training. Raises as `from_original`."""
    keys = list(expected)
    _check(original, keys, DVAE_UNUSED, NO_DVAE.format(source))
    return {key: original[key] for key in keys}


def original_key(key: str) -> str:
    """tortoise-tts' name for a weight of `AutoRegressive`."""
    for pattern, theirs in KEY_PATTERNS.items():
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
    # ordered by head there, each with its query, key and value
    part = "qkv".index(key.rsplit(".", 2)[1][0])
    return tensor.unflatten(0, (heads, 3, -1))[:, part].flatten(0, 1)


def _shapes(original: dict[str, torch.Tensor], required: list[tuple[str, int]], complaint: str) -> list[torch.Size]:
    """The shapes of these keys, each of which must have this number of dimensions."""
    check_keys(complaint, [key for key, _ in required if key not in original], [], ADVICE)
    for key, dimensions in required:
        if original[key].ndim != dimensions:
            raise UserError(f"{complaint}: {key} has shape {tuple(original[key].shape)}. {ADVICE}")
    return [original[key].shape for key, _ in required]


def _check(original: dict[str, torch.Tensor], needed: Iterable[str], unused: tuple[str, ...], complaint: str) -> None:
    needed = set(needed)
    others = original.keys() - needed
    unknown = sorted(key for key in others if not any(re.search(pattern, key) for pattern in unused))
    check_keys(complaint, sorted(needed - original.keys()), unknown, ADVICE)


def _count(state: dict[str, torch.Tensor], pattern: str) -> int:
    return len({match[1] for key in state if (match := re.search(pattern, key))})
