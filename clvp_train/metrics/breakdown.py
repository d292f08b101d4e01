"""Retrieval of some of the texts apart. Shapes: N texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clvp_train.metrics.retrieval import RetrievalRanks, rank_summary

MAX_LABELS = 20


def by_label(labels_N: Sequence[str], ranks: RetrievalRanks) -> list[dict[str, Any]]:
    """A row for each of the most frequent labels, and one for all others: {"label", "texts": how many, "text_to_speech": {…},
    "speech_to_text": {…}}. Each text is ranked among all of them, not among its label's."""
    names, numbers_N, counts = np.unique(np.asarray(labels_N, dtype=str), return_inverse=True, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:MAX_LABELS]
    groups = [(str(names[number]), numbers_N == number) for number in largest]
    if len(names) > len(largest):
        groups.append((f"{len(names) - len(largest)} others", ~np.isin(numbers_N, largest)))
    return [
        {
            "label": label,
            "texts": int(which_N.sum()),
            "text_to_speech": rank_summary(ranks.text_to_speech[which_N]),
            "speech_to_text": rank_summary(ranks.speech_to_text[which_N]),
        }
        for label, which_N in groups
    ]


def by_quartile(values_N: np.ndarray, ranks: RetrievalRanks) -> list[dict[str, Any]]:
    """Rows for the quarters of whole numbers from low to high, labelled "least–most"; fewer where many are equal."""
    bounds = np.unique(np.quantile(values_N, [0.25, 0.5, 0.75], method="lower"))
    quarter = np.searchsorted(bounds, values_N, side="left")
    labels = {
        part: f"{values_N[quarter == part].min()}–{values_N[quarter == part].max()}" for part in np.unique(quarter)
    }
    rows = {row["label"]: row for row in by_label([labels[part] for part in quarter], ranks)}
    return [rows[label] for label in labels.values()]
