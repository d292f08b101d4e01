"""Opens a finished training run: the model, the settings of its training, and the report of its weights."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clvp_train.errors import UserError
from clvp_train.io import CHECKPOINTS, MODEL, REPORT
from clvp_train.io.digests import check_digests
from clvp_train.metrics import read_score_table
from clvp_train.models import CLVPModel, load_clvp, resolve_checkpoint, weights_digest
from clvp_train.report import MARKDOWN_FILE, PAGE_FILE, read_metrics

TRAINING_CONFIG = "training_config.yaml"  # in the folder of the model


@dataclass(frozen=True)
class Trained:
    """A model to publish."""

    folder: Path  # written by `save_pretrained`, with tokenizer, score table and training config
    report: Path
    settings: dict[str, Any]  # of the training; {} if they are not known
    model: CLVPModel
    metrics: dict[str, Any]


def find_trained(checkpoint: str | Path, report: str | Path | None = None) -> Trained:
    """Opens the model to publish.

    Args:
        checkpoint: a run folder, or its `model/`.
        report: a folder that `evaluate.py` wrote for this model; None: the report of the run.

    Raises:
        UserError: there is no model, the training is not finished, a file is damaged, or the report is missing or of other
            weights.
    """
    path = Path(checkpoint).expanduser()
    if path.suffix == ".ckpt" or ((path / CHECKPOINTS).is_dir() and not (path / MODEL).is_dir()):
        raise UserError(
            f"checkpoint={checkpoint}: the training is not finished. Finish it with python train.py resume=RUN, which writes "
            "the best model to RUN/model, and set checkpoint=RUN."
        )
    folder = path / MODEL if (path / MODEL).is_dir() else path
    if not (folder / "config.json").is_file():
        raise UserError(
            f"checkpoint={checkpoint}: no trained model there. Use a run folder of train.py, or its model/."
        )
    if not (folder / "tokenizer_config.json").is_file():
        raise UserError(f"{folder}: no tokenizer there. Copy the files of its Tortoise's tokenizer into the folder.")
    check_digests(folder)
    read_score_table(folder)  # raises for a damaged one
    settings, model = read_settings(settings_file(folder)), load_clvp(folder)
    report_folder = Path(report).expanduser() if report else folder.parent / REPORT
    advice = f"Run python evaluate.py checkpoint={folder} and set report=…/report to its result."
    try:
        metrics = read_metrics(report_folder)
        for name in (PAGE_FILE, MARKDOWN_FILE):
            if not (report_folder / name).read_text(encoding="utf-8").strip():
                raise ValueError(f"{name} is empty")
    except (OSError, ValueError) as error:
        raise UserError(f"{report_folder}: no report there ({error}). {advice}") from None
    check_digests(report_folder)
    if metrics.get("weights") != weights_digest(model):  # a card must not claim the results of another model
        raise UserError(f"{report_folder}: the report is of other weights than {folder}. {advice}")
    return Trained(folder, report_folder, settings, model, metrics)


def run_of(checkpoint: str | Path) -> Path:
    """The folder of the run that a checkpoint is in, if it is in one: RUN/checkpoints/NAME.ckpt or RUN/model."""
    folder = Path(checkpoint).expanduser().parent
    return folder.parent if folder.name == CHECKPOINTS else folder


def settings_file(checkpoint: str | Path) -> Path | None:
    """The settings of the training that a checkpoint is from: in RUN/model, or in the folder with its weights.

    Args:
        checkpoint: a .ckpt, a folder, a Hub id, or a clvp2.pth.

    Returns:
        None if there are none, or no such checkpoint.
    """
    try:
        path = resolve_checkpoint(checkpoint)
    except UserError:
        return None  # reported when it is loaded
    if path.parent.name == CHECKPOINTS:
        folder = run_of(path) / MODEL
    else:
        folder = path if path.is_dir() else path.parent
    return file if (file := folder / TRAINING_CONFIG).is_file() else None


def read_settings(file: Path | None) -> dict[str, Any]:
    """The settings of a training; {} without a file. Raises UserError if it is damaged."""
    if file is None:
        return {}
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("no settings")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: damaged ({reason}). Restore it, or delete it to publish without settings.") from None
    return settings


def describe(node: Any) -> str:
    """A setting in words: the class and the location of a config node, of each in a list or group of them; other values as they
    are."""
    if isinstance(node, list):
        return "[" + ", ".join(map(describe, node)) + "]"
    if not isinstance(node, dict):
        return "null" if node is None else str(node)
    if "_target_" not in node:
        return "{" + ", ".join(f"{key}: {describe(child)}" for key, child in node.items()) + "}"
    without_modules = re.sub(r"^([a-z_]\w*\.)+", "", str(node["_target_"]))
    location = next((f" {node[key]}" for key in ("path", "root", "name", "name_or_path", "folder") if key in node), "")
    return without_modules + location.replace("${paths.data}", "data")
