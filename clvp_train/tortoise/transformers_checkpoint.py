"""Reads and writes a Tortoise in a folder in transformers' composite Clvp format. The only module that knows its AR's
state-dict keys.

This package adds `dvae/` (config.json, model.safetensors), and `sampling.json` for defaults other than tortoise-tts'.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import ClvpConfig, ClvpFeatureExtractor

from clvp_train.errors import UserError
from clvp_train.io.digests import check_digests, read_sealed_json, recording_digests
from clvp_train.models.configuration_clvp import MAX_LAYERS
from clvp_train.models.weight_files import read_weights, weight_files
from clvp_train.tortoise.autoregressive import AutoRegressive, Positions
from clvp_train.tortoise.dvae import CONFIG_FILE, DVAE_FOLDER, DiscreteVAE, DVAEConfig
from clvp_train.tortoise.parts import TortoiseParts, check_keys, load_weights, make_sampling
from clvp_train.tortoise.tokenizer import read_saved_tokenizer

SAMPLING_FILE = "sampling.json"
CLVP_PREFIXES = ("text_encoder_model.", "speech_encoder_model.", "logit_scale")  # read by `clvp_train.models`
# start of a key of `AutoRegressive` -> start of transformers' key; outside of the blocks, and inside a block
NAMES = {
    "text_embedding.": "conditioning_encoder.text_token_embedding.",
    "text_position.": "conditioning_encoder.text_position_embedding.",
    "speech_embedding.": "speech_decoder_model.model.decoder.input_embeds_layer.",
    "speech_position.": "speech_decoder_model.model.decoder.position_embeds_layer.",
    "layer_norm.": "speech_decoder_model.model.decoder.layer_norm.",
    "final_norm.": "speech_decoder_model.final_norm.",
    "head.": "speech_decoder_model.lm_head.",
}
BLOCK_NAMES = {"ln_1.": "input_layernorm.", "ln_2.": "post_attention_layernorm.", "attn.c_proj.": "attn.out_proj."}
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight")  # GPT-2's Conv1D; Clvp has linear layers there


def read_folder(folder: Path, positions: Positions, sampling: dict[str, Any]) -> TortoiseParts:
    """Reads a folder.

    Args:
        positions: see `AutoRegressive`.
        sampling: fields of `Sampling` that override those of the folder; None leaves one unchanged.

    Raises:
        UserError: not a composite Clvp checkpoint, a damaged file, weights that do not fit, or an unknown setting.
    """
    check_digests(folder)
    autoregressive = AutoRegressive(_read_config(folder), positions)
    state = from_composite(read_weights(folder), autoregressive.state_dict().keys(), str(folder))
    load_weights(autoregressive, state, _misfit(folder))
    defaults = _read_json(folder / SAMPLING_FILE) if (folder / SAMPLING_FILE).exists() else {}
    return TortoiseParts(
        autoregressive=autoregressive,
        tokenizer=read_saved_tokenizer(folder),
        feature_extractor=_read_feature_extractor(folder),
        dvae=_read_dvae(folder / DVAE_FOLDER) if (folder / DVAE_FOLDER).is_dir() else None,
        sampling=make_sampling(autoregressive, defaults, sampling),
    )


def _read_config(folder: Path) -> ClvpConfig:
    file = folder / CONFIG_FILE
    if not file.exists():
        raise UserError(
            f"{folder}: no config.json. Use a folder in transformers' composite Clvp format, or one with tortoise-tts' "
            "autoregressive.pth."
        )
    kind = _read_json(file).get("model_type")
    if kind != "clvp":
        raise UserError(f"{file}: model_type {kind!r}. Use a composite Clvp ('clvp'), which includes an AR.")
    config = ClvpConfig.from_pretrained(folder)
    if config.decoder_config.num_hidden_layers > MAX_LAYERS:
        raise UserError(f"{file}: more than {MAX_LAYERS} layers. Copy it again from the original checkpoint.")
    return config


def _read_feature_extractor(folder: Path) -> ClvpFeatureExtractor:
    try:
        return ClvpFeatureExtractor.from_pretrained(folder)
    except Exception:  # what is raised depends on the content
        raise UserError(f"{folder}: no ClvpFeatureExtractor. Copy preprocessor_config.json there.") from None


def _read_dvae(folder: Path) -> DiscreteVAE:
    file = folder / CONFIG_FILE
    try:
        dvae = DiscreteVAE(DVAEConfig(**_read_json(file)))
    except TypeError as error:
        raise UserError(
            f"{file}: not a configuration of a DVAE ({error}). Copy it again from the original checkpoint."
        ) from None
    load_weights(dvae, read_weights(folder), _misfit(folder))
    return dvae


def _misfit(folder: Path) -> str:
    return f"{folder}: the weights do not match config.json"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return read_sealed_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}). Copy it again from the original checkpoint.") from None


def write_folder(parts: TortoiseParts, folder: Path, dtype: torch.dtype) -> None:
    """Writes a folder for `read_folder`, without CLVP encoders."""
    folder.mkdir(parents=True, exist_ok=True)
    with recording_digests(folder):
        _write_parts(parts, folder, dtype)


def _write_parts(parts: TortoiseParts, folder: Path, dtype: torch.dtype) -> None:
    parts.autoregressive.config.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    parts.feature_extractor.save_pretrained(folder)
    _write_weights(to_composite(parts.autoregressive.state_dict()), folder, dtype)
    (folder / SAMPLING_FILE).write_text(json.dumps(asdict(parts.sampling), indent=2) + "\n")
    if parts.dvae is not None:
        parts.dvae.save_pretrained(folder / DVAE_FOLDER, dtype)


def _write_weights(state: dict[str, torch.Tensor], folder: Path, dtype: torch.dtype) -> None:
    stored = {key: tensor.to(dtype).contiguous() for key, tensor in state.items()}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})


def folder_files(folder: Path) -> list[Path]:
    """The files of a folder that determine the output of its Tortoise."""
    files = [*weight_files(folder), *sorted(folder.glob("*.json")), *sorted(folder.glob("merges.txt"))]
    return files + sorted((folder / DVAE_FOLDER).glob("*"))


def composite_keys(key: str) -> list[str]:
    """transformers' keys for a key of `AutoRegressive`: three for the fused query, key and value, else one."""
    if not key.startswith("blocks."):
        return [_replace_start(key, NAMES)]
    _, layer, rest = key.split(".", 2)
    block = f"speech_decoder_model.model.decoder.layers.{layer}."
    if rest.startswith("attn.c_attn."):
        return [f"{block}attn.{part}_proj.{rest.rsplit('.', 1)[1]}" for part in "qkv"]
    return [block + _replace_start(rest, BLOCK_NAMES)]


def _replace_start(key: str, names: dict[str, str]) -> str:
    return next((theirs + key.removeprefix(ours) for ours, theirs in names.items() if key.startswith(ours)), key)


def from_composite(composite: dict[str, torch.Tensor], expected: Iterable[str], source: str) -> dict[str, torch.Tensor]:
    """Converts a composite state dict to one of `AutoRegressive`.

    Args:
        composite: transformers' keys, with or without the CLVP encoders.
        expected: the keys of the AR's state dict.
        source: the checkpoint's name, for errors.

    Raises:
        UserError: a key is missing or unknown.
    """
    names = {key: composite_keys(key) for key in expected}
    needed = {theirs for keys in names.values() for theirs in keys}
    # `attn.bias` is the causal mask that old versions of transformers stored
    unused = (key for key in composite if key.startswith(CLVP_PREFIXES) or key.endswith(".attn.bias"))
    unknown = sorted(composite.keys() - needed - set(unused))
    complaint = f"{source}: the weights are not those of the AR in config.json"
    advice = "Use a composite Clvp checkpoint as saved by transformers."
    check_keys(complaint, sorted(needed - composite.keys()), unknown, advice)
    joined = {key: torch.cat([composite[theirs] for theirs in keys]) for key, keys in names.items()}
    return {key: tensor.T.contiguous() if key.endswith(TRANSPOSED) else tensor for key, tensor in joined.items()}


def to_composite(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `from_composite`, without the CLVP encoders."""
    composite: dict[str, torch.Tensor] = {}
    for key, tensor in ours.items():
        keys = composite_keys(key)
        tensor = tensor.T if key.endswith(TRANSPOSED) else tensor
        composite |= {theirs: part.contiguous() for theirs, part in zip(keys, tensor.chunk(len(keys)))}
    return composite
