"""The model card: a Jinja template, filled in from the run, and metadata with the results in the Hub's format."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from clvp_train.errors import UserError
from clvp_train.hub.access import HubConfig
from clvp_train.hub.run import Trained
from clvp_train.io.sanitize import escape_markdown
from clvp_train.metrics import DIRECTIONS, WRONG_VOICE
from clvp_train.pairs import report_lines
from clvp_train.report import table_lines, tables, worth

MODEL_CARD = Path(__file__).with_name("model_card.md.jinja")
# the variables of a template, see `model_card`
VARIABLES = frozenset(
    (
        *("metadata", "name", "model_id", "license", "model", "tokenizer", "data", "recipe", "metrics", "tables"),
        *("weak", "worth", "figures", "example", "versions"),
    )
)
LOW_RATE = 0.6  # a perturbation with a lower detection rate is listed as a limitation; chance is 0.5
FIGURES = ("recall_curve", "rerank_gain", "score_distributions", "detection_rates")  # of the report
# words of the card -> path of the setting
RECIPE = {
    "objective": ("loss", "_target_"),
    "batch size (global)": ("data", "batch_size"),
    "maximum epochs": ("trainer", "max_epochs"),
    "maximum steps": ("trainer", "max_steps"),
    "precision": ("trainer", "precision"),
    "learning rate": ("optim", "lr"),
    "weight decay": ("optim", "weight_decay"),
    "hard negatives per pair": ("data", "num_hard_negatives"),
    "judged negatives per pair": ("data", "num_judged_negatives"),
    "masked text tokens": ("training", "text_mask_percentage"),
    "masked speech codes": ("training", "voice_mask_percentage"),
    "initial weights": ("model", "checkpoint"),
    "seed": ("seed",),
}
# a template may be from somebody else, so it reaches no Python; StrictUndefined: a value that is missing is an error
JINJA = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
)


def check_template(path: str | Path) -> None:
    """Raises UserError if the template of a model card is missing or malformed, or uses an unknown variable."""
    unknown = sorted(meta.find_undeclared_variables(JINJA.parse(_read_template(path))) - VARIABLES)
    if unknown:
        raise UserError(
            f"hub.card={path}: unknown variables {', '.join(unknown)}. Available are {', '.join(sorted(VARIABLES))}."
        )


def model_card(trained: Trained, hub: HubConfig, repo_id: str | None) -> str:
    """Returns the README.md of a published model, metadata first. Texts from data are escaped.

    Raises:
        UserError: the template of `hub.card` is malformed, or uses a value that does not exist or that templates must not use.
    """
    path = hub.card or MODEL_CARD
    try:
        return JINJA.from_string(_read_template(path)).render(_values(trained, hub, repo_id))
    except jinja2.UndefinedError as error:
        raise UserError(f"hub.card={path}: {error.message}. Remove the value from the template, or set it.") from None
    except Exception as error:  # a template can fail in any way
        raise UserError(f"hub.card={path}: cannot be filled in ({error}). Correct the template.") from None


def _values(trained: Trained, hub: HubConfig, repo_id: str | None) -> dict[str, Any]:
    """What the template shows."""
    metrics, config = trained.metrics, trained.model.config
    name = (repo_id or "clvp").rsplit("/", 1)[-1]
    return {
        "metadata": _metadata(name, trained, hub),
        "name": escape_markdown(name),
        "model_id": repo_id or ".",
        "license": hub.metadata["license"],
        "model": {
            "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
            "padding": config.padding,
            "text_tokens": config.text_config.vocab_size,
            "speech_tokens": config.speech_config.vocab_size,
            "width": config.projection_dim,
            "layers": [tower.num_hidden_layers for tower in (config.text_config, config.speech_config)],
        },
        "tokenizer": _tokenizer(trained.folder),
        "of_voices": WRONG_VOICE in metrics["text_to_speech"],
        "data": _escaped(
            metrics["data"] | {"lines": report_lines(metrics["data"]["report"] | {"codes_per_second": None})}
        ),
        "recipe": _escaped(recipe(trained.settings)),
        "metrics": _escaped(metrics),
        "tables": [
            (table.title, "\n".join(table_lines(table)))
            for table in tables(metrics)
            if not table.words  # these quote texts of the corpus, which may not be published
        ],
        "weak": [
            f"{escape_markdown(row['perturbation']).replace('_', ' ')} ({row['rate']:.2f})" for row in _weak(metrics)
        ],
        "worth": escape_markdown(worth(metrics)),
        "figures": [name for name in FIGURES if (trained.report / "figures" / f"{name}.svg").exists()],
        "example": metrics["example"],
        "versions": {name: version(name) for name in ("clvp-train", "torch", "transformers")},
    }


def _escaped(value: Any) -> Any:
    """The value with all texts in it escaped."""
    if isinstance(value, dict):
        return {_escaped(key): _escaped(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped(child) for child in value]
    return escape_markdown(value) if isinstance(value, str) else value


def _read_template(path: str | Path) -> str:
    """The text of a template without syntax errors."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        JINJA.parse(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"hub.card={path}: cannot be read ({error}). Set it to a Jinja template.") from None
    except jinja2.TemplateSyntaxError as error:
        raise UserError(
            f"hub.card={path}: invalid Jinja template (line {error.lineno}: {error.message}). Correct it."
        ) from None
    return text


def _metadata(name: str, trained: Trained, hub: HubConfig) -> str:
    """The YAML block of the card, with the results in the Hub's model-index format."""
    data = ModelCardData(
        **hub.metadata,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["clvp", "tortoise-tts", "text-to-speech", "speech-codes", "reranking", "contrastive-learning"],
        model_name=name,
        eval_results=_results(trained.metrics),
    )
    return data.to_yaml()


def _results(metrics: dict[str, Any]) -> list[EvalResult]:
    """Retrieval in both directions with gallery, interval and chance, and the AUC of true pairs against others."""
    data = metrics["data"]
    common = {
        "task_type": "text-retrieval",
        "task_name": "Retrieval between texts and speech codes",
        "dataset_type": data["corpus"],
        "dataset_name": f"{data['corpus']} (codes: {data['codes']})",
        "dataset_split": metrics["split"],
        "dataset_args": {"fingerprint": data["fingerprint"]},
    }
    results = []
    for key, words in DIRECTIONS.items():
        for name, kind in (("R@1", "recall_at_1"), ("R@5", "recall_at_5"), ("R@10", "recall_at_10"), ("MRR", "mrr")):
            gallery = {"gallery": metrics["gallery"], "interval_95": metrics["intervals"][key][name]}
            chance = {"chance": metrics["chance_R@1"]} if name == "R@1" else {}
            results.append(
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
            results.append(EvalResult(**common, metric_type="roc_auc", metric_name=words, metric_value=value))
    return results


def _weak(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The perturbations with a low detection rate, lowest first; of several sizes of one, the largest such size."""
    rows = {row["perturbation"]: row for row in metrics["perturbations"] if row["rate"] < LOW_RATE}
    return sorted(rows.values(), key=lambda row: row["rate"])


def _tokenizer(folder: Path) -> str:
    settings = yaml.safe_load((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return escape_markdown(str(settings.get("tokenizer_class", "unknown")))


def recipe(config: dict[str, Any]) -> dict[str, str]:
    """The most important settings of the training."""
    settings = {}
    for words, path in RECIPE.items():
        value: Any = config
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and value != -1:  # Lightning's -1: no limit
            settings[words] = str(value).rsplit(".", 1)[-1] if words == "objective" else str(value)
    sources = config.get("pairs") or config.get("codes") or {}
    if isinstance(sources, dict) and "_target_" not in sources:
        nodes = {name: node if isinstance(node, dict) else {} for name, node in sources.items() if node is not None}
        settings["speech codes"] = ", ".join(f"{name} (weight {node.get('weight', 1)})" for name, node in nodes.items())
    elif isinstance(sources, list):
        settings["speech codes"] = f"{len(sources)} folders of pairs"
    return settings
