import numpy as np
import pytest

from clvp_train.metrics import auc, percentile, roc, score_table, win_rate


def test_a_win_counts_one_and_a_tie_half():
    assert win_rate(np.array([3.0, 1.0, 2.0]), np.array([2.0, 2.0, 2.0])).tolist() == [1, 0, 0.5]


def test_auc_counts_pairs_as_the_definition_does():
    rng = np.random.default_rng(0)
    true, other = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 33).astype(float)
    assert auc(true, other) == pytest.approx(win_rate(true[:, None], other).mean(), abs=1e-12)


def test_auc_of_chance_of_the_perfect_and_of_the_perverse():
    same = np.ones(5)
    assert auc(same, np.ones(8)) == 0.5
    assert auc(same, np.zeros(3)) == 1 and auc(np.zeros(3), same) == 0
    rng = np.random.default_rng(0)
    assert auc(rng.random(4000), rng.random(4000)) == pytest.approx(0.5, abs=0.02)


def test_the_area_under_the_curve_is_the_auc():
    rng = np.random.default_rng(1)
    true, other = rng.normal(1, 1, 300).round(1), rng.normal(0, 1, 200).round(1)
    false_rate, true_rate = roc(true, other)
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)
    assert (np.diff(false_rate) >= 0).all() and (np.diff(true_rate) >= 0).all()
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(auc(true, other), abs=1e-12)


def test_a_table_says_how_many_pairs_score_lower():
    true, mismatched = np.linspace(0.5, 1, 1001), np.linspace(-1, 1, 1001)
    table = score_table(true, mismatched)
    assert percentile(table, 0.75) == pytest.approx(50, abs=0.01)
    assert percentile(table, 0.75, "mismatched") == pytest.approx(87.5, abs=0.01)
    assert percentile(table, 0.4) == 0 and percentile(table, 2.0) == 100
    assert [len(column) for column in table.values()] == [101, 101, 101]


def test_a_score_that_many_pairs_share_is_in_their_middle():
    table = score_table(np.array([0.0] * 10 + [0.5] * 80 + [1.0] * 10), np.zeros(4))
    assert percentile(table, 0.5) == pytest.approx(50, abs=1)
    assert percentile(table, 0.0, "mismatched") == 50
