"""The metrics of an evaluation as tables of words, whatever shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Metrics = dict[str, Any]
PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
PICKERS = {
    "random": "random candidate",
    "likeliest": "likeliest for the AR",
    "pick": "pick by score",
    "best": "best possible",
    "gain": "pick − random",
}


@dataclass(frozen=True)
class Table:
    """Columns after the first hold numbers unless `words` says otherwise."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: bool = False


def tables(metrics: Metrics) -> list[Table]:
    """All that the metrics of `evaluation.evaluate` hold."""
    made = [make(metrics) for make in (retrieval, perturbations, rerank, scores, percentiles, reference)]
    return [*(table for table in made if table), *breakdowns(metrics), confusions(metrics)]


def retrieval(metrics: Metrics) -> Table:
    both = [
        (metrics[name], metrics.get("intervals", {}).get(name, {})) for name in ("text_to_speech", "speech_to_text")
    ]
    rows = [
        [
            name.replace("_", " "),
            *(_with_interval(values[name], bounds.get(name), _digits(name)) for values, bounds in both),
        ]
        for name in both[0][0]
    ]
    title = f"Retrieval among {metrics['gallery']} sentences (R@1 by chance: {metrics['chance_R@1']:.4f})"
    return Table(title, ["", "text → speech", "speech → text"], rows, INTERVALS)


def breakdowns(metrics: Metrics) -> list[Table]:
    header = ["", "texts", "R@1, text → speech", "R@1, speech → text", "MRR, text → speech", "MRR, speech → text"]
    return [
        Table(
            f"Retrieval by {kind}",
            [kind, *header[1:]],
            [
                [row["label"], str(row["texts"])]
                + [f"{row[way][name]:.3f}" for name in ("R@1", "MRR") for way in ("text_to_speech", "speech_to_text")]
                for row in rows
            ],
            "Each text is ranked among all.",
        )
        for kind, rows in metrics["breakdown"].items()
    ]


def perturbations(metrics: Metrics) -> Table | None:
    rows = [
        [
            f"{row['perturbation'].replace('_', ' ')} ({row['side']})",
            f"{row['share']:.0%}" if row["share"] else "one place",
            str(row["pairs"]),
            _with_interval(row["rate"], row["interval"]),
        ]
        for row in metrics["perturbations"]
    ]
    note = f"How often the true pair outscores the perturbed one; 0.5 by chance. {INTERVALS}"
    return Table("Perturbation detection", ["mistake", "size", "pairs", "rate"], rows, note) if rows else None


def rerank(metrics: Metrics) -> Table | None:
    found = metrics.get("rerank")
    if not found:
        return None
    shown = [name for name in ("finished", "log_probability_per_code", "word_error_rate") if name in found]
    rows = [
        [words, *(_rate(found[name][picker]) if picker in found[name] else "" for name in shown)]
        for picker, words in PICKERS.items()
        if any(picker in found[name] for name in shown)
    ]
    notes = [INTERVALS]
    if "agreement" in found:
        order, likeliest = found["agreement"]["log_probability_per_code"], found["picks_likeliest"]
        if order["value"] is not None:
            notes.append(f"Spearman's correlation of score and log-probability a code, within a text: {_rate(order)}.")
        share = _with_interval(likeliest["rate"], likeliest["interval"])
        notes.append(f"The pick is the AR's likeliest in {share} of the texts, by chance in {likeliest['chance']:.3f}.")
    if found.get("texts_with_one_candidate"):
        notes.append(f"{found['texts_with_one_candidate']} texts with a single candidate are left out.")
    if found.get("texts_in_several_voices"):
        notes.append("Candidates of a text are in several voices here: a preference for one of these counts too.")
    title = f"Re-ranking {found['texts']} texts × {found['candidates']:.4g} candidates"
    return Table(title, ["", *(name.replace("_", " ") for name in shown)], rows, " ".join(notes))


def scores(metrics: Metrics) -> Table:
    found = metrics["scores"]
    rows = [
        [
            f"{kind} pairs",
            f"{found[kind]['mean']:.3f}",
            f"{found[kind]['standard_deviation']:.3f}",
            f"{found[kind]['auc']:.3f}" if "auc" in found[kind] else "",
        ]
        for kind in ("true", "mismatched", "perturbed")
        if kind in found
    ]
    note = (
        "AUC: how likely a true pair outscores one of these, both drawn at random; 0.5 by chance. CLVP score as tts-scores "
        f"computes it (mean score times exp(logit scale)): {found['clvp_score']:.2f}."
    )
    return Table("Scores (cosine similarity)", ["", "mean", "standard deviation", "AUC"], rows, note)


def percentiles(metrics: Metrics) -> Table:
    table = metrics["scores"]["table"]
    rows = [
        [f"{percent}%", f"{table['true'][percent]:.3f}", f"{table['mismatched'][percent]:.3f}"]
        for percent in PERCENTILES
    ]
    note = "Of so many per cent of the pairs the score is lower."
    return Table("What a score means", ["", "true pairs", "mismatched pairs"], rows, note)


def reference(metrics: Metrics) -> Table | None:
    found = metrics.get("reference")
    rows = [[str(found["codes"]), f"{found['frechet_distance']:.4f}"]] if found else []
    note = (
        "Between embedded codes of the split and of the reference, as tts-scores computes it; sets of one size compare."
    )
    return Table("Fréchet distance", ["codes in the reference", "distance"], rows, note) if rows else None


def confusions(metrics: Metrics) -> Table:
    rows = [
        [row["text"], f"{row['rank']:.0f}", f"{row['score']:.3f}", row["instead"], f"{row['its_score']:.3f}"]
        for row in metrics["confusions"]
    ]
    header = ["text", "rank of its codes", "score", "whose codes come first", "their score"]
    return Table(
        "Worst confusions", header, rows, "" if rows else "None: every text finds its own codes first.", words=True
    )


def comparison(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> Table:
    """Rows of `evaluation.compare`, every checkpoint against the first."""
    header = ["", names[0], *(word for name in names[1:] for word in (name, f"{name} − {names[0]}"))]
    cells = [
        [row["quantity"], f"{row['values'][0]:.3f}"]
        + [
            word
            for value, change in zip(row["values"][1:], row["differences"])
            for word in (f"{value:.3f}", _with_interval(change["value"], change["interval"], signed=True))
        ]
        for row in rows
    ]
    note = f"Differences with paired intervals over texts. {INTERVALS} Over runs with another seed they would be wider."
    return Table("Comparison", header, cells, note)


INTERVALS = "In brackets: 95% bootstrap intervals over texts."


def _digits(name: str) -> int:
    return 1 if name.endswith("rank") else 3


def _rate(found: dict[str, Any]) -> str:
    return _with_interval(found["value"], found["interval"])


def _with_interval(value: float, bounds: Sequence[float] | None, digits: int = 3, signed: bool = False) -> str:
    sign = "+" if signed else ""
    shown = f"{value:{sign}.{digits}f}"
    return f"{shown} ({bounds[0]:{sign}.{digits}f} to {bounds[1]:{sign}.{digits}f})" if bounds else shown
