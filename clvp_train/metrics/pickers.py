"""Picking one candidate of each text by a score. Shapes: N texts, K candidates per text at most, W weights, F folds.

Arrays of candidates are NaN where a text has fewer than K. Of equal scores the first candidate is picked.
"""

import numpy as np

FOLDS = 5
# strengths of the log-probability that are tried, relative to the score: at 1 both vary equally within a text
STRENGTHS = np.array([0, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8])


def best_candidate(scores_NK: np.ndarray) -> np.ndarray:
    """(N,) index of the candidate with the highest score."""
    return np.where(np.isfinite(scores_NK), scores_NK, -np.inf).argmax(axis=1)


def picked(scores_NK: np.ndarray, values_NK: np.ndarray, size: int | None = None) -> np.ndarray:
    """Returns (N,) the value of the candidate with the highest score.

    Args:
        scores_NK: picks.
        values_NK: of which a value is returned.
        size: returns the exact expected value over random subsets of this many candidates, or of all if a text has fewer.
            None: picks among all candidates.
    """
    if size is None:
        return values_NK[np.arange(len(values_NK)), best_candidate(scores_NK)]
    order_NK = np.argsort(-scores_NK, axis=1, kind="stable")  # NaN last
    num_N1 = np.isfinite(scores_NK).sum(axis=1, keepdims=True)
    size_N1 = np.minimum(size, num_N1)
    # Of n candidates in order, number j is the best of a subset of s with probability C(n - 1 - j, s - 1) / C(n, s): s / n
    # for the first, and each time (n - j - s) / (n - j - 1) of the one before it.
    left_NK = num_N1 - np.arange(scores_NK.shape[1])
    ratio_NK = np.clip(left_NK - size_N1, 0, None) / np.maximum(left_NK - 1, 1)
    chance_NK = size_N1 / num_N1 * np.cumprod(np.hstack([np.ones_like(num_N1), ratio_NK[:, :-1]]), axis=1)
    return (chance_NK * np.nan_to_num(np.take_along_axis(values_NK, order_NK, axis=1))).sum(axis=1)


def rank_correlations(first_NK: np.ndarray, second_NK: np.ndarray) -> np.ndarray:
    """Returns (N,) Spearman's correlations within each text; NaN if all candidates tie in one of the two."""
    first_NK, second_NK = (_centred_ranks(values_NK) for values_NK in (first_NK, second_NK))
    scale_N = np.sqrt((first_NK**2).sum(axis=1) * (second_NK**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return (first_NK * second_NK).sum(axis=1) / np.where(scale_N > 0, scale_N, np.nan)


def cross_fitted_weight(scores_NK: np.ndarray, added_NK: np.ndarray, errors_NK: np.ndarray) -> tuple[float, np.ndarray]:
    """Chooses the weight of a second score so that the pick by score + weight × second score has the fewest errors.

    The weight of a text is chosen on the texts of the other folds, so that an evaluation with these weights is one on texts
    that did not choose them. Of equally good weights the smallest is taken.

    Args:
        scores_NK: the first score.
        added_NK: the second one.
        errors_NK: of each candidate. Texts with NaN only do not take part in the choice.

    Returns:
        The weight chosen on all texts, and (N,) the weight of each text.
    """
    spreads = [np.nanmean(np.nanstd(values_NK, axis=1)) for values_NK in (scores_NK, added_NK)]
    weights_W = STRENGTHS * (spreads[0] / spreads[1] if spreads[1] > 0 else 0.0)
    picked_NW = np.stack([picked(scores_NK + weight * added_NK, errors_NK) for weight in weights_W], axis=1)
    picked_NW = np.nan_to_num(picked_NW)
    folds_N = np.arange(len(scores_NK)) % FOLDS
    others_FW = np.stack([picked_NW[folds_N != fold].sum(axis=0) for fold in range(FOLDS)])
    return float(weights_W[picked_NW.sum(axis=0).argmin()]), weights_W[others_FW.argmin(axis=1)][folds_N]


def _centred_ranks(values_NK: np.ndarray) -> np.ndarray:
    """(N, K) ranks within a text minus their mean; ties share a rank; 0 for NaN."""
    above_NK = (values_NK[:, :, None] > values_NK[:, None]).sum(axis=2)
    ranks_NK = above_NK + (values_NK[:, :, None] == values_NK[:, None]).sum(axis=2) / 2
    known_NK = np.isfinite(values_NK)
    mean_N1 = (ranks_NK * known_NK).sum(axis=1, keepdims=True) / np.maximum(known_NK.sum(axis=1, keepdims=True), 1)
    return np.where(known_NK, ranks_NK - mean_N1, 0.0)
