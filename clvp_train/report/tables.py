"""The metrics of an evaluation as tables, and as the short summary that a terminal shows."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from clvp_train.metrics import DIRECTIONS, JUDGES, KINDS, WRONG_VOICE
from clvp_train.report import reranking
from clvp_train.report.table import INTERVALS, Metrics, Table, number, print_table, with_interval

PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)


def tables(metrics: Metrics) -> list[Table]:
    """Returns all tables for the metrics of `evaluation.evaluate_model`."""
    optional = [retrieval(metrics), sets(metrics), perturbations(metrics), *reranking.rerank_tables(metrics)]
    optional += [scores(metrics), percentiles(metrics), reference(metrics)]
    return [*(table for table in optional if table), *breakdowns(metrics), confusions(metrics)]


def print_summary(metrics: Metrics, console: Console | None = None) -> None:
    """Prints the retrieval table, and lines on perturbations, re-ranking and parts that were not measured."""
    console = console or Console()
    print_table(retrieval(metrics), console)
    for line in summary_lines(metrics):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary_lines(metrics: Metrics) -> list[str]:
    lines = []
    if rows := sorted(metrics["perturbations"], key=lambda row: row["rate"]):
        best, worst = (f"{_perturbation(row)} {row['rate']:.3f}" for row in (rows[-1], rows[0]))
        lines.append(
            f"perturbation detection: mean rate {_mean_rate(rows):.3f} (chance 0.5), best {best}, worst {worst}"
        )
    lines += reranking.summary_lines(metrics)
    return lines + [f"not measured: {part} ({reason})" for part, reason in metrics.get("left_out", {}).items()]


def headline(metrics: Metrics) -> dict[str, str]:
    """Returns the most important numbers by their names."""
    recalls = " / ".join(f"{metrics[key]['R@1']:.3f}" for key in DIRECTIONS)
    shown = {
        f"R@1 among {metrics['gallery']} ({' / '.join(_directions(metrics))})": recalls,
        "AUC, matched vs. mismatched": f"{metrics['scores']['mismatched']['auc']:.3f}",
    }
    if WRONG_VOICE in metrics["text_to_speech"]:
        shown[WRONG_VOICE] = f"{metrics['text_to_speech'][WRONG_VOICE]:.3f}"
    if metrics["perturbations"]:
        shown["mean detection rate of perturbations"] = f"{_mean_rate(metrics['perturbations']):.3f}"
    for name in (*JUDGES, "finished"):
        if name in metrics.get("rerank", {}):
            values, words = metrics["rerank"][name], reranking.words(name)
            shown[f"{words}: random → pick"] = f"{values['random']['value']:.3f} → {values['pick']['value']:.3f}"
    return shown


def retrieval(metrics: Metrics) -> Table:
    both = [(metrics[key], metrics.get("intervals", {}).get(key, {})) for key in DIRECTIONS]
    rows = [
        [
            name.replace("_", " "),
            *(with_interval(values[name], bounds.get(name), _digits(name)) for values, bounds in both),
        ]
        for name in both[0][0]
    ]
    kind = "voices" if WRONG_VOICE in metrics["text_to_speech"] else "sentences"
    title = f"Retrieval among {metrics['gallery']} {kind} (chance R@1: {metrics['chance_R@1']:.4f})"
    return Table(title, ["", *_directions(metrics)], rows, INTERVALS)


def sets(metrics: Metrics) -> Table | None:
    """R@1 among the held-out pairs of each other folder."""
    rows = [
        [name, str(values["gallery"])]
        + [with_interval(values[key]["R@1"], values[key]["interval"], 3) for key in DIRECTIONS]
        for name, values in metrics.get("sets", {}).items()
    ]
    if not rows:
        return None
    return Table("R@1 on other pairs", ["pairs", "texts", *DIRECTIONS.values()], rows, INTERVALS)


def perturbations(metrics: Metrics) -> Table | None:
    sizes = {_size(row): None for row in sorted(metrics["perturbations"], key=lambda row: row["share"] or 2)}
    names = dict.fromkeys(
        f"{row['perturbation'].replace('_', ' ')} ({row['side']})" for row in metrics["perturbations"]
    )
    cells = {name: dict.fromkeys(sizes, "") for name in names}
    for row in metrics["perturbations"]:
        name = f"{row['perturbation'].replace('_', ' ')} ({row['side']})"
        cells[name][_size(row)] = with_interval(row["rate"], row["interval"])
    note = (
        "Detection rate by size of the perturbation: how often the matched pair scores higher than its perturbed copy; chance "
        f"is 0.5. Pairs per rate: {_range([row['pairs'] for row in metrics['perturbations']])}. {INTERVALS}"
    )
    rows = [[name, *of_size.values()] for name, of_size in cells.items()]
    return Table("Perturbation detection", ["perturbation", *sizes], rows, note) if rows else None


def scores(metrics: Metrics) -> Table:
    results = metrics["scores"]
    rows = [
        [f"{words} pairs", *(number(results[kind].get(name)) for name in ("mean", "standard_deviation", "auc"))]
        for kind, words in KINDS.items()
        if kind in results
    ]
    note = (
        "AUC: probability that a random matched pair scores higher than a random pair of this kind; chance is 0.5. CLVP score "
        f"as in tts-scores (mean score times exp(logit scale)): {results['clvp_score']:.2f}."
    )
    return Table("Scores (cosine similarity)", ["", "mean", "standard deviation", "AUC"], rows, note)


def percentiles(metrics: Metrics) -> Table:
    table = metrics["scores"]["table"]
    rows = [[f"{q}%", f"{table['true'][q]:.3f}", f"{table['mismatched'][q]:.3f}"] for q in PERCENTILES]
    note = "The score that this percentage of the pairs stays below."
    return Table("Score percentiles", ["", "matched pairs", "mismatched pairs"], rows, note)


def reference(metrics: Metrics) -> Table | None:
    results = metrics.get("reference")
    if not results:
        return None
    note = "Between the speech embeddings of the split and of the reference, as in tts-scores. Compare sets of the same size."
    rows = [[str(results["codes"]), f"{results['frechet_distance']:.4f}"]]
    return Table("Fréchet distance", ["codes in the reference", "distance"], rows, note)


def breakdowns(metrics: Metrics) -> list[Table]:
    columns = [(name, key) for name in ("R@1", "MRR") for key in DIRECTIONS]
    header = ["texts", *(f"{name}, {DIRECTIONS[key]}" for name, key in columns)]
    return [
        Table(
            f"Retrieval by {kind}",
            [kind, *header],
            [[row["label"], str(row["texts"]), *(f"{row[key][name]:.3f}" for name, key in columns)] for row in rows],
            "Every text is ranked among all texts.",
        )
        for kind, rows in metrics["breakdown"].items()
    ]


def confusions(metrics: Metrics) -> Table:
    rows = [
        [row["text"], f"{row['rank']:.0f}", f"{row['score']:.3f}", row["instead"], f"{row['its_score']:.3f}"]
        for row in metrics["confusions"]
    ]
    header = ["text", "rank of the correct match", "score", "text of the first match", "its score"]
    return Table("Worst confusions", header, rows, "" if rows else "None: every text has rank 1.", words=True)


def comparison(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> Table:
    """Returns the rows of `evaluation.compare` as a table: every checkpoint against the first."""
    header = ["", names[0], *(word for name in names[1:] for word in (name, f"{name} − {names[0]}"))]
    cells = [
        [row["quantity"], f"{row['values'][0]:.3f}"]
        + [
            word
            for value, change in zip(row["values"][1:], row["differences"])
            for word in (f"{value:.3f}", with_interval(change["value"], change["interval"], signed=True))
        ]
        for row in rows
    ]
    note = f"Differences are paired over texts. {INTERVALS} They do not include the variance between training seeds."
    return Table("Comparison", header, cells, note)


def _directions(metrics: Metrics) -> list[str]:
    """The names of the directions of retrieval."""
    is_voice = WRONG_VOICE in metrics["text_to_speech"]
    return [words.replace("text", "voice") if is_voice else words for words in DIRECTIONS.values()]


def _size(row: dict[str, Any]) -> str:
    return f"{row['share']:.0%}" if row["share"] else "one word"


def _range(values: Sequence[int]) -> str:
    return f"{min(values)} to {max(values)}" if len(set(values)) > 1 else str(next(iter(values), 0))


def _perturbation(row: dict[str, Any]) -> str:
    size = f" {row['share']:.0%}" if row["share"] else ""
    return f"{row['perturbation'].replace('_', ' ')}{size}"


def _mean_rate(rows: Sequence[dict[str, Any]]) -> float:
    return sum(row["rate"] for row in rows) / len(rows)


def _digits(name: str) -> int:
    return 1 if name.endswith("rank") else 3
