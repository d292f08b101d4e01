"""Retrieval of some of the texts apart. Shapes: N texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clvp_train.metrics.retrieval import Ranks, summary


def by_label(labels_N: Sequence[str], ranks: Ranks) -> list[dict[str, Any]]:
    """A row for every label, in the order in which they first occur: {"label", "texts": how many, "text_to_speech": {…},
    "speech_to_text": {…}}. Each text is ranked among all of them, not among its label's."""
    labels, rows = np.asarray(labels_N), []
    for label in dict.fromkeys(labels_N):
        which = labels == label
        rows.append(
            {
                "label": label,
                "texts": int(which.sum()),
                "text_to_speech": summary(ranks.text_to_speech[which]),
                "speech_to_text": summary(ranks.speech_to_text[which]),
            }
        )
    return rows


def by_quartile(values_N: np.ndarray, ranks: Ranks) -> list[dict[str, Any]]:
    """Rows for the quarters of whole numbers from low to high, labelled "least–most"; fewer where many are equal."""
    bounds = np.unique(np.quantile(values_N, [0.25, 0.5, 0.75], method="lower"))
    quarter = np.searchsorted(bounds, values_N, side="left")
    labels = {
        part: f"{values_N[quarter == part].min()}–{values_N[quarter == part].max()}" for part in np.unique(quarter)
    }
    rows = {row["label"]: row for row in by_label([labels[part] for part in quarter], ranks)}
    return [rows[label] for label in labels.values()]
