"""Figures with matplotlib, on no background, so that they sit on light and dark pages alike."""

import itertools
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from clvp_train.metrics import roc
from clvp_train.report.pictures import FigureData

INK = "#7a7f87"  # of text and axes, readable on white and on black
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
    "svg.hashsalt": "clvp_train",  # the same figure, the same bytes
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
SIZE = (4.4, 3.2)  # inches
MAX_LABELS = 8


def recall_curve(pictures: FigureData) -> Figure:
    figure, axes = _figure()
    size = len(next(iter(pictures.ranks.values())))
    k = np.unique(np.geomspace(1, size, 100).round())
    for direction, ranks_N in pictures.ranks.items():
        axes.plot(k, np.searchsorted(np.sort(ranks_N), k, side="right") / size, label=direction)
    axes.plot(k, k / size, ":", color=INK, label="chance")
    axes.set(xscale="log", xlabel=f"k, of {size}", ylabel="recall at k", ylim=(0, 1.02))
    axes.legend()
    return figure


def rank_histogram(pictures: FigureData) -> Figure:
    figure, axes = _figure()
    size = len(next(iter(pictures.ranks.values())))
    edges = np.unique(np.concatenate([[1, 2, 3, 4, 6, 11], np.geomspace(11, max(size, 12) + 1, 8)]).round())
    centres, width = np.arange(len(edges) - 1), 0.4
    for place, (direction, ranks_N) in enumerate(pictures.ranks.items()):
        counts = np.histogram(np.floor(ranks_N), edges)[0]
        axes.bar(centres + (place - 0.5) * width, counts / size, width, label=direction)
    names = [f"{low:.0f}" if high - low == 1 else f"{low:.0f}–{high - 1:.0f}" for low, high in zip(edges, edges[1:])]
    axes.set_xticks(centres, names, rotation=45, ha="right")
    axes.set(xlabel="rank of the right one", ylabel="share of texts")
    axes.legend()
    return figure


def score_distributions(pictures: FigureData) -> Figure:
    figure, axes = _figure()
    every = np.concatenate(list(pictures.scores.values()))
    edges = np.linspace(every.min(), every.max() + 1e-9, 50)
    for name, scores in pictures.scores.items():
        axes.hist(scores, edges, density=True, histtype="stepfilled", alpha=0.5, label=f"{name} pairs")
    axes.set(xlabel="score (cosine similarity)", ylabel="density")
    axes.legend()
    return figure


def roc_curve(pictures: FigureData) -> Figure:
    figure, axes = _figure()
    for name, scores in pictures.scores.items():
        if name != "true":
            axes.plot(*_thin(roc(pictures.scores["true"], scores)), label=f"true against {name}")
    axes.plot([0, 1], [0, 1], ":", color=INK, label="chance")
    axes.set(xlabel="others above the threshold", ylabel="true pairs above it")
    axes.legend()
    return figure


def similarity(pictures: FigureData) -> Figure:
    figure, axes = _figure()
    image = axes.imshow(pictures.similarity, cmap="viridis", interpolation="nearest")
    axes.set(xlabel="codes", ylabel="texts", xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, label="score").outline.set_visible(False)
    return figure


def detection_rates(pictures: FigureData) -> Figure:
    """One group of bars a perturbation, one bar a size."""
    names = list(dict.fromkeys(row["perturbation"] for row in pictures.perturbations))
    figure, axes = _figure((SIZE[0], 1.2 + 0.42 * len(names)))
    shares = sorted({row["share"] for row in pictures.perturbations if row["share"]})
    height = 0.8 / max(1, len(shares))
    for row in pictures.perturbations:
        place = shares.index(row["share"]) if row["share"] else (len(shares) - 1) / 2
        y, (low, high) = names.index(row["perturbation"]) + (place - (len(shares) - 1) / 2) * height, row["interval"]
        color = COLORS[shares.index(row["share"]) % len(COLORS)] if row["share"] else INK
        axes.barh(y, row["rate"], height * 0.9, color=color)
        axes.plot([low, high], [y, y], color=INK, linewidth=1)
    for share, color in zip(shares, itertools.cycle(COLORS)):
        axes.barh(0, 0, color=color, label=f"{share:.0%} of it")
    axes.axvline(0.5, color=INK, linestyle=":")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set(xlabel="true pair outscores the perturbed one", xlim=(0, 1.02))
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.6 / (0.6 + 0.42 * len(names))), ncols=3)
    return figure


def projection_by_voice(pictures: FigureData) -> Figure:
    figure, axes = _figure()
    voices = np.asarray(pictures.voices)[pictures.rows]
    names, counts = np.unique(voices, return_counts=True)
    largest = names[np.argsort(-counts, kind="stable")][:MAX_LABELS]
    for voice in largest:
        axes.scatter(*pictures.projection[voices == voice].T, s=8, alpha=0.7, linewidths=0, label=voice)
    if len(names) > len(largest):
        others = ~np.isin(voices, largest)
        axes.scatter(*pictures.projection[others].T, s=8, alpha=0.4, linewidths=0, color=INK, label="others")
    axes.set(xlabel="1st component", ylabel="2nd component", xticks=[], yticks=[])
    axes.legend(markerscale=2, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4)
    return figure


def projection_by_length(pictures: FigureData) -> Figure:
    figure, axes = _figure()
    lengths = pictures.lengths[pictures.rows]
    points = axes.scatter(*pictures.projection.T, c=lengths, s=8, alpha=0.8, linewidths=0, cmap="viridis")
    axes.set(xlabel="1st component", ylabel="2nd component", xticks=[], yticks=[])
    figure.colorbar(points, ax=axes, label="speech codes").outline.set_visible(False)
    return figure


TITLES: dict[Callable[[FigureData], Figure], str] = {
    recall_curve: "Recall among the first k",
    rank_histogram: "Ranks",
    score_distributions: "Scores",
    roc_curve: "Telling true pairs by their score (ROC)",
    similarity: "Some texts and their codes",
    projection_by_voice: "Embedded codes, by voice",
    projection_by_length: "Embedded codes, by length",
    detection_rates: "Perturbation detection",
}


def draw(pictures: FigureData) -> dict[str, tuple[str, Figure]]:
    """By name a title and a figure, of what the pictures hold. The figures belong to no window and need not be closed."""
    lacking: dict[Callable[[FigureData], Figure], bool] = {
        detection_rates: not pictures.perturbations,
        projection_by_voice: not len(pictures.voices),
        projection_by_length: not len(pictures.lengths),
    }
    with matplotlib.rc_context(STYLE):
        return {make.__name__: (title, make(pictures)) for make, title in TITLES.items() if not lacking.get(make)}


def _figure(size: tuple[float, float] = SIZE):
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def _thin(curve: tuple[np.ndarray, np.ndarray], points: int = 500) -> list[np.ndarray]:
    places = np.unique(np.linspace(0, len(curve[0]) - 1, points).round().astype(int))
    return [values[places] for values in curve]
