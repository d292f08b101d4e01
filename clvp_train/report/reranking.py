"""What re-ranking is worth: a paragraph and tables for the metrics of `metrics.reranking_metrics`."""

from typing import Any

from clvp_train.metrics import JUDGES
from clvp_train.report.table import INTERVALS, Metrics, Table, rate, with_interval

PICKERS = {"likeliest": "most likely for the AR", "pick": "highest score", "combined": "score and AR combined"}
ROWS = {
    "random": "random candidate",
    **PICKERS,
    "best": "best possible",
    "gain": "highest score − random",
    "gain_likeliest": "most likely for the AR − random",
    "gain_combined": "score and AR combined − random",
}
QUALITIES = ("finished", "log_probability_per_code", *JUDGES)  # of candidates
NOT_JUDGED = "What re-ranking is worth is not measured: set rerank.asr or rerank.recordings, or import qualities."


def worth(metrics: Metrics) -> str:
    """Returns a paragraph on what re-ranking is worth on the evaluated candidates, and how many are worth drawing; "" if there
    are no candidates."""
    results = metrics.get("rerank")
    if not results:
        return ""
    names = judges(results)
    if not names:  # reports of earlier versions have a judge, but not its answers to this question
        return "" if any(name in results for name in JUDGES) else NOT_JUDGED
    sentences = [f"Re-ranking {results['texts']} texts × {results['candidates']:.4g} candidates."]
    sentences += [_gain(words(name), results[name]) for name in names]
    if "combination" in results:
        gains = [f"{words(name)} {_signed(results[name]['gain_combined'])}" for name in names]
        sentences.append(f"Score and AR's log-probability combined, minus random: {', '.join(gains)}.")
    return " ".join(sentences)


def rerank_tables(metrics: Metrics) -> list[Table]:
    """Returns the comparison of pickers, the shares of the gap that they close, and gains by number of candidates."""
    results = metrics.get("rerank")
    if not results:
        return []
    names = judges(results)
    return [_pickers(results), *([_worth(results, names)] if names else []), *(_curve(results, name) for name in names)]


def summary_lines(metrics: Metrics) -> list[str]:
    """Returns a line per quality of the candidates, and the paragraph of `worth`."""
    results, lines = metrics.get("rerank", {}), []
    for name in (name for name in QUALITIES if name in results):
        random, pick, best = (f"{results[name][picker]['value']:.3f}" for picker in ("random", "pick", "best"))
        lines.append(f"re-ranking, {words(name)}: random {random} → highest score {pick} (best {best})")
    return lines + ([worth(metrics)] if judges(results) else [])


def words(name: str) -> str:
    """Returns the display name of a judge."""
    return name.replace("_", " ")


def judges(results: dict[str, Any]) -> list[str]:
    """Returns the judges of an evaluation; none for reports of earlier versions."""
    return [name for name in JUDGES if "curve" in results.get(name, {})]


def _gain(name: str, result: dict[str, Any]) -> str:
    low, high = result["gain"]["interval"]
    pick, random, closed = result["pick"]["value"], result["random"]["value"], result["gap_closed"]["pick"]["value"]
    compared = f"{name.capitalize()}: {pick:.3f} for the highest score, {random:.3f} for a random candidate"
    difference = f"the difference of {_signed(result['gain'])}"
    if low <= 0 <= high:
        return f"{compared}; {difference} is not distinguishable from zero."
    if low > 0:
        return f"{compared}; {difference} is a loss."
    return (
        f"{compared}; {difference} closes {closed:.0%} of the gap to the best possible candidate, and "
        f"{result['enough']['pick']} candidates give at least 80% of it."
    )


def _pickers(results: dict[str, Any]) -> Table:
    names = [name for name in QUALITIES if name in results]
    rows = [
        [row, *(rate(results[name][picker]) if picker in results[name] else "" for name in names)]
        for picker, row in ROWS.items()
        if any(picker in results[name] for name in names)
    ]
    title = f"Re-ranking {results['texts']} texts × {results['candidates']:.4g} candidates"
    return Table(title, ["", *map(words, names)], rows, " ".join(_notes(results)))


def _notes(results: dict[str, Any]) -> list[str]:
    notes = [INTERVALS]
    if "combination" in results:
        chosen = results["combination"]
        notes.append(
            f"Combined: score + {chosen['weight']:.3g} × log-probability per code. The weight for a text is chosen by the "
            f"{words(chosen['judge'])} of other texts ({chosen['folds']}-fold cross-fitting)."
        )
    for name in (name for name in judges(results) if results[name]["texts"] < results["texts"]):
        notes.append(f"{words(name).capitalize()}: {results[name]['texts']} texts, whose candidates have a recording.")
    if "agreement" in results:
        order, likeliest = results["agreement"]["log_probability_per_code"], results["picks_likeliest"]
        if order["value"] is not None:
            notes.append(f"Spearman's correlation of score and log-probability per code within a text: {rate(order)}.")
        share = with_interval(likeliest["rate"], likeliest["interval"])
        notes.append(
            f"The pick is the AR's most likely candidate in {share} of the texts (chance {likeliest['chance']:.3f})."
        )
    if results.get("texts_with_one_candidate"):
        notes.append(f"{results['texts_with_one_candidate']} texts with a single candidate are left out.")
    if results.get("texts_in_several_voices"):
        notes.append("The candidates of a text have several voices, so a preference for a voice affects the pick.")
    return notes


def _worth(results: dict[str, Any], names: list[str]) -> Table:
    columns = [(name, kind) for kind in ("gap_closed", "correlation") for name in names]
    titles = {"gap_closed": "gap closed", "correlation": "correlation"}
    rows = [
        [row, *(_known(results[name][kind][picker]) for name, kind in columns)]
        for picker, row in PICKERS.items()
        if picker in results[names[0]]
    ]
    note = (
        "Gap closed: the share of the difference between a random candidate (0) and the best possible one (1). "
        f"Correlation: Spearman's within a text, positive if higher-scoring candidates are better. {INTERVALS}"
    )
    header = ["", *(f"{titles[kind]}, {words(name)}" for name, kind in columns)]
    return Table("What re-ranking is worth", header, rows, note)


def _curve(results: dict[str, Any], name: str) -> Table:
    curve, enough = results[name]["curve"], results[name]["enough"]
    pickers = [picker for picker in (*PICKERS, "best") if picker in curve]
    rows = [
        [str(size), *(_signed(curve[picker][row]) for picker in pickers)]
        for row, size in enumerate(curve["candidates"])
    ]
    note = f"Difference to a random candidate, expected over random subsets of the candidates. {INTERVALS}"
    if counts := [f"{count} ({ROWS[picker]})" for picker, count in enough.items() if count]:
        note += f" At least 80% of the gain with all candidates: {', '.join(counts)}."
    title = f"{words(name).capitalize()} by number of candidates"
    return Table(title, ["candidates", *(ROWS[picker] for picker in pickers)], rows, note)


def _known(result: dict[str, Any]) -> str:
    return "" if result["value"] is None else rate(result)


def _signed(result: dict[str, Any]) -> str:
    return with_interval(result["value"], result["interval"], signed=True)
