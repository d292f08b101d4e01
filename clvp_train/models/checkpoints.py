"""Our keys <-> those of tortoise-tts' `clvp2.pth` <-> those of transformers' composite `Clvp`.

The only file that knows foreign names. Sources: `tortoise/models/clvp.py`, `xtransformers.py` and `arch_util.py` of
tortoise-tts 3.0.0; `models/clvp/modeling_clvp.py` of transformers 5.23.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import cached_file

logger = logging.getLogger(__name__)

HALVES = ("text", "speech")
TORTOISE_HEAD_DIM = 64
# Both references store the rotary frequencies, which follow from the config here.
TORTOISE_ROTARY = {half: f"{half}_transformer.transformer.attn_layers.rotary_pos_emb.inv_freq" for half in HALVES}
TRANSFORMERS_ROTARY = {half: f"{half}_encoder_model.rotary_pos_emb.inv_freq" for half in HALVES}
# Of the composite checkpoint, what belongs to the autoregressive model and is no part of the scorer.
AUTOREGRESSIVE_PREFIXES = ("conditioning_encoder.", "speech_decoder_model.")
TRANSFORMERS_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps", "attention_dropout", "dropout", "use_attention_bias", "use_rotary_embedding"),
    *("summary_type", "initializer_factor", "pad_token_id", "bos_token_id", "eos_token_id"),
)


def _tortoise_names(depths: dict[str, int]) -> dict[str, str]:
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


def _transformers_name(ours: str) -> str:
    """transformers' name of one of our weights: inside a half it kept the same names."""
    ours = re.sub(r"^(text|speech)_projection\.", r"\1_encoder_model.projection.", ours)
    return re.sub(r"^(text|speech)_model\.", r"\1_encoder_model.", ours)


def _inverse_frequency(rotary_dim: int) -> Tensor:
    return 1.0 / (10000 ** (torch.arange(0, rotary_dim, 2).float() / rotary_dim))


def _transformers_rotary_dim(config: Any) -> int:
    # From the width of the projection, not from that of a head.
    return max(config.projection_dim // (2 * config.num_attention_heads), 32)


def _rename(source: Any, weights: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """`weights` under our names.

    Raises:
        ValueError: `names` and `weights` do not have the same keys.
    """
    missing, unexpected = sorted(names.keys() - weights.keys()), sorted(weights.keys() - names.keys())
    if missing or unexpected:
        raise ValueError(
            f"{source} is not a CLVP of the expected layout. Missing: {missing}. Unexpected: {unexpected}."
        )
    return {ours: weights[theirs] for theirs, ours in names.items()}


def _pop_rotary(source: Any, weights: dict[str, Tensor], key: str) -> int | None:
    """Take the rotary frequencies out of `weights`; the width they stand for, or None if they are not stored.

    Raises:
        ValueError: they are other frequencies than those this package computes.
    """
    stored = weights.pop(key, None)
    if stored is None:
        return None
    width = 2 * len(stored)
    if not torch.allclose(stored.float(), _inverse_frequency(width), rtol=1e-2 if stored.dtype.itemsize < 4 else 1e-5):
        raise ValueError(f"{source}: {key} does not hold the rotary frequencies of base 10000: {stored.tolist()}.")
    return width


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
    rotary = {half: _pop_rotary(path, weights, key) for half, key in TORTOISE_ROTARY.items()}
    ours = _rename(path, weights, _tortoise_names(depths))
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
    _check_fields("tortoise-tts", model, {half: wanted | {"intermediate_size": 2 * widths[half]} for half in HALVES})
    if model.config.padding != "tortoise":
        logger.warning("tortoise-tts ignores masks, and this CLVP has padding='mask': expect it to score differently.")
    depths = {half: getattr(model.config, f"{half}_config").num_hidden_layers for half in HALVES}
    ours = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    state = {theirs: ours.pop(name) for theirs, name in _tortoise_names(depths).items()}
    if ours:
        raise ValueError(f"Weights that tortoise-tts' CLVP has no place for: {sorted(ours)}.")
    return state | {key: _inverse_frequency(TORTOISE_HEAD_DIM // 2) for key in TORTOISE_ROTARY.values()}


def write_tortoise(model: PreTrainedModel, path: str | os.PathLike[str]) -> None:
    """Write what `tortoise_state_dict` gives; raises as it does."""
    torch.save(tortoise_state_dict(model), path)


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
        stored = _pop_rotary(source, weights, TRANSFORMERS_ROTARY[half])
        by_rule = _transformers_rotary_dim(encoder) if encoder.use_rotary_embedding else None
        config[f"{half}_config"] = {field: getattr(encoder, field) for field in TRANSFORMERS_FIELDS} | {
            "rotary_dim": stored or by_rule,
            "rms_norm": "transformers",
        }
    return config, _rename(source, weights, {_transformers_name(name): name for name in _expected_names(config)})


def _expected_names(config: dict[str, Any]) -> list[str]:
    """Our names of every weight of a CLVP with these fields."""
    depths = {half: config[f"{half}_config"]["num_hidden_layers"] for half in HALVES}
    names = list(_tortoise_names(depths).values())
    biased = tuple(f"{half}_model" for half in HALVES if config[f"{half}_config"]["use_attention_bias"])
    names += [
        re.sub(r"weight$", "bias", name)
        for name in names
        if biased and name.startswith(biased) and re.search(r"[qkv]_proj\.weight$", name)
    ]
    return names


def transformers_state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """The encoders and the scale of a `CLVPModel` under the names of transformers' composite `Clvp`, on the CPU.

    Raises:
        ValueError: the model has another norm or head width than transformers' encoders; the message names them.
    """
    state = {_transformers_name(key): value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    wanted: dict[str, dict[str, Any]] = {}
    for half in HALVES:
        config = getattr(model.config, f"{half}_config")
        wanted[half] = {"rms_norm": "transformers", "head_dim": config.hidden_size // config.num_attention_heads}
        if config.use_rotary_embedding:
            wanted[half]["rotary_dim"] = _transformers_rotary_dim(config)
            state[TRANSFORMERS_ROTARY[half]] = _inverse_frequency(_transformers_rotary_dim(config))
    _check_fields("transformers' Clvp", model, wanted)
    return state


def _check_fields(server: str, model: PreTrainedModel, wanted: dict[str, dict[str, Any]]) -> None:
    misfits = [
        f"{half}_config.{field} is {found!r} and must be {value!r}"
        for half, fields in wanted.items()
        for field, value in fields.items()
        if (found := getattr(getattr(model.config, f"{half}_config"), field)) != value
    ]
    if misfits:
        raise ValueError(f"{server} cannot serve this CLVP: {'; '.join(misfits)}.")


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
