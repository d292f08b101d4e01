"""What a finished training left: the model, and the report that belongs to it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clvp_train.errors import UserError
from clvp_train.io import CHECKPOINTS, MODEL, REPORT
from clvp_train.models import CLVPModel, load_clvp, weights_digest
from clvp_train.report import METRICS_FILE

TRAINING_CONFIG = "training_config.yaml"  # beside the model


@dataclass(frozen=True)
class Trained:
    """A model to publish."""

    folder: Path  # of `save_pretrained`, with tokenizer, score table and training config
    report: Path
    model: CLVPModel
    metrics: dict[str, Any]


def find_trained(checkpoint: str | Path, report: str | Path | None = None) -> Trained:
    """Opens what shall be published.

    Args:
        checkpoint: a run folder, or its `model/`.
        report: a folder that `evaluate.py` wrote of this model; None: the run's own.

    Raises:
        UserError: nothing is there, the training is not finished, or the report is missing or of other weights.
    """
    path = Path(checkpoint).expanduser()
    if path.suffix == ".ckpt" or ((path / CHECKPOINTS).is_dir() and not (path / MODEL).is_dir()):
        raise UserError(
            f"checkpoint={checkpoint} is of a training under way: let it finish (python train.py resume=RUN), which writes the "
            "best model into RUN/model, and give RUN"
        )
    folder = path / MODEL if (path / MODEL).is_dir() else path
    if not (folder / "config.json").is_file():
        raise UserError(f"checkpoint={checkpoint} holds no trained model: give a folder of train.py, or its model/")
    if not (folder / "tokenizer_config.json").is_file():
        raise UserError(f"{folder} holds no tokenizer: copy the one of its Tortoise there")
    model = load_clvp(folder)
    place = Path(report).expanduser() if report else folder.parent / REPORT
    try:
        metrics = json.loads((place / METRICS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{place} holds no report ({error}): write one with python evaluate.py checkpoint={folder}, and give its folder as "
            "report=…/report"
        ) from None
    if metrics.get("weights") != weights_digest(model):
        raise UserError(
            f"the report in {place} is of other weights than {folder}, and a card would tell what is not true: judge these "
            f"with python evaluate.py checkpoint={folder}, and give its folder as report=…/report"
        )
    return Trained(folder, place, model, metrics)
