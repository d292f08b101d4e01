"""The folder of a model as it lies on the Hub."""

import json
import shutil
from pathlib import Path

from clvp_train.hub.card import model_card
from clvp_train.hub.run import Trained
from clvp_train.hub.settings import HubConfig
from clvp_train.io import REPORT, write_text
from clvp_train.metrics import SCORE_TABLE_FILE
from clvp_train.pairs import CARD
from clvp_train.report import METRICS_FILE


def write_model_folder(trained: Trained, folder: Path, hub: HubConfig, repo_id: str | None) -> Path:
    """Writes weights (safetensors), config and code, tokenizer, score table, training config, metrics, report and card.

    Args:
        trained: of `find_trained`.
        folder: a new one; what lies there already is replaced.
        hub: licence, language and card.
        repo_id: the name that the card's examples open; None: this folder.

    Raises:
        UserError: the card lacks a value.
    """
    card = model_card(trained, hub, repo_id)  # first, as it can fail
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("model*", ".*", "*.partial"))
    trained.model.save_pretrained(folder)
    shutil.copytree(trained.report, folder / REPORT, ignore=shutil.ignore_patterns(METRICS_FILE, SCORE_TABLE_FILE))
    write_text(folder / METRICS_FILE, json.dumps(trained.metrics, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / CARD, card)
    return folder
