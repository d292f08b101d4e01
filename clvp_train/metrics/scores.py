"""What a score means: how those of true pairs lie to those of others. Shapes: N true pairs, M others."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from clvp_train.errors import UserError

NUM_MISMATCHED = 10  # other texts' codes that each text is scored with
GRID = tuple(range(101))  # per cent
SCORE_TABLE_FILE = "score_table.json"  # beside a model's weights


def mismatched(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of texts and of codes that are not theirs: every text with those of some others, always the same."""
    steps = 1 + np.random.default_rng(0).permutation(size - 1)[:NUM_MISMATCHED]
    texts = np.tile(np.arange(size), len(steps))
    return texts, (texts + np.repeat(steps, size)) % size


def win_rate(ours_N: np.ndarray, theirs_N: np.ndarray) -> np.ndarray:
    """(N,) 1 where ours is higher, 0.5 where both are equal, 0 else."""
    return (ours_N > theirs_N) + 0.5 * (ours_N == theirs_N)


def auc(true_N: np.ndarray, other_M: np.ndarray) -> float:
    """How likely a true pair outscores another one, both drawn at random: the area under the ROC curve. Equal scores count
    half, so that scores which tell nothing give 0.5."""
    sorted_M = np.sort(other_M)
    below, up_to = (np.searchsorted(sorted_M, true_N, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(other_M))


def roc(true_N: np.ndarray, other_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold that changes them, from (0, 0) to (1, 1)."""
    thresholds = np.unique(np.concatenate([true_N, other_M]))[::-1]
    rates = [
        1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores) for scores in (other_M, true_N)
    ]
    return np.concatenate([[0.0], rates[0]]), np.concatenate([[0.0], rates[1]])


def score_table(true_N: np.ndarray, mismatched_M: np.ndarray) -> dict[str, Any]:
    """The table that travels with a model, from which `percentile` reads.

    Returns:
        {"percent": 0 to 100, "true": score below which so many per cent of true pairs lie, "mismatched": likewise of texts
        with other texts' codes}.
    """
    return {
        "percent": list(GRID),
        "true": np.percentile(true_N, GRID).tolist(),
        "mismatched": np.percentile(mismatched_M, GRID).tolist(),
    }


def read_score_table(folder: Path) -> dict[str, Any] | None:
    """The table beside a model; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    file = folder / SCORE_TABLE_FILE
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        if not len(table["percent"]) == len(table["true"]) == len(table["mismatched"]) > 0:
            raise ValueError("its columns differ in length")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error!r}): remove it, or let evaluate.py write it again") from None
    return table


def percentile(table: dict[str, Any], score: float, among: str = "true") -> float:
    """Per cent of the pairs "true" or "mismatched" of a `score_table` that a score lies above, read between its lines."""
    scores, percent = np.asarray(table[among]), np.asarray(table["percent"], dtype=np.float64)
    # equal scores stand for a jump: its middle
    left, right = (np.searchsorted(scores, score, side=side) for side in ("left", "right"))
    if left != right:
        return float((percent[left] + percent[right - 1]) / 2)
    return float(np.interp(score, scores, percent))
