"""The card of a model: what its readers must know to trust it, filled in from the run."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from clvp_train.hub.run import TRAINING_CONFIG, Trained
from clvp_train.hub.settings import HubConfig
from clvp_train.hub.templates import MODEL_CARD, render
from clvp_train.metrics import DIRECTIONS
from clvp_train.pairs import report_lines
from clvp_train.report import table_lines, tables

HARDLY = 0.6  # a mistake that is noticed less often than this is told of as a limit; 0.5 is chance
SHOWN = ("recall_curve", "score_distributions", "detection_rates")  # figures of the report


def model_card(trained: Trained, hub: HubConfig, repo_id: str | None) -> str:
    """README.md of a published model, metadata first.

    Raises:
        UserError: the template of `hub.card` lacks a value.
    """
    metrics, config = trained.metrics, trained.model.config
    name = (repo_id or "clvp").rsplit("/", 1)[-1]
    values = {
        "metadata": _metadata(name, trained, hub),
        "name": name,
        "model_id": repo_id or ".",
        "license": hub.license,
        "model": {
            "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
            "padding": config.padding,
            "text_tokens": config.text_config.vocab_size,
            "speech_tokens": config.speech_config.vocab_size,
            "width": config.projection_dim,
            "layers": [half.num_hidden_layers for half in (config.text_config, config.speech_config)],
        },
        "tokenizer": _tokenizer(trained.folder),
        "data": metrics["data"] | {"lines": report_lines(metrics["data"]["report"] | {"codes_per_second": None})},
        "recipe": _recipe(trained.folder / TRAINING_CONFIG),
        "metrics": metrics,
        "tables": [
            (table.title, "\n".join(table_lines(table)))
            for table in tables(metrics)
            if not table.words  # whose rows are texts of the corpus
        ],
        "weak": [f"{row['perturbation'].replace('_', ' ')} ({row['rate']:.2f})" for row in _weak(metrics)],
        "figures": [name for name in SHOWN if (trained.report / "figures" / f"{name}.svg").exists()],
        "example": metrics["example"],
        "versions": {name: version(name) for name in ("clvp-train", "torch", "transformers")},
    }
    return render(hub.card or MODEL_CARD, values)


def _metadata(name: str, trained: Trained, hub: HubConfig) -> str:
    """The card's YAML, with the results as the Hub reads them."""
    data = ModelCardData(
        license=hub.license,
        language=hub.language,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["clvp", "tortoise-tts", "text-to-speech", "speech-codes", "reranking", "contrastive-learning"],
        model_name=name,
        eval_results=_results(trained.metrics),
    )
    return data.to_yaml()


def _results(metrics: dict[str, Any]) -> list[EvalResult]:
    """Retrieval in both directions with gallery, interval and chance; how well true pairs are told from others."""
    data = metrics["data"]
    common = {
        "task_type": "text-retrieval",
        "task_name": "Retrieval between texts and speech codes",
        "dataset_type": data["corpus"],
        "dataset_name": f"{data['corpus']} (codes: {data['codes']})",
        "dataset_split": metrics["split"],
        "dataset_args": {"fingerprint": data["fingerprint"]},
    }
    found = []
    for key, words in DIRECTIONS.items():
        for name, kind in (("R@1", "recall_at_1"), ("R@5", "recall_at_5"), ("R@10", "recall_at_10"), ("MRR", "mrr")):
            gallery = {"gallery": metrics["gallery"], "interval_95": metrics["intervals"][key][name]}
            chance = {"chance": metrics["chance_R@1"]} if name == "R@1" else {}
            found.append(
                EvalResult(
                    **common,
                    metric_type=kind,
                    metric_name=f"{name}, {words}",
                    metric_value=metrics[key][name],
                    metric_args=gallery | chance,
                )
            )
    for kind in ("mismatched", "perturbed"):
        if kind in metrics["scores"]:
            value = metrics["scores"][kind]["auc"]
            words = f"AUC, true against {kind} pairs"
            found.append(EvalResult(**common, metric_type="roc_auc", metric_name=words, metric_value=value))
    return found


def _weak(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each mistake that is hardly noticed at some size the largest such."""
    rows = {row["perturbation"]: row for row in metrics["perturbations"] if row["rate"] < HARDLY}
    return sorted(rows.values(), key=lambda row: row["rate"])


def _tokenizer(folder: Path) -> str:
    described = yaml.safe_load((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return str(described.get("tokenizer_class", "unknown"))


def _recipe(file: Path) -> dict[str, str]:
    """The settings that shaped the training most; {} if they were not kept."""
    if not file.exists():
        return {}
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    named = {
        "objective": ("loss", "_target_"),
        "batch size (global)": ("data", "batch_size"),
        "epochs at most": ("trainer", "max_epochs"),
        "steps at most": ("trainer", "max_steps"),
        "precision": ("trainer", "precision"),
        "learning rate": ("optim", "lr"),
        "weight decay": ("optim", "weight_decay"),
        "hard negatives a pair": ("data", "num_hard_negatives"),
        "hidden text tokens": ("training", "text_mask_percentage"),
        "hidden speech codes": ("training", "voice_mask_percentage"),
        "started from": ("model", "checkpoint"),
        "seed": ("seed",),
    }
    found = {}
    for words, path in named.items():
        value: Any = config
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and value != -1:
            found[words] = str(value).rsplit(".", 1)[-1] if words == "objective" else str(value)
    return found
