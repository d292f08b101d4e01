"""A Tortoise in a folder of transformers' composite Clvp format.

Two additions of this package: `dvae/` (config.json, model.safetensors), and `sampling.json` with other defaults than
tortoise-tts'.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import ClvpConfig, ClvpFeatureExtractor

from clvp_train.errors import UserError
from clvp_train.models.weight_files import read_weights, weight_files
from clvp_train.tortoise.autoregressive import AutoRegressive, Positions
from clvp_train.tortoise.composite import from_composite, to_composite
from clvp_train.tortoise.dvae import DiscreteVAE, DVAEConfig
from clvp_train.tortoise.parts import TortoiseParts, choose_sampling, fill
from clvp_train.tortoise.sampling import Sampling
from clvp_train.tortoise.tokenizer import read_tokenizer

CONFIG_FILE, SAMPLING_FILE, DVAE_FOLDER = "config.json", "sampling.json", "dvae"


def read_folder(folder: Path, positions: Positions, sampling: dict[str, Any]) -> TortoiseParts:
    """Opens a folder.

    Args:
        positions: see `AutoRegressive`.
        sampling: fields of `Sampling` to set otherwise than the folder does.

    Raises:
        UserError: no composite Clvp checkpoint, weights that do not fit, or an unknown setting.
    """
    autoregressive = AutoRegressive(_read_config(folder), positions)
    state = from_composite(read_weights(folder), autoregressive.state_dict().keys(), str(folder))
    fill(autoregressive, state, _misfit(folder))
    defaults = _read_json(folder / SAMPLING_FILE) if (folder / SAMPLING_FILE).exists() else {}
    return TortoiseParts(
        autoregressive=autoregressive,
        tokenizer=read_tokenizer(folder),
        feature_extractor=_read_feature_extractor(folder),
        dvae=_read_dvae(folder / DVAE_FOLDER) if (folder / DVAE_FOLDER).is_dir() else None,
        sampling=choose_sampling({**defaults, **sampling}, autoregressive),
    )


def write_folder(parts: TortoiseParts, folder: Path, dtype: torch.dtype) -> None:
    """Writes what `read_folder` opens, without CLVP encoders."""
    folder.mkdir(parents=True, exist_ok=True)
    parts.autoregressive.config.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    parts.feature_extractor.save_pretrained(folder)
    _write_weights(to_composite(parts.autoregressive.state_dict()), folder, dtype)
    defaults = {field.name: getattr(parts.sampling, field.name) for field in fields(Sampling)}
    _write_json(defaults, folder / SAMPLING_FILE)
    if parts.dvae is not None:
        (folder / DVAE_FOLDER).mkdir(exist_ok=True)
        _write_json(parts.dvae.config.to_dict(), folder / DVAE_FOLDER / CONFIG_FILE)
        _write_weights(parts.dvae.state_dict(), folder / DVAE_FOLDER, dtype)


def folder_files(folder: Path) -> list[Path]:
    """The files that shape what a Tortoise of this folder computes."""
    files = [*weight_files(folder), *sorted(folder.glob("*.json")), *sorted(folder.glob("merges.txt"))]
    return files + sorted((folder / DVAE_FOLDER).glob("*"))


def _read_config(folder: Path) -> ClvpConfig:
    file = folder / CONFIG_FILE
    if not file.exists():
        raise UserError(
            f"{folder} holds no config.json: give a folder in transformers' composite Clvp format, or one with tortoise-tts' "
            "autoregressive.pth"
        )
    kind = _read_json(file).get("model_type")
    if kind != "clvp":
        raise UserError(f"{file} describes a model of type {kind!r}, not a composite Clvp ('clvp') with an AR in it")
    return ClvpConfig.from_pretrained(folder)


def _read_feature_extractor(folder: Path) -> ClvpFeatureExtractor:
    try:
        return ClvpFeatureExtractor.from_pretrained(folder)
    except (OSError, TypeError, ValueError):
        raise UserError(f"{folder} holds no ClvpFeatureExtractor: copy its files beside the weights") from None


def _read_dvae(folder: Path) -> DiscreteVAE:
    file = folder / CONFIG_FILE
    try:
        dvae = DiscreteVAE(DVAEConfig(**_read_json(file)))
    except TypeError as error:
        raise UserError(f"{file} describes no DVAE: {error}") from None
    fill(dvae, read_weights(folder), _misfit(folder))
    return dvae


def _misfit(folder: Path) -> str:
    return f"{folder}: weights do not fit the config.json beside them"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): copy it again from where the checkpoint came from") from None


def _write_json(content: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")


def _write_weights(state: dict[str, torch.Tensor], folder: Path, dtype: torch.dtype) -> None:
    stored = {key: tensor.to(dtype).contiguous() for key, tensor in state.items()}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
