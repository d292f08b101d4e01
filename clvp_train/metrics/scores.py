"""Scores of matched pairs against scores of others. Shapes: N matched pairs, M others.

A pair is matched if the codes were drawn from, or recorded of, its text. The keys "true" of metrics.json mean matched pairs.
"""

from pathlib import Path
from typing import Any

import numpy as np

from clvp_train.errors import UserError
from clvp_train.io.digests import read_sealed_json

NUM_MISMATCHED = 10  # mismatched codes that each text is scored with
KINDS = {"true": "matched", "mismatched": "mismatched", "perturbed": "perturbed"}  # of pairs, key: display name
GRID = tuple(range(101))  # per cent
SCORE_TABLE_FILE = "score_table.json"  # next to the weights of a model
LOG_PROBABILITY_WEIGHT = "log_probability_weight"  # key of the file: see `pickers.cross_fitted_weight`
STORED = "stored"  # the weight in that file


def mismatched(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices of texts and of codes of other texts: some for every text, always the same."""
    steps = 1 + np.random.default_rng(0).permutation(size - 1)[:NUM_MISMATCHED]
    texts = np.tile(np.arange(size), len(steps))
    return texts, (texts + np.repeat(steps, size)) % size


def win_rate(ours_N: np.ndarray, theirs_N: np.ndarray) -> np.ndarray:
    """(N,) 1 where ours is higher, 0.5 where both are equal, 0 otherwise."""
    return (ours_N > theirs_N) + 0.5 * (ours_N == theirs_N)


def auc(true_N: np.ndarray, other_M: np.ndarray) -> float:
    """Returns the area under the ROC curve: the probability that a random matched pair scores higher than a random other one.

    Equal scores count one half, so constant scores give 0.5.
    """
    sorted_M = np.sort(other_M)
    below, up_to = (np.searchsorted(sorted_M, true_N, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(other_M))


def roc(true_N: np.ndarray, other_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns false and true positive rates at every threshold that changes them, from (0, 0) to (1, 1)."""
    thresholds = np.unique(np.concatenate([true_N, other_M]))[::-1]
    rates = [
        1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores) for scores in (other_M, true_N)
    ]
    return np.concatenate([[0.0], rates[0]]), np.concatenate([[0.0], rates[1]])


def score_table(true_N: np.ndarray, mismatched_M: np.ndarray) -> dict[str, Any]:
    """Returns the percentiles of both kinds of scores, which `percentile` reads; saved next to a model.

    Returns:
        {"percent": 0 to 100, "true": these percentiles of matched pairs, "mismatched": those of mismatched pairs}.
    """
    return {
        "percent": list(GRID),
        "true": np.percentile(true_N, GRID).tolist(),
        "mismatched": np.percentile(mismatched_M, GRID).tolist(),
    }


def read_score_table(folder: Path) -> dict[str, Any] | None:
    """Returns the score table next to a model; None if there is none.

    Raises:
        UserError: it is corrupt.
    """
    file = folder / SCORE_TABLE_FILE
    try:
        table = read_sealed_json(file.read_bytes())
        columns = np.array([table[name] for name in ("percent", "true", "mismatched")])
        if columns.size == 0 or not np.isfinite(columns).all() or not np.isfinite(table.get(LOG_PROBABILITY_WEIGHT, 0)):
            raise ValueError("its columns are not finite numbers")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: corrupt ({error!r}). Delete it, or run evaluate.py to write a new one.") from None
    return table


def weight_of(setting: float | str | None, table: dict[str, Any] | None, checkpoint: str | Path) -> float:
    """Returns the weight of the AR's log-probability that a setting means: a number, None for 0, or "stored" for that of a
    score table.

    Raises:
        UserError: the table has none, or the setting is not a number.
    """
    if setting == STORED:
        if LOG_PROBABILITY_WEIGHT in (table or {}):
            return float(table[LOG_PROBABILITY_WEIGHT])  # type: ignore[index]
        raise UserError(
            f"log_probability_weight={STORED}: checkpoint={checkpoint} has none in {SCORE_TABLE_FILE}. Set it to a number, or "
            "copy that file from a report of evaluate.py with rerank.asr or rerank.recordings into the model's folder."
        )
    if isinstance(setting, (str, bool)) or not np.isfinite(setting or 0):
        raise UserError(f"log_probability_weight={setting}: not a weight. Set it to a number, {STORED} or null.")
    return float(setting or 0)


def percentile(table: dict[str, Any], score: float, among: str = "true") -> float:
    """Returns the percentage of the "true" or "mismatched" pairs of a `score_table` that score lower, interpolated."""
    scores, percent = np.asarray(table[among]), np.asarray(table["percent"], dtype=np.float64)
    # several percentiles share this score: return the middle of them
    left, right = (np.searchsorted(scores, score, side=side) for side in ("left", "right"))
    if left != right:
        return float((percent[left] + percent[right - 1]) / 2)
    return float(np.interp(score, scores, percent))
