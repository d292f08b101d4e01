"""Our keys <-> those of tortoise-tts' `clvp2.pth`.

Source: `tortoise/models/clvp.py`, `xtransformers.py` and `arch_util.py` of tortoise-tts 3.0.0.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from clvp_train.models.conversion import HALVES, check_fields, inverse_frequency, pop_rotary, rename

logger = logging.getLogger(__name__)

TORTOISE_HEAD_DIM = 64
# stored there, computed from the config here
TORTOISE_ROTARY = {half: f"{half}_transformer.transformer.attn_layers.rotary_pos_emb.inv_freq" for half in HALVES}


def tortoise_names(depths: dict[str, int]) -> dict[str, str]:
    """tortoise-tts' name -> ours, of every weight; `depths` says how many layers each half has."""
    names = {"temperature": "logit_scale"}
    for half in HALVES:
        ours, theirs = f"{half}_model", f"{half}_transformer.transformer"
        names[f"{half}_emb.weight"] = f"{ours}.token_embedding.weight"
        names[f"to_{half}_latent.weight"] = f"{half}_projection.weight"
        for kind in ("weight", "bias"):
            names[f"{theirs}.norm.{kind}"] = f"{ours}.final_layer_norm.{kind}"
        for index in range(depths[half]):
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
    """Fields of a `CLVPConfig`, and the weights under our names, of a tortoise-tts checkpoint.

    Raises:
        ValueError: the file holds something else; the message names it and the keys.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a file of weights that torch can load safely: {error}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds no state dict: expected the names and tensors of tortoise-tts' clvp2.pth.")
    weights = dict(weights)
    depths = {}
    for half in HALVES:
        found = [re.match(rf"{half}_transformer\.transformer\.attn_layers\.layers\.(\d+)\.", key) for key in weights]
        depths[half] = max([int(match[1]) // 2 + 1 for match in found if match], default=1)
    rotary = {half: pop_rotary(path, weights, key) for half, key in TORTOISE_ROTARY.items()}
    ours = rename(path, weights, tortoise_names(depths))
    absent = [TORTOISE_ROTARY[half] for half in HALVES if rotary[half] is None]
    if absent:
        raise ValueError(f"{path} is not a CLVP of the expected layout. Missing: {absent}. Unexpected: [].")
    config: dict[str, Any] = {"padding": "tortoise"}
    for half in HALVES:
        vocabulary, width = ours[f"{half}_model.token_embedding.weight"].shape
        config[f"{half}_config"] = {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": ours[f"{half}_model.layers.0.mlp.fc2.weight"].shape[1],
            "projection_dim": len(ours[f"{half}_projection.weight"]),
            "num_hidden_layers": depths[half],
            "num_attention_heads": len(ours[f"{half}_model.layers.0.self_attn.q_proj.weight"]) // TORTOISE_HEAD_DIM,
            "head_dim": TORTOISE_HEAD_DIM,
            "rotary_dim": rotary[half],
            "rms_norm": "tortoise",
        }
    return config, ours


def tortoise_state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of a `CLVPModel` under tortoise-tts' names, on the CPU.

    Raises:
        ValueError: tortoise-tts' `CLVP` cannot be built to compute the same; the message names the fields.
    """
    wanted = {
        "head_dim": TORTOISE_HEAD_DIM,
        "rotary_dim": TORTOISE_HEAD_DIM // 2,
        "rms_norm": "tortoise",
        "summary_type": "mean",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_attention_bias": False,
        "use_rotary_embedding": True,
    }
    widths = {half: getattr(model.config, f"{half}_config").hidden_size for half in HALVES}
    check_fields("tortoise-tts", model, {half: wanted | {"intermediate_size": 2 * widths[half]} for half in HALVES})
    if model.config.padding != "tortoise":
        logger.warning("tortoise-tts ignores masks, and this CLVP has padding='mask': expect it to score differently.")
    depths = {half: getattr(model.config, f"{half}_config").num_hidden_layers for half in HALVES}
    ours = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    state = {theirs: ours.pop(name) for theirs, name in tortoise_names(depths).items()}
    if ours:
        raise ValueError(f"Weights that tortoise-tts' CLVP has no place for: {sorted(ours)}.")
    return state | {key: inverse_frequency(TORTOISE_HEAD_DIM // 2) for key in TORTOISE_ROTARY.values()}


def write_tortoise(model: PreTrainedModel, path: str | os.PathLike[str]) -> None:
    """Write what `tortoise_state_dict` gives; raises as it does."""
    torch.save(tortoise_state_dict(model), path)
