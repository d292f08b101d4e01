"""Converts between the state-dict keys of `CLVPModel` and those of transformers' composite `Clvp`, which holds the
autoregressive model and the CLVP encoders in one checkpoint.

Source: `models/clvp/modeling_clvp.py` of transformers 5.23.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, ClvpConfig, PreTrainedModel

from clvp_train.io import atomic_write
from clvp_train.io.digests import recording_digests
from clvp_train.models.convert_tortoise import (
    TOWERS,
    check_fields,
    inverse_frequency,
    pop_rotary,
    rename,
    tortoise_names,
    tower_configs,
)
from clvp_train.models.weight_files import read_weights, resolve_folder

TRANSFORMERS_ROTARY = {tower: f"{tower}_encoder_model.rotary_pos_emb.inv_freq" for tower in TOWERS}
# keys of the autoregressive model in the composite checkpoint
AUTOREGRESSIVE_PREFIXES = ("conditioning_encoder.", "speech_decoder_model.")
NO_EPS = 1e-12
TRANSFORMERS_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps", "attention_dropout", "dropout", "use_attention_bias", "use_rotary_embedding"),
    *("summary_type", "initializer_factor", "pad_token_id", "bos_token_id", "eos_token_id"),
)


def _transformers_name(ours: str) -> str:
    # inside a tower the names are the same
    return re.sub(r"^(text|speech)_(projection\.)?(model\.)?", r"\1_encoder_model.\2", ours)


def _transformers_rotary_dim(projection_dim: int, num_heads: int) -> int:
    # derived from the width of the projection, not from that of a head
    return max(projection_dim // (2 * num_heads), 32)


def _open_config(source: Path) -> Any:
    config = AutoConfig.from_pretrained(source)
    if config.model_type != "clvp":
        raise ValueError(f"{source}: model_type {config.model_type!r}. Expected transformers' composite 'clvp'.")
    return config


def read_transformers(
    name_or_path: str | os.PathLike[str], **hub_kwargs: Any
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the fields of a `CLVPConfig` and the state dict of a `CLVPModel` for transformers' composite checkpoint.

    Raises:
        ValueError: the checkpoint holds something else; the message names it and the keys.
        UserError: the checkpoint does not exist, cannot be read or has no weights.
    """
    source = resolve_folder(str(name_or_path), **hub_kwargs)
    theirs = _open_config(source)
    stored = read_weights(source)
    weights = {key: tensor for key, tensor in stored.items() if not key.startswith(AUTOREGRESSIVE_PREFIXES)}
    config: dict[str, Any] = {"padding": "mask", "logit_scale_init_value": theirs.logit_scale_init_value}
    for tower in TOWERS:
        encoder = getattr(theirs, f"{tower}_config")
        rotary_dim = pop_rotary(source, weights, TRANSFORMERS_ROTARY[tower])
        if rotary_dim is None and encoder.use_rotary_embedding:
            rotary_dim = _transformers_rotary_dim(encoder.projection_dim, encoder.num_attention_heads)
        fields = {field: getattr(encoder, field) for field in TRANSFORMERS_FIELDS}
        config[f"{tower}_config"] = fields | {"rotary_dim": rotary_dim, "rms_norm": "transformers"}
    return config, rename(source, weights, {_transformers_name(name): name for name in _expected_names(config)})


def _expected_names(config: dict[str, Any]) -> list[str]:
    """The keys of the state dict of a `CLVPModel` with these fields."""
    names = list(tortoise_names({tower: config[f"{tower}_config"]["num_hidden_layers"] for tower in TOWERS}).values())
    for tower in TOWERS:
        if config[f"{tower}_config"]["use_attention_bias"]:
            weight = re.compile(rf"^({tower}_model\..*[qkv]_proj\.)weight$")
            names += [weight.sub(r"\1bias", name) for name in names if weight.match(name)]
    return names


def transformers_state_dict(model: PreTrainedModel) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """Converts the encoders and the scale of a `CLVPModel` for transformers' composite `Clvp`.

    tortoise-tts' RMSNorm has practically no eps, while transformers' shares that of the final LayerNorm: both become
    `NO_EPS`. This changes the LayerNorm by 5e-6 divided by the variance of its input.

    Returns:
        Fields of `ClvpEncoderConfig` for "text_config" and "speech_config", and the weights under transformers' names,
        in float32 on the CPU.

    Raises:
        ValueError: transformers' encoders do not support the model's heads; the message names the fields.
    """
    state = {_transformers_name(key): _plain(value) for key, value in model.state_dict().items()}
    projection_dim = model.config.projection_dim
    required: dict[str, dict[str, Any]] = {}
    fields: dict[str, dict[str, Any]] = {}
    for tower, config in tower_configs(model).items():
        required[tower] = {"head_dim": config.hidden_size // config.num_attention_heads}
        if config.use_rotary_embedding:
            rotary_dim = _transformers_rotary_dim(projection_dim, config.num_attention_heads)
            required[tower]["rotary_dim"] = rotary_dim
            state[TRANSFORMERS_ROTARY[tower]] = inverse_frequency(rotary_dim)
        described = {field: getattr(config, field) for field in TRANSFORMERS_FIELDS}
        fields[f"{tower}_config"] = described | {"projection_dim": projection_dim}
        if config.rms_norm == "tortoise":
            fields[f"{tower}_config"]["layer_norm_eps"] = NO_EPS
    check_fields("transformers' Clvp", model, required)
    return fields, state


def write_transformers(
    model: PreTrainedModel, folder: str | os.PathLike[str], base: str | os.PathLike[str], **hub_kwargs: Any
) -> None:
    """Writes a copy of the composite checkpoint `base` with the encoders of a `CLVPModel`, in float32.

    The autoregressive model, the tokenizer and all other files are those of `base`.

    Raises:
        ValueError: `base` has no autoregressive model, has other vocabularies, or is `folder` itself; or as
            `transformers_state_dict` does. Nothing is written then.
        UserError: `base` does not exist or cannot be read.
    """
    source, target = resolve_folder(str(base), **hub_kwargs), Path(folder)
    if target.resolve() == source.resolve():
        raise ValueError(f"{folder} is the base itself. Choose another output folder.")
    fields, state = transformers_state_dict(model)
    config = _open_config(source)
    for tower, ours in tower_configs(model).items():
        theirs = getattr(config, f"{tower}_config")
        if theirs.vocab_size != ours.vocab_size:
            raise ValueError(
                f"{base} has {theirs.vocab_size} {tower} tokens and this CLVP {ours.vocab_size}. Use the Tortoise that it "
                "was trained with."
            )
    autoregressive = _read_autoregressive(source, base)
    described = config.to_dict() | {"dtype": "float32", "projection_dim": model.config.projection_dim}
    described |= {name: described[name] | values for name, values in fields.items()}

    # the base's own weights and hidden files; subfolders are copied completely
    others = shutil.ignore_patterns("*.safetensors", "*.bin", "*.index.json", ".*")

    def ignored(parent: str, names: list[str]) -> set[str]:
        return others(parent, names) if Path(parent) == source else set()

    with recording_digests(target):
        shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        ClvpConfig.from_dict(described).save_pretrained(target)
        with atomic_write(target / "model.safetensors") as partial:
            save_file(autoregressive | state, partial, metadata={"format": "pt"})


def _read_autoregressive(source: Path, base: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights of a composite checkpoint that are not the encoders'. Raises ValueError if there are none."""
    stored = read_weights(source)
    if not all(any(key.startswith(prefix) for key in stored) for prefix in AUTOREGRESSIVE_PREFIXES):
        raise ValueError(
            f"{base} has no autoregressive model. Use a complete transformers Clvp, such as susnato/clvp_dev."
        )
    return {key: _plain(value) for key, value in stored.items() if key.startswith(AUTOREGRESSIVE_PREFIXES)}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().float().contiguous()
