"""Our keys <-> those of transformers' composite `Clvp`, autoregressive model and encoders in one checkpoint.

Source: `models/clvp/modeling_clvp.py` of transformers 5.23.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, ClvpConfig, PreTrainedModel
from transformers.utils import cached_file

from clvp_train.models.conversion import HALVES, check_fields, inverse_frequency, pop_rotary, rename
from clvp_train.models.convert_tortoise import tortoise_names
from clvp_train.models.weight_files import read_weights, resolve_folder

TRANSFORMERS_ROTARY = {half: f"{half}_encoder_model.rotary_pos_emb.inv_freq" for half in HALVES}
# Of the composite checkpoint, what belongs to the autoregressive model and is no part of the scorer.
AUTOREGRESSIVE_PREFIXES = ("conditioning_encoder.", "speech_decoder_model.")
NO_EPS = 1e-12
TRANSFORMERS_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps", "attention_dropout", "dropout", "use_attention_bias", "use_rotary_embedding"),
    *("summary_type", "initializer_factor", "pad_token_id", "bos_token_id", "eos_token_id"),
)


def _transformers_name(ours: str) -> str:
    """transformers' name of one of our weights: inside a half it kept the same names."""
    ours = re.sub(r"^(text|speech)_projection\.", r"\1_encoder_model.projection.", ours)
    return re.sub(r"^(text|speech)_model\.", r"\1_encoder_model.", ours)


def _transformers_rotary_dim(config: Any) -> int:
    # From the width of the projection, not from that of a head.
    return max(config.projection_dim // (2 * config.num_attention_heads), 32)


def read_transformers(
    name_or_path: str | os.PathLike[str], **hub_kwargs: Any
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields of a `CLVPConfig`, and the weights under our names, of transformers' composite checkpoint.

    Raises:
        ValueError: the checkpoint holds something else; the message names it and the keys.
    """
    source = str(name_or_path)
    theirs = AutoConfig.from_pretrained(source, **hub_kwargs)
    if theirs.model_type != "clvp":
        raise ValueError(f"{source} has model_type {theirs.model_type!r}: expected transformers' composite 'clvp'.")
    weights = _read_weights(source, hub_kwargs)
    config: dict[str, Any] = {"padding": "mask", "logit_scale_init_value": theirs.logit_scale_init_value}
    for half in HALVES:
        encoder = getattr(theirs, f"{half}_config")
        stored = pop_rotary(source, weights, TRANSFORMERS_ROTARY[half])
        by_rule = _transformers_rotary_dim(encoder) if encoder.use_rotary_embedding else None
        config[f"{half}_config"] = {field: getattr(encoder, field) for field in TRANSFORMERS_FIELDS} | {
            "rotary_dim": stored or by_rule,
            "rms_norm": "transformers",
        }
    return config, rename(source, weights, {_transformers_name(name): name for name in _expected_names(config)})


def _expected_names(config: dict[str, Any]) -> list[str]:
    """Our names of every weight of a CLVP with these fields."""
    depths = {half: config[f"{half}_config"]["num_hidden_layers"] for half in HALVES}
    names = list(tortoise_names(depths).values())
    biased = tuple(f"{half}_model" for half in HALVES if config[f"{half}_config"]["use_attention_bias"])
    names += [
        re.sub(r"weight$", "bias", name)
        for name in names
        if biased and name.startswith(biased) and re.search(r"[qkv]_proj\.weight$", name)
    ]
    return names


def transformers_state_dict(model: PreTrainedModel) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """The encoders and the scale of a `CLVPModel` for transformers' composite `Clvp`.

    tortoise-tts' norm has no eps to speak of, transformers' takes that of the LayerNorm at the end: it becomes
    `NO_EPS` in both. That changes the LayerNorm by 5e-6 over the variance of what it gets.

    Returns:
        Fields of `ClvpEncoderConfig` for "text_config" and "speech_config", and the weights under transformers' names,
        in float32 on the CPU.

    Raises:
        ValueError: the model has another shape of heads than transformers' encoders; the message names the fields.
    """
    state = {_transformers_name(key): _plain(value) for key, value in model.state_dict().items()}
    wanted: dict[str, dict[str, Any]] = {}
    fields: dict[str, dict[str, Any]] = {}
    for half in HALVES:
        config = getattr(model.config, f"{half}_config")
        wanted[half] = {"head_dim": config.hidden_size // config.num_attention_heads}
        if config.use_rotary_embedding:
            wanted[half]["rotary_dim"] = _transformers_rotary_dim(config)
            state[TRANSFORMERS_ROTARY[half]] = inverse_frequency(_transformers_rotary_dim(config))
        fields[f"{half}_config"] = {field: getattr(config, field) for field in TRANSFORMERS_FIELDS}
        if config.rms_norm == "tortoise":
            fields[f"{half}_config"]["layer_norm_eps"] = NO_EPS
    check_fields("transformers' Clvp", model, wanted)
    return fields, state


def write_transformers(
    model: PreTrainedModel, folder: str | os.PathLike[str], base: str | os.PathLike[str], **hub_kwargs: Any
) -> None:
    """Write the composite checkpoint `base`, its autoregressive model, tokenizer and all, with the encoders of a
    `CLVPModel` in place of its own, in float32.

    Raises:
        ValueError: `base` has no autoregressive model, or one of other vocabularies, or is `folder` itself; or as
            `transformers_state_dict` does. Nothing is written then.
        UserError: `base` is nowhere, or cannot be read.
    """
    source, target = resolve_folder(str(base), **hub_kwargs), Path(folder)
    if target.resolve() == source.resolve():
        raise ValueError(f"{folder} is the base itself: give another folder to write to.")
    fields, state = transformers_state_dict(model)
    config = AutoConfig.from_pretrained(source)
    if config.model_type != "clvp":
        raise ValueError(f"{base} has model_type {config.model_type!r}: expected transformers' composite 'clvp'.")
    for half in HALVES:
        has, needed = (
            c.vocab_size for c in (getattr(config, f"{half}_config"), getattr(model.config, f"{half}_config"))
        )
        if has != needed:
            raise ValueError(
                f"{base} has {has} {half} tokens and this CLVP {needed}: give the Tortoise it was trained with."
            )
    autoregressive = {
        key: _plain(value) for key, value in read_weights(source).items() if key.startswith(AUTOREGRESSIVE_PREFIXES)
    }
    if not all(any(key.startswith(prefix) for key in autoregressive) for prefix in AUTOREGRESSIVE_PREFIXES):
        raise ValueError(
            f"{base} has no autoregressive model: give a whole transformers Clvp, such as susnato/clvp_dev."
        )
    described = config.to_dict() | {"dtype": "float32", "projection_dim": model.config.projection_dim}
    for name, values in fields.items():
        described[name] = described[name] | values
    shutil.copytree(source, target, ignore=_weights_and_hidden(source), dirs_exist_ok=True)
    ClvpConfig.from_dict(described).save_pretrained(target)
    partial = target / "model.safetensors.partial"
    save_file(autoregressive | state, partial, metadata={"format": "pt"})
    partial.replace(target / "model.safetensors")


def _weights_and_hidden(source: Path) -> Callable[[str, list[str]], list[str]]:
    """What `shutil.copytree` shall leave out: the weights right below `source`, and hidden files."""
    weights = ("*.safetensors", "*.bin", "*.index.json", ".*")

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder) == source and any(fnmatch(name, pattern) for pattern in weights)]

    return ignored


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().float().contiguous()


def _read_weights(source: str, hub_kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Every tensor of a folder or a Hub id but the autoregressive model's, sharded or not."""

    def find(name: str) -> str | None:
        options = {"_raise_exceptions_for_missing_entries": False} | hub_kwargs
        return cached_file(source, name, **options)

    for name in ("model.safetensors", "pytorch_model.bin"):
        single, index = find(name), find(f"{name}.index.json")
        if single is None and index is None:
            continue
        files = [single]
        if single is None:
            with open(str(index)) as stream:
                files = [find(shard) for shard in sorted(set(json.load(stream)["weight_map"].values()))]
        weights: dict[str, Tensor] = {}
        for file in files:
            if file is None:
                raise ValueError(f"{source}: a shard that {index} names is not there.")
            weights |= _read_file(file)
        return weights
    raise ValueError(f"{source} has neither model.safetensors nor pytorch_model.bin.")


def _read_file(path: str) -> dict[str, Tensor]:
    if os.fspath(path).endswith(".safetensors"):
        with safe_open(path, "pt") as stream:
            keys = [key for key in stream.keys() if not key.startswith(AUTOREGRESSIVE_PREFIXES)]  # noqa: SIM118
            return {key: stream.get_tensor(key) for key in keys}
    weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return {key: value.clone() for key, value in weights.items() if not key.startswith(AUTOREGRESSIVE_PREFIXES)}
