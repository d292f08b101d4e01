"""The metrics of an evaluation as tables, and as the short summary that a terminal shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table as ConsoleTable

from clvp_train.metrics import DIRECTIONS, KINDS

Metrics = dict[str, Any]
INTERVALS = "In brackets: 95% bootstrap intervals over texts."
PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
PICKERS = {
    "random": "random candidate",
    "likeliest": "most likely for the AR",
    "pick": "highest score",
    "best": "best possible",
    "gain": "highest score − random",
}
QUALITIES = ("finished", "log_probability_per_code", "word_error_rate")  # of candidates


@dataclass(frozen=True)
class Table:
    """Columns after the first hold numbers, unless `words` is true."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: bool = False


def tables(metrics: Metrics) -> list[Table]:
    """Returns all tables for the metrics of `evaluation.evaluate_model`."""
    parts = [table(metrics) for table in (retrieval, perturbations, rerank, scores, percentiles, reference)]
    return [*(table for table in parts if table), *breakdowns(metrics), confusions(metrics)]


def table_lines(table: Table) -> list[str]:
    """Returns the lines of a table in Markdown."""
    lines = []
    if table.rows:
        lines += [_line(table.header), _line(["---"] * len(table.header)), *map(_line, table.rows)]
    return lines + (["", table.note] if table.rows and table.note else [table.note])


def print_table(table: Table, console: Console | None = None) -> None:
    """Prints a table in the width of the terminal."""
    shown = ConsoleTable(*table.header, title=table.title, caption=table.note)
    for row in table.rows:
        shown.add_row(*row)
    (console or Console()).print(shown)


def print_summary(metrics: Metrics, console: Console | None = None) -> None:
    """Prints the retrieval table, and one line each on perturbations, re-ranking and parts that were not measured."""
    console = console or Console()
    print_table(retrieval(metrics), console)
    for line in summary_lines(metrics):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary_lines(metrics: Metrics) -> list[str]:
    lines, reranking = [], metrics.get("rerank", {})
    if rows := sorted(metrics["perturbations"], key=lambda row: row["rate"]):
        best, worst = (f"{_perturbation(row)} {row['rate']:.3f}" for row in (rows[-1], rows[0]))
        lines.append(
            f"perturbation detection: mean rate {_mean_rate(rows):.3f} (chance 0.5), best {best}, worst {worst}"
        )
    for name in QUALITIES:
        if name in reranking:
            random, pick, best = (f"{reranking[name][picker]['value']:.3f}" for picker in ("random", "pick", "best"))
            lines.append(f"re-ranking, {name.replace('_', ' ')}: random {random} → highest score {pick} (best {best})")
    return lines + [f"not measured: {part} ({reason})" for part, reason in metrics.get("left_out", {}).items()]


def headline(metrics: Metrics) -> dict[str, str]:
    """Returns the most important numbers by their names."""
    recalls = " / ".join(f"{metrics[key]['R@1']:.3f}" for key in DIRECTIONS)
    shown = {
        f"R@1 among {metrics['gallery']} ({' / '.join(DIRECTIONS.values())})": recalls,
        "AUC, matched vs. mismatched": f"{metrics['scores']['mismatched']['auc']:.3f}",
    }
    if metrics["perturbations"]:
        shown["mean detection rate of perturbations"] = f"{_mean_rate(metrics['perturbations']):.3f}"
    for name, words in (("word_error_rate", "word error rate"), ("finished", "finished candidates")):
        if name in metrics.get("rerank", {}):
            values = metrics["rerank"][name]
            shown[f"{words}: random → pick"] = f"{values['random']['value']:.3f} → {values['pick']['value']:.3f}"
    return shown


def retrieval(metrics: Metrics) -> Table:
    both = [(metrics[key], metrics.get("intervals", {}).get(key, {})) for key in DIRECTIONS]
    rows = [
        [
            name.replace("_", " "),
            *(_with_interval(values[name], bounds.get(name), _digits(name)) for values, bounds in both),
        ]
        for name in both[0][0]
    ]
    title = f"Retrieval among {metrics['gallery']} sentences (chance R@1: {metrics['chance_R@1']:.4f})"
    return Table(title, ["", *DIRECTIONS.values()], rows, INTERVALS)


def perturbations(metrics: Metrics) -> Table | None:
    rows = [
        [
            f"{row['perturbation'].replace('_', ' ')} ({row['side']})",
            f"{row['share']:.0%}" if row["share"] else "one word",
            str(row["pairs"]),
            _with_interval(row["rate"], row["interval"]),
        ]
        for row in metrics["perturbations"]
    ]
    note = (
        f"Detection rate: how often the matched pair scores higher than its perturbed copy; chance is 0.5. {INTERVALS}"
    )
    header = ["perturbation", "size", "pairs", "detection rate"]
    return Table("Perturbation detection", header, rows, note) if rows else None


def rerank(metrics: Metrics) -> Table | None:
    results = metrics.get("rerank")
    if not results:
        return None
    names = [name for name in QUALITIES if name in results]
    rows = [
        [words, *(_rate(results[name][picker]) if picker in results[name] else "" for name in names)]
        for picker, words in PICKERS.items()
        if any(picker in results[name] for name in names)
    ]
    title = f"Re-ranking {results['texts']} texts × {results['candidates']:.4g} candidates"
    return Table(title, ["", *(name.replace("_", " ") for name in names)], rows, " ".join(_rerank_notes(results)))


def _rerank_notes(results: dict[str, Any]) -> list[str]:
    notes = [INTERVALS]
    if "agreement" in results:
        order, likeliest = results["agreement"]["log_probability_per_code"], results["picks_likeliest"]
        if order["value"] is not None:
            notes.append(f"Spearman's correlation of score and log-probability per code within a text: {_rate(order)}.")
        share = _with_interval(likeliest["rate"], likeliest["interval"])
        notes.append(
            f"The pick is the AR's most likely candidate in {share} of the texts (chance {likeliest['chance']:.3f})."
        )
    if results.get("texts_with_one_candidate"):
        notes.append(f"{results['texts_with_one_candidate']} texts with a single candidate are left out.")
    if results.get("texts_in_several_voices"):
        notes.append("The candidates of a text have several voices, so a preference for a voice affects the pick.")
    return notes


def scores(metrics: Metrics) -> Table:
    results = metrics["scores"]
    rows = [
        [f"{words} pairs", *(_number(results[kind].get(name)) for name in ("mean", "standard_deviation", "auc"))]
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
            for word in (f"{value:.3f}", _with_interval(change["value"], change["interval"], signed=True))
        ]
        for row in rows
    ]
    note = f"Differences are paired over texts. {INTERVALS} They do not include the variance between training seeds."
    return Table("Comparison", header, cells, note)


def escape(text: str) -> str:
    """Escapes a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"


def _perturbation(row: dict[str, Any]) -> str:
    size = f" {row['share']:.0%}" if row["share"] else ""
    return f"{row['perturbation'].replace('_', ' ')}{size}"


def _mean_rate(rows: Sequence[dict[str, Any]]) -> float:
    return sum(row["rate"] for row in rows) / len(rows)


def _digits(name: str) -> int:
    return 1 if name.endswith("rank") else 3


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _rate(result: dict[str, Any]) -> str:
    return _with_interval(result["value"], result["interval"])


def _with_interval(value: float, bounds: Sequence[float] | None, digits: int = 3, signed: bool = False) -> str:
    sign = "+" if signed else ""
    shown = f"{value:{sign}.{digits}f}"
    return f"{shown} ({bounds[0]:{sign}.{digits}f} to {bounds[1]:{sign}.{digits}f})" if bounds else shown
