"""Exports a trained CLVP for tortoise-tts, for transformers, or as programs of torch.export."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch.nn.functional import normalize
from transformers import ClvpModelForConditionalGeneration

from clvp_train.errors import UserError
from clvp_train.io import atomic_write, write_text
from clvp_train.models import CLVPModel, load_clvp, resolve_checkpoint
from clvp_train.models.convert_tortoise import TOWERS
from clvp_train.models.export import (
    TOLERANCE,
    TORTOISE_FILE,
    Encode,
    encoders,
    export_programs,
    largest_difference,
)
from clvp_train.tortoise import CLVPProcessor

SETTINGS_FILE = "export.json"


def export(cfg: DictConfig) -> None:
    """Writes the model in a format, compares the scores of what was written with the model's, and prints the difference."""
    checkpoint, folder = resolve_checkpoint(cfg.checkpoint), Path(cfg.output_dir)
    if (cfg.base is None) == (cfg.format == "transformers"):
        problem = "must be set to a composite Clvp" if cfg.base is None else f"not used by format={cfg.format}"
        raise UserError(f"base={cfg.base}: {problem}. It provides the AR and the tokenizer of format=transformers.")
    if folder.resolve() == checkpoint.resolve():
        raise UserError(f"output_dir={folder}: the checkpoint itself. Set it to another folder.")
    model = load_clvp(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        written = FORMATS[cfg.format](model, folder, cfg.base)
    except ValueError as error:  # the format does not support this model
        raise UserError(f"format={cfg.format}: {error}") from None
    difference = largest_difference(model, written)
    if difference > TOLERANCE:
        raise RuntimeError(f"{folder}: scores differ by {difference:.1e} from those of {checkpoint}.")
    if cfg.format == "torch":
        _write_settings(model, checkpoint, folder)
    print(f"scores differ by at most {difference:.1e}\nexported: {folder}")


def _tortoise(model: CLVPModel, folder: Path, base: str | None) -> dict[str, Encode]:
    with atomic_write(folder / TORTOISE_FILE) as partial:
        model.save_tortoise(partial)
    return encoders(CLVPModel.from_tortoise(folder / TORTOISE_FILE))


def _transformers(model: CLVPModel, folder: Path, base: str | None) -> dict[str, Encode]:
    assert base is not None
    model.save_transformers(folder, base)
    served = ClvpModelForConditionalGeneration.from_pretrained(folder).eval()
    return {tower: _row_by_row(getattr(served, f"{tower}_encoder_model")) for tower in TOWERS}


def _row_by_row(encoder: torch.nn.Module) -> Encode:
    """An encoder of transformers, which pools over padding, on each row without its padding."""
    return lambda ids, mask: normalize(torch.cat([encoder(row[kept][None]).embeds for row, kept in zip(ids, mask)]))


def _torch(model: CLVPModel, folder: Path, base: str | None) -> dict[str, Encode]:
    return export_programs(model, folder)


def _write_settings(model: CLVPModel, checkpoint: Path, folder: Path) -> None:
    """Writes what the programs need around them: the scale and the padding, and the processor if the checkpoint has one."""
    config = model.config
    settings = {
        "logit_scale": model.logit_scale.exp().item(),
        "padding": config.padding,
        "text_tokens": config.text_config.vocab_size,
        "speech_tokens": config.speech_config.vocab_size,
    }
    write_text(folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")
    if (checkpoint / "tokenizer_config.json").exists():
        CLVPProcessor.from_pretrained(checkpoint).save_pretrained(folder)


FORMATS: dict[str, Callable[[CLVPModel, Path, str | None], dict[str, Encode]]] = {
    "tortoise": _tortoise,
    "transformers": _transformers,
    "torch": _torch,
}
