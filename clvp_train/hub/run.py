"""Opens a finished training run: the model and the report of its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clvp_train.errors import UserError
from clvp_train.io import CHECKPOINTS, MODEL, REPORT
from clvp_train.io.digests import check_digests
from clvp_train.metrics import read_score_table
from clvp_train.models import CLVPModel, load_clvp, weights_digest
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
    settings, model = read_settings(folder / TRAINING_CONFIG), load_clvp(folder)
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


def read_settings(file: Path) -> dict[str, Any]:
    """The settings of a training; {} if the file does not exist. Raises UserError if it is damaged."""
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("no settings")
    except (FileNotFoundError, NotADirectoryError):  # the model may be a single file
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: damaged ({reason}). Restore it, or delete it to publish without settings.") from None
    return settings
