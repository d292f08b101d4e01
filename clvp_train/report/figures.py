"""Figures of a report, drawn with matplotlib on a transparent background for light and dark pages. Shapes: N gallery."""

import io
import itertools
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image

from clvp_train.metrics import KINDS, roc
from clvp_train.report.figure_data import FigureData
from clvp_train.report.reranking import PICKERS, ROWS, judges, words

INK = "#7a7f87"  # text and axes: readable on white and on black
COLORS = ("#3b82d6", "#e07b39", "#3aa676", "#b565c9", "#c9a227", "#d1495b", "#4fb0c6", "#8d99ae")
STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 10,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "clvp_train",  # makes the same figure the same bytes
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
SIZE = (4.4, 3.2)  # inches
MAX_VOICES = 8  # in a legend
LOSS, VALIDATED = "train/loss", "val/R@1"  # columns of the log


def draw(data: FigureData) -> dict[str, tuple[str, Figure]]:
    """Returns by name a title and a figure. The figures belong to no window and need not be closed."""
    empty: dict[Callable[[FigureData], Figure], bool] = {
        learning_curve: not any(LOSS in row for row in data.history),
        detection_rates: not data.perturbations,
        rerank_gain: not judges(data.rerank),
        projection_by_voice: not len(data.voices),
        projection_by_length: not len(data.lengths),
    }
    with matplotlib.rc_context(STYLE):
        return {plot.__name__: (title, plot(data)) for plot, title in TITLES.items() if not empty.get(plot)}


def svg(figure: Figure) -> str:
    """Returns a figure as an `<svg>` element; the same figure gives the same text."""
    sink = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]


def png(figure: Figure) -> Image.Image:
    """Returns a figure as an RGB image on white."""
    sink = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(sink, format="png", dpi=150, facecolor="white")
    return Image.open(sink).convert("RGB")


def learning_curve(data: FigureData) -> Figure:
    figure, axes = _figure()
    for name, label, color in ((LOSS, "training loss", COLORS[0]), (VALIDATED, "validation R@1", COLORS[1])):
        rows = [(row["step"], row[name]) for row in data.history if "step" in row and name in row]
        if not rows:
            continue
        axes = axes if name == LOSS else figure.axes[0].twinx()
        axes.plot(*zip(*rows), "-" if name == LOSS else "o-", color=color, markersize=3, linewidth=1)
        axes.set_ylabel(label, color=color)
        axes.tick_params(axis="y", colors=color)
    figure.axes[0].set_xlabel("optimiser step")
    return figure


def recall_curve(data: FigureData) -> Figure:
    figure, axes = _figure()
    size = len(next(iter(data.ranks.values())))
    k = np.unique(np.geomspace(1, size, 100).round())
    for direction, ranks_N in data.ranks.items():
        axes.plot(k, np.searchsorted(np.sort(ranks_N), k, side="right") / size, label=direction)
    axes.plot(k, k / size, ":", color=INK, label="chance")
    axes.set(xscale="log", xlabel=f"k (gallery of {size})", ylabel="recall at k", ylim=(0, 1.02))
    axes.legend()
    return figure


def rank_histogram(data: FigureData) -> Figure:
    figure, axes = _figure()
    size = len(next(iter(data.ranks.values())))
    edges = np.unique(np.concatenate([[1, 2, 3, 4, 6, 11], np.geomspace(11, max(size, 12) + 1, 8)]).round())
    centres, width = np.arange(len(edges) - 1), 0.4
    for index, (direction, ranks_N) in enumerate(data.ranks.items()):
        counts = np.histogram(np.floor(ranks_N), edges)[0]
        axes.bar(centres + (index - 0.5) * width, counts / size, width, label=direction)
    names = [f"{low:.0f}" if high - low == 1 else f"{low:.0f}–{high - 1:.0f}" for low, high in zip(edges, edges[1:])]
    axes.set_xticks(centres, names, rotation=45, ha="right")
    axes.set(xlabel="rank of the correct match", ylabel="share of queries")
    axes.legend()
    return figure


def score_distributions(data: FigureData) -> Figure:
    figure, axes = _figure()
    every = np.concatenate(list(data.scores.values()))
    edges = np.linspace(every.min(), every.max() + 1e-9, 50)
    for kind, scores in data.scores.items():
        axes.hist(scores, edges, density=True, histtype="stepfilled", alpha=0.5, label=f"{KINDS[kind]} pairs")
    axes.set(xlabel="score (cosine similarity)", ylabel="density")
    axes.legend()
    return figure


def roc_curve(data: FigureData) -> Figure:
    figure, axes = _figure()
    for kind, scores in data.scores.items():
        if kind != "true":
            axes.plot(*_thin(roc(data.scores["true"], scores)), label=f"matched vs. {KINDS[kind]}")
    axes.plot([0, 1], [0, 1], ":", color=INK, label="chance")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend()
    return figure


def similarity(data: FigureData) -> Figure:
    figure, axes = _figure()
    image = axes.imshow(data.similarity, cmap="viridis", interpolation="nearest")
    axes.set(xlabel="speech codes", ylabel="texts", xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, label="score").outline.set_visible(False)
    return figure


def detection_rates(data: FigureData) -> Figure:
    """One group of bars per perturbation, one bar per size."""
    names = list(dict.fromkeys(row["perturbation"] for row in data.perturbations))
    figure, axes = _figure((SIZE[0], 1.2 + 0.42 * len(names)))
    shares = sorted({row["share"] for row in data.perturbations if row["share"]})
    height = 0.8 / max(1, len(shares))
    for row in data.perturbations:
        position = shares.index(row["share"]) if row["share"] else (len(shares) - 1) / 2
        y, (low, high) = names.index(row["perturbation"]) + (position - (len(shares) - 1) / 2) * height, row["interval"]
        color = COLORS[shares.index(row["share"]) % len(COLORS)] if row["share"] else INK
        axes.barh(y, row["rate"], height * 0.9, color=color)
        axes.plot([low, high], [y, y], color=INK, linewidth=1)
    for share, color in zip(shares, itertools.cycle(COLORS)):
        axes.barh(0, 0, color=color, label=f"{share:.0%}")
    axes.axvline(0.5, color=INK, linestyle=":")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set(xlabel="detection rate", xlim=(0, 1.02))
    axes.invert_yaxis()
    place = {"loc": "upper center", "bbox_to_anchor": (0.4, -0.6 / (0.6 + 0.42 * len(names)))}
    axes.legend(title="share perturbed", ncols=3, **place)
    return figure


def rerank_gain(data: FigureData) -> Figure:
    """One panel per judge: the difference to a random candidate by number of candidates, with the interval of the pick."""
    names = judges(data.rerank)
    figure, panels = _figure((SIZE[0], 2.5 * len(names) + 0.5), rows=len(names))
    for name, axes in zip(names, np.atleast_1d(panels)):
        curve = data.rerank[name]["curve"]
        for picker, label in (*PICKERS.items(), ("best", ROWS["best"])):
            if picker in curve:
                values = [gain["value"] for gain in curve[picker]]
                axes.plot(curve["candidates"], values, "--" if picker == "best" else ".-", label=label)
        color = axes.lines[list(PICKERS).index("pick") if "likeliest" in curve else 0].get_color()
        bounds = np.array([gain["interval"] for gain in curve["pick"]])
        axes.fill_between(curve["candidates"], *bounds.T, color=color, alpha=0.2, linewidth=0)
        axes.axhline(0, color=INK, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(curve["candidates"], curve["candidates"])
        axes.set(ylabel=f"{words(name)} − random")
    axes.set(xlabel="candidates")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.25), ncols=2)
    return figure


def projection_by_voice(data: FigureData) -> Figure:
    figure, axes = _figure()
    voices = np.asarray(data.voices)[data.rows]
    names, counts = np.unique(voices, return_counts=True)
    largest = names[np.argsort(-counts, kind="stable")][:MAX_VOICES]
    for voice in largest:
        name = str(voice).replace("$", "\\$")  # no formula
        axes.scatter(*data.projection[voices == voice].T, s=8, alpha=0.7, linewidths=0, label=name)
    if len(names) > len(largest):
        others = ~np.isin(voices, largest)
        axes.scatter(*data.projection[others].T, s=8, alpha=0.4, linewidths=0, color=INK, label="others")
    axes.set(xlabel="principal component 1", ylabel="principal component 2", xticks=[], yticks=[])
    axes.legend(markerscale=2, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4)
    return figure


def projection_by_length(data: FigureData) -> Figure:
    figure, axes = _figure()
    lengths = np.asarray(data.lengths)[data.rows]
    points = axes.scatter(*data.projection.T, c=lengths, s=8, alpha=0.8, linewidths=0, cmap="viridis")
    axes.set(xlabel="principal component 1", ylabel="principal component 2", xticks=[], yticks=[])
    figure.colorbar(points, ax=axes, label="speech codes").outline.set_visible(False)
    return figure


TITLES: dict[Callable[[FigureData], Figure], str] = {
    learning_curve: "Learning curve",
    recall_curve: "Recall at k",
    rank_histogram: "Rank of the correct match",
    score_distributions: "Score distributions",
    roc_curve: "ROC: matched vs. mismatched",
    similarity: "Scores of some texts and codes",
    projection_by_voice: "Speech embeddings by voice",
    projection_by_length: "Speech embeddings by length",
    detection_rates: "Perturbation detection",
    rerank_gain: "Gain of re-ranking",
}

CAPTIONS = {
    "learning_curve": "Loss of single batches, and retrieval on the validation split.",
    "recall_curve": "Share of queries whose correct match is among the first k results.",
    "rank_histogram": "Share of queries by the place of their correct match; 1 is best.",
    "score_distributions": "The less matched pairs overlap with others, the better the score separates them.",
    "roc_curve": "For every threshold, the share of matched pairs above it against that of other pairs.",
    "similarity": "Matched pairs are on the diagonal, which is brighter than the rest in a good model.",
    "projection_by_voice": "Clusters by colour mean that embeddings contain the voice, not only the words.",
    "projection_by_length": "A gradient means that embeddings contain the length.",
    "detection_rates": "How often a matched pair scores higher than its perturbed copy, with 95% intervals; chance is 0.5.",
    "rerank_gain": "Error of the picked candidate minus that of a random one, by number of candidates; lower is better.",
}


def _figure(size: tuple[float, float] = SIZE, rows: int = 1):
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows)


def _thin(curve: tuple[np.ndarray, np.ndarray], points: int = 500) -> list[np.ndarray]:
    indices = np.unique(np.linspace(0, len(curve[0]) - 1, points).round().astype(int))
    return [values[indices] for values in curve]
