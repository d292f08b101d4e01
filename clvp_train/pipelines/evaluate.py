"""Evaluates checkpoints on the test split and writes their reports."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import UserError
from clvp_train.evaluation import (
    Embedder,
    Evaluation,
    EvaluationData,
    PerturbationSuite,
    RerankConfig,
    add_candidates,
    add_word_errors,
    check_recogniser,
    compare,
    prepare,
)
from clvp_train.evaluation import evaluate as evaluate_model
from clvp_train.evaluation.prepare import WORD_ERRORS
from clvp_train.io import REPORT, write_text
from clvp_train.metrics import SCORE_TABLE_FILE
from clvp_train.models import CLVPModel, load_clvp, weights_digest
from clvp_train.models.weight_files import public_name
from clvp_train.pairs import read_manifest
from clvp_train.pipelines import build
from clvp_train.pipelines.config import validate
from clvp_train.report import (
    Page,
    comparison,
    draw,
    print_report,
    print_table,
    tables,
    write_metrics,
    write_report,
)
from clvp_train.training import CLVPModule, TrainingConfig

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> None:
    """Judges one checkpoint or several by the test split and writes the report."""
    validate(cfg)
    build.all_ranks(cfg)
    build.seed(cfg)
    perturbations, rerank = check_settings(cfg)
    checkpoints = _named(cfg.checkpoint)
    loaded = {name: load_clvp(name) for name in checkpoints}  # so that a bad one shows before the work
    datamodule: CLVPDataModule = instantiate(cfg.data, pairs=build.pairs(cfg))
    limits: list[int | None] = []
    for name, model in loaded.items():
        build.match_padding_and_vocabulary(model, datamodule, f"checkpoint={name}")
        build.check_tokenizer(name, datamodule)
        limits.append(datamodule.served_codes)
    models: dict[str, Callable[[], CLVPModel]] = {name: partial(loaded.pop, name) for name in checkpoints}
    # what one of them cannot see, none is asked about
    limit = min((limit for limit in limits if limit is not None), default=None)
    data = evaluation_data(cfg, datamodule, perturbations, rerank, limit)
    evaluate_checkpoints(cfg, models, datamodule, data, Path(cfg.paths.output) / REPORT)


def check_settings(cfg: DictConfig) -> tuple[PerturbationSuite, RerankConfig]:
    """What the settings of the evaluation stand for, before any work is done.

    Raises:
        UserError: a bad setting, or a folder or recogniser that is not there.
    """
    perturbations, rerank = instantiate(cfg.perturbations), instantiate(cfg.rerank)
    for folder in (rerank.pairs, cfg.reference):
        if folder is not None:
            read_manifest(folder)
    if rerank.asr is not None:
        check_recogniser(rerank.asr)
    return perturbations, rerank


def evaluation_data(
    cfg: DictConfig,
    datamodule: CLVPDataModule,
    perturbations: PerturbationSuite,
    rerank: RerankConfig,
    limit: int | None,
) -> EvaluationData:
    """What the checkpoints of a config are judged by; candidates are drawn now if there are none yet.

    Args:
        cfg: the whole config.
        datamodule: of the pairs.
        perturbations, rerank: of `check_settings`.
        limit: codes that are served at most; None: all.
    """
    data = prepare(datamodule, perturbations, cfg.reference, limit)
    folder, why_none = build.candidates(cfg, datamodule, rerank)
    if folder is None:
        return replace(data, left_out=data.left_out | {"re-ranking": why_none})
    data = add_candidates(data, datamodule, folder, rerank.num_texts, perturbations, limit)
    if rerank.asr is None:
        return replace(
            data, left_out=data.left_out | {WORD_ERRORS: "set rerank.asr to a speech recogniser of transformers"}
        )
    return add_word_errors(data, folder, instantiate(cfg.tortoise), rerank.asr)


def evaluate_checkpoints(
    cfg: DictConfig,
    models: dict[str, Callable[[], CLVPModel]],
    datamodule: CLVPDataModule,
    data: EvaluationData,
    folder: Path,
) -> list[Evaluation]:
    """Evaluates models by name, one after the other, and on rank 0 writes and prints their report: that of one into `folder`,
    those of several into folders below it, beside the comparison."""
    trainer = build.evaluation_trainer(cfg)
    found = []
    for name, load in models.items():
        model = load()
        build.match_padding_and_vocabulary(model, datamodule, f"checkpoint={name}")
        chunk_size = cfg.training.chunk_size if "training" in cfg else cfg.chunk_size
        module = CLVPModule(model, training=TrainingConfig(chunk_size=chunk_size)).eval()
        found.append(evaluate_model(data, Embedder(module, trainer, datamodule.collate, datamodule.eval_batch_size)))
        if trainer.is_global_zero:
            found[-1].metrics.update(_origin(name, model, datamodule))
    if trainer.is_global_zero:
        _write(list(models), found, folder)
    return found


def _origin(name: str, model: CLVPModel, datamodule: CLVPDataModule) -> dict[str, Any]:
    """Which weights were judged by which pairs, and how those were made."""
    manifest = datamodule.manifest
    data: dict[str, Any] = {"corpus": manifest.corpus, "codes": manifest.source, "fingerprint": manifest.fingerprint}
    data |= {"tortoise": public_name(manifest.tortoise), "settings": manifest.settings}
    data |= {"report": {key: value for key, value in manifest.report.items() if key != "codes_per_second"}}
    return {"split": "test", "checkpoint": name, "weights": weights_digest(model), "data": data}


def _write(names: list[str], found: list[Evaluation], folder: Path) -> None:
    if len(found) == 1:
        _write_one(found[0], folder)
        return
    short = _short(names)
    for name, one in zip(short, found):
        print(f"{name}: {one.metrics['checkpoint']}")
        _write_one(one, folder / name)
    rows = compare([one.per_text for one in found])
    table = comparison(short, rows)
    print_table(table)
    facts = _facts(found[0].metrics) | {"checkpoint": "; ".join(f"{word}: {name}" for word, name in zip(short, names))}
    page = Page("Checkpoints compared", facts, [table], links={name: f"{name}/index.html" for name in short})
    write_metrics({"checkpoints": dict(zip(short, names)), "comparison": rows}, folder)
    path = write_report(page, folder)
    print(f"report: {path}")


def _write_one(one: Evaluation, folder: Path) -> None:
    metrics = one.metrics
    write_metrics(metrics, folder)
    page = Page(
        title="CLVP evaluation",
        facts=_facts(metrics),
        headline=_headline(metrics),
        tables=tables(metrics),
        figures=draw(one.figure_data),
        left_out=metrics["left_out"],
    )
    path = write_report(page, folder)
    write_score_table(metrics, folder)
    print_report(metrics)
    print(f"report: {path}")


def write_score_table(metrics: dict[str, Any], folder: Path) -> None:
    """Writes what scores mean, for `metrics.percentile`, beside a report or a model."""
    data = {name: metrics["data"][name] for name in ("corpus", "codes", "fingerprint")}
    table = metrics["scores"]["table"] | {"data": data, "texts": metrics["gallery"]}
    write_text(folder / SCORE_TABLE_FILE, json.dumps(table) + "\n")


def _facts(metrics: dict[str, Any]) -> dict[str, str]:
    data = metrics["data"]
    return {
        "checkpoint": metrics["checkpoint"],
        "corpus": f"{data['corpus']}, {metrics['gallery']} texts of the {metrics['split']} split",
        "codes": {"ar": "drawn by the autoregressive model", "dvae": "of recordings"}.get(data["codes"], data["codes"]),
        "fingerprint of the pairs": data["fingerprint"],
    }


def _headline(metrics: dict[str, Any]) -> dict[str, str]:
    both = [metrics[name]["R@1"] for name in ("text_to_speech", "speech_to_text")]
    shown = {
        f"R@1 of {metrics['gallery']} (text → speech / speech → text)": " / ".join(f"{value:.3f}" for value in both)
    }
    shown["true pairs outscore mismatched ones (AUC)"] = f"{metrics['scores']['mismatched']['auc']:.3f}"
    if "perturbed" in metrics["scores"]:
        rates = [row["rate"] for row in metrics["perturbations"]]
        shown["mistakes caught, mean of all kinds"] = f"{sum(rates) / len(rates):.3f}"
    for name, words in (("word_error_rate", "word error rate"), ("finished", "finished candidates")):
        if name in metrics.get("rerank", {}):
            one = metrics["rerank"][name]
            shown[f"{words}: random → pick"] = f"{one['random']['value']:.3f} → {one['pick']['value']:.3f}"
    return shown


def _short(names: list[str]) -> list[str]:
    """The last part of each that tells them apart, fit for a folder."""
    paths = [[part for part in Path(name).parts if part != "/"] for name in names]
    for depth in range(1, max(map(len, paths)) + 1):
        short = ["-".join(parts[-depth:]) for parts in paths]
        if len(set(short)) == len(names):
            return short
    return [f"{number}-{parts[-1]}" for number, parts in enumerate(paths, start=1)]


def _named(checkpoint: Any) -> list[str]:
    """One checkpoint or several, each once."""
    named = [checkpoint] if isinstance(checkpoint, (str, int)) else list(checkpoint or ())
    if not named or not all(isinstance(name, (str, int)) for name in named):
        raise UserError(f"checkpoint={checkpoint}: name one, or several as in checkpoint=[A,B]")
    return list(dict.fromkeys(map(str, named)))
