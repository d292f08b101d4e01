"""Converts between the state-dict keys of `CLVPModel` and those of tortoise-tts' `clvp2.pth`.

Source: `tortoise/models/clvp.py`, `xtransformers.py` and `arch_util.py` of tortoise-tts 3.0.0. The functions at the top are
shared with `convert_transformers.py`.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from clvp_train.models.configuration_clvp import MAX_LAYERS
from clvp_train.models.weight_files import load_tensors

logger = logging.getLogger(__name__)

TOWERS = ("text", "speech")
TORTOISE_HEAD_DIM = 64
# stored there, computed from the config here
TORTOISE_ROTARY = {tower: f"{tower}_transformer.transformer.attn_layers.rotary_pos_emb.inv_freq" for tower in TOWERS}
# what tortoise-tts' `CLVP` always is, besides `intermediate_size` = 2 * `hidden_size`
TORTOISE_FIELDS = {
    "head_dim": TORTOISE_HEAD_DIM,
    "rotary_dim": TORTOISE_HEAD_DIM // 2,
    "rms_norm": "tortoise",
    "summary_type": "mean",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "use_attention_bias": False,
    "use_rotary_embedding": True,
}


def inverse_frequency(rotary_dim: int) -> Tensor:
    """The (rotary_dim / 2,) rotary frequencies of base 10000."""
    return 1.0 / (10000 ** (torch.arange(0, rotary_dim, 2).float() / rotary_dim))


def tower_configs(model: PreTrainedModel) -> dict[str, Any]:
    """The configuration of each tower of a `CLVPModel`, by its name."""
    return {tower: getattr(model.config, f"{tower}_config") for tower in TOWERS}


def rename(source: Any, weights: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Returns `weights` under the keys of `CLVPModel`.

    Args:
        names: the key in `weights` -> the key of `CLVPModel`.

    Raises:
        ValueError: `names` and `weights` have different keys.
    """
    missing, unexpected = sorted(names.keys() - weights.keys()), sorted(weights.keys() - names.keys())
    if missing or unexpected:
        raise ValueError(f"{source}: not a CLVP of the expected layout. Missing: {missing}. Unexpected: {unexpected}.")
    return {ours: weights[theirs] for theirs, ours in names.items()}


def pop_rotary(source: Any, weights: dict[str, Tensor], key: str) -> int | None:
    """Removes the rotary frequencies from `weights` and returns their rotary_dim, or None if they are not stored.

    Raises:
        ValueError: they differ from the frequencies that this package computes.
    """
    stored = weights.pop(key, None)
    if stored is None:
        return None
    width = 2 * len(stored)
    if not torch.allclose(stored.float(), inverse_frequency(width), rtol=1e-2 if stored.dtype.itemsize < 4 else 1e-5):
        raise ValueError(f"{source}: {key} does not hold the rotary frequencies of base 10000: {stored.tolist()}.")
    return width


def check_fields(target: str, model: PreTrainedModel, required: dict[str, dict[str, Any]]) -> None:
    """Raises ValueError if a tower's configuration differs from what `target` requires of it."""
    misfits = [
        f"{tower}_config.{field} is {value!r} and must be {required[tower][field]!r}"
        for tower, config in tower_configs(model).items()
        for field in required[tower]
        if (value := getattr(config, field)) != required[tower][field]
    ]
    if misfits:
        raise ValueError(f"{target} does not support this CLVP: {'; '.join(misfits)}.")


def tortoise_names(depths: dict[str, int]) -> dict[str, str]:
    """The key in `clvp2.pth` -> the key of `CLVPModel`, for every weight; `depths` is the number of layers per tower."""
    names = {"temperature": "logit_scale"}
    for tower in TOWERS:
        ours, theirs = f"{tower}_model", f"{tower}_transformer.transformer"
        names[f"{tower}_emb.weight"] = f"{ours}.token_embedding.weight"
        names[f"to_{tower}_latent.weight"] = f"{tower}_projection.weight"
        for kind in ("weight", "bias"):
            names[f"{theirs}.norm.{kind}"] = f"{ours}.final_layer_norm.{kind}"
        for index in range(depths[tower]):
            layer = f"{ours}.layers.{index}"
            attention, feed_forward = (f"{theirs}.attn_layers.layers.{2 * index + branch}" for branch in (0, 1))
            names[f"{attention}.0.0.g"] = f"{layer}.input_rmsnorm.weight"
            names[f"{feed_forward}.0.0.g"] = f"{layer}.post_attention_rmsnorm.weight"
            for projection in "qkv":
                names[f"{attention}.1.wrap.to_{projection}.weight"] = f"{layer}.self_attn.{projection}_proj.weight"
            for kind in ("weight", "bias"):
                names[f"{attention}.1.wrap.to_out.{kind}"] = f"{layer}.self_attn.out_proj.{kind}"
                names[f"{feed_forward}.1.wrap.net.0.proj.{kind}"] = f"{layer}.mlp.fc1.proj.{kind}"
                names[f"{feed_forward}.1.wrap.net.3.{kind}"] = f"{layer}.mlp.fc2.{kind}"
    return names


def read_tortoise(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the fields of a `CLVPConfig` and the state dict of a `CLVPModel` for a tortoise-tts checkpoint.

    Raises:
        ValueError: the file holds something else; the message names the file and the keys.
    """
    try:
        weights = load_tensors(path)
    except Exception as error:  # what the unpickler raises depends on the bytes
        raise ValueError(f"{path}: not a file of weights that torch can load safely: {error}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path}: not a state dict. Expected the names and tensors of tortoise-tts' clvp2.pth.")
    weights = dict(weights)
    depths = {}
    for tower in TOWERS:
        layer = re.compile(rf"{tower}_transformer\.transformer\.attn_layers\.layers\.(\d+)\.")
        depths[tower] = max((int(match[1]) // 2 + 1 for match in map(layer.match, weights) if match), default=1)
    if max(depths.values()) > MAX_LAYERS:
        raise ValueError(f"{path}: {max(depths.values())} layers, more than {MAX_LAYERS}.")
    rotary = {tower: pop_rotary(path, weights, key) for tower, key in TORTOISE_ROTARY.items()}
    ours = rename(path, weights, tortoise_names(depths))
    absent = [TORTOISE_ROTARY[tower] for tower in TOWERS if rotary[tower] is None]
    if absent:
        raise ValueError(f"{path}: not a CLVP of the expected layout. Missing: {absent}. Unexpected: [].")
    config: dict[str, Any] = {"padding": "tortoise"}
    for tower in TOWERS:
        vocabulary, width = ours[f"{tower}_model.token_embedding.weight"].shape
        config[f"{tower}_config"] = {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": ours[f"{tower}_model.layers.0.mlp.fc2.weight"].shape[1],
            "projection_dim": len(ours[f"{tower}_projection.weight"]),
            "num_hidden_layers": depths[tower],
            "num_attention_heads": len(ours[f"{tower}_model.layers.0.self_attn.q_proj.weight"]) // TORTOISE_HEAD_DIM,
            "head_dim": TORTOISE_HEAD_DIM,
            "rotary_dim": rotary[tower],
            "rms_norm": "tortoise",
        }
    return config, ours


def tortoise_state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """Returns the weights of a `CLVPModel` under tortoise-tts' names, on the CPU.

    Raises:
        ValueError: tortoise-tts' `CLVP` does not support this architecture; the message names the fields.
    """
    configs = tower_configs(model)
    sizes = {tower: {"intermediate_size": 2 * config.hidden_size} for tower, config in configs.items()}
    check_fields("tortoise-tts", model, {tower: TORTOISE_FIELDS | size for tower, size in sizes.items()})
    if model.config.padding != "tortoise":
        logger.warning("This CLVP has padding='mask' and tortoise-tts ignores masks: scores will differ there.")
    ours = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    names = tortoise_names({tower: config.num_hidden_layers for tower, config in configs.items()})
    state = {theirs: ours.pop(name) for theirs, name in names.items()}
    if ours:
        raise ValueError(f"tortoise-tts' CLVP does not have the weights {sorted(ours)}.")
    return state | {key: inverse_frequency(TORTOISE_HEAD_DIM // 2) for key in TORTOISE_ROTARY.values()}
