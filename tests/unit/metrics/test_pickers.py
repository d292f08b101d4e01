from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from clvp_train.metrics.pickers import FOLDS, STRENGTHS, cross_fitted_weight, picked, rank_correlations


def make(texts=7, most=6):
    """Scores with ties and values; some texts have fewer candidates."""
    rng = np.random.default_rng(0)
    scores, values = rng.random((texts, most)).round(1), rng.random((texts, most))
    for row in range(texts):
        scores[row, most - row % 4 :] = values[row, most - row % 4 :] = np.nan
    return scores, values


@pytest.mark.parametrize("size", [1, 2, 3, 6, 9, None])
def test_expected_pick_of_a_subset_against_all_subsets(size):
    scores, values = make()
    expected = []
    for scores_K, values_K in zip(scores, values):
        rows = np.flatnonzero(np.isfinite(scores_K))
        subsets = combinations(rows, min(size or len(rows), len(rows)))
        expected.append(np.mean([values_K[max(subset, key=lambda row: scores_K[row])] for subset in subsets]))
    assert picked(scores, values, size) == pytest.approx(expected)


def test_rank_correlations_against_scipy():
    first, second = make()
    expected = [stats.spearmanr(*rows, nan_policy="omit").statistic for rows in zip(first, second)]
    assert rank_correlations(first, second) == pytest.approx(expected)
    assert np.isnan(rank_correlations(np.ones((1, 4)), second[:1, :4])).all()


def test_the_weight_of_a_text_is_chosen_on_the_other_folds():
    rng = np.random.default_rng(0)
    errors = rng.random((40, 5))
    scores, added = (-errors + rng.normal(size=errors.shape) for _ in range(2))
    weight, weights = cross_fitted_weight(scores, added, errors)
    grid = STRENGTHS * scores.std(axis=1).mean() / added.std(axis=1).mean()

    def best(rows):
        totals = [sum(errors[row, np.argmax(scores[row] + w * added[row])] for row in rows) for w in grid]
        return grid[np.argmin(totals)]

    assert weight == pytest.approx(best(range(40))) and weight > 0
    for fold in range(FOLDS):
        assert weights[fold::FOLDS] == pytest.approx(best([row for row in range(40) if row % FOLDS != fold]))
    changed = np.where(np.arange(40)[:, None] % FOLDS == 0, -errors, errors)
    assert (cross_fitted_weight(scores, added, changed)[1][::FOLDS] == weights[::FOLDS]).all(), (
        "own errors do not count"
    )


def test_a_second_score_that_never_varies_gets_no_weight():
    scores, values = make()
    weight, weights = cross_fitted_weight(scores, np.where(np.isnan(scores), np.nan, 1.0), values)
    assert weight == 0 and not weights.any()
