"""The files of an evaluation: report, metrics and score table of each checkpoint, and the comparison of several."""

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from clvp_train import hub
from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.evaluation import Evaluation, EvaluationData, compare
from clvp_train.io import write_text
from clvp_train.io.digests import recording_digests, sealed_json
from clvp_train.metrics import LOG_PROBABILITY_WEIGHT, SCORE_TABLE_FILE
from clvp_train.metrics.pickers import best_candidate
from clvp_train.models import CLVPModel, weights_digest
from clvp_train.models.weight_files import public_name
from clvp_train.pipelines.config import without_secrets
from clvp_train.pipelines.data import short_names, tortoise_of
from clvp_train.report import (
    Page,
    Sample,
    comparison_page,
    evaluation_page,
    print_summary,
    print_table,
    write_metrics,
    write_report,
)
from clvp_train.tortoise.vocoder import mp3, synthesize

NUM_SAMPLES = 4  # texts to listen to
CLIPS = ("highest score", "drawn first")
DECODING = {"word_error_rate", "mel_distance"}  # judges that decode the candidates


def origin(name: str, model: CLVPModel, datamodule: CLVPDataModule) -> dict[str, Any]:
    """Identifies the evaluated weights and pairs, and how the pairs were made."""
    manifest = datamodule.manifest
    data: dict[str, Any] = {"corpus": manifest.corpus, "codes": manifest.source, "fingerprint": manifest.fingerprint}
    data |= {"tortoise": public_name(manifest.tortoise), "settings": manifest.settings}
    # the drawing speed depends on the machine, not on the pairs
    data |= {"report": {key: value for key, value in manifest.report.items() if key != "codes_per_second"}}
    facts = {"split": "test", "checkpoint": name, "weights": weights_digest(model), "data": data}
    return facts | {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def report_page(cfg: DictConfig, name: str, evaluation: Evaluation, data: EvaluationData) -> Page:
    """The report of one checkpoint, with what differs from one evaluation of the same checkpoint to the next."""
    script = Path(sys.argv[0]).name
    command = [*(["python"] if script.endswith(".py") else []), script, *HydraConfig.get().overrides.task]
    settings = without_secrets(cfg) if "optim" in cfg else hub.read_settings(hub.settings_file(name))
    facts = {"training": ", ".join(f"{words}: {value}" for words, value in hub.recipe(settings).items())}
    facts |= {"evaluated": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "command": shlex.join(command)}
    facts = {words: value for words, value in facts.items() if value}
    return evaluation_page(evaluation.metrics, evaluation.figure_data, facts, _samples(cfg, evaluation, data))


def _samples(cfg: DictConfig, evaluation: Evaluation, data: EvaluationData) -> list[Sample]:
    """Picks that differ from the candidate that was drawn first, which is as good as a random one. Only if a judge has decoded
    the candidates: then Tortoise has their DVAE."""
    if evaluation.scores_NK is None or data.candidates is None or not data.judges.keys() & DECODING:
        return []
    sets, picks_N = data.candidates, best_candidate(evaluation.scores_NK)
    texts = np.flatnonzero(picks_N > 0)[:NUM_SAMPLES].tolist()
    rows = [(sets.starts[text] + picks_N[text], sets.starts[text]) for text in texts]
    codes = [sets.pairs.codes[row].tolist() for pair in rows for row in pair]
    clips = iter(mp3(samples) for samples in synthesize(tortoise_of(cfg)(), codes))
    return [
        Sample(sets.pairs.texts[first], sets.pairs.voices[first], {name: next(clips) for name in CLIPS})
        for _, first in rows
    ]


def write_evaluation(evaluation: Evaluation, page: Page, folder: Path) -> None:
    with recording_digests(folder):
        write_metrics(evaluation.metrics, folder)
        path = write_report(page, folder)
        write_score_table(evaluation.metrics, folder)
    print_summary(evaluation.metrics)
    print(f"report: {path}")


def write_score_table(metrics: dict[str, Any], folder: Path) -> None:
    """Writes the score percentiles, which `metrics.percentile` reads, and the weight of the AR's log-probability, if a judge
    has chosen one, next to a report or a model."""
    data = {name: metrics["data"][name] for name in ("corpus", "codes", "fingerprint")}
    table = metrics["scores"]["table"] | {"data": data, "texts": metrics["gallery"]}
    if "combination" in metrics.get("rerank", {}):
        table[LOG_PROBABILITY_WEIGHT] = metrics["rerank"]["combination"]["weight"]
    write_text(folder / SCORE_TABLE_FILE, sealed_json(table) + "\n")


def write_comparison(
    names: Sequence[str], evaluations: Sequence[Evaluation], pages: Sequence[Page], folder: Path
) -> None:
    checkpoints = dict(zip(short_names(names), names))
    rows = compare([evaluation.per_text for evaluation in evaluations])
    comparison = comparison_page(checkpoints, evaluations[0].metrics, rows)
    with recording_digests(folder):
        for (short, name), evaluation, page in zip(checkpoints.items(), evaluations, pages):
            print(f"{short}: {name}")
            write_evaluation(evaluation, page, folder / short)
        write_metrics({"checkpoints": checkpoints, "comparison": rows}, folder)
        path = write_report(comparison, folder)
    print_table(comparison.tables[0])
    print(f"report: {path}")
