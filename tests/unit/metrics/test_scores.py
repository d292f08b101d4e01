import math

import numpy as np
import pytest
import torch
from scipy import linalg

from clvp_train.metrics import auc, clvp_score, frechet_distance, percentile, roc, score_table, win_rate


def test_win_rate_counts_ties_as_half():
    assert win_rate(np.array([3.0, 1.0, 2.0]), np.array([2.0, 2.0, 2.0])).tolist() == [1, 0, 0.5]


def test_auc_equals_its_definition():
    rng = np.random.default_rng(0)
    matched, other = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 33).astype(float)
    assert auc(matched, other) == pytest.approx(win_rate(matched[:, None], other).mean(), abs=1e-12)
    same = np.ones(5)
    assert (auc(same, np.ones(8)), auc(same, np.zeros(3)), auc(np.zeros(3), same)) == (0.5, 1, 0)


def test_area_under_the_roc_curve_is_the_auc():
    rng = np.random.default_rng(1)
    matched, other = rng.normal(1, 1, 300).round(1), rng.normal(0, 1, 200).round(1)
    false_rate, true_rate = roc(matched, other)
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)
    assert (np.diff(false_rate) >= 0).all() and (np.diff(true_rate) >= 0).all()
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(auc(matched, other), abs=1e-12)


def test_percentiles_of_a_score_table():
    table = score_table(np.linspace(0.5, 1, 1001), np.linspace(-1, 1, 1001))
    assert percentile(table, 0.75) == pytest.approx(50, abs=0.01)
    assert percentile(table, 0.75, "mismatched") == pytest.approx(87.5, abs=0.01)
    assert percentile(table, 0.4) == 0 and percentile(table, 2.0) == 100
    assert [len(column) for column in table.values()] == [101, 101, 101]


def test_a_repeated_score_has_the_middle_percentile():
    table = score_table(np.array([0.0] * 10 + [0.5] * 80 + [1.0] * 10), np.zeros(4))
    assert percentile(table, 0.5) == pytest.approx(50, abs=1)
    assert percentile(table, 0.0, "mismatched") == 50


@pytest.mark.parametrize("width", [1, 6])
def test_frechet_distance_of_known_normal_distributions(width):
    draw = torch.Generator().manual_seed(0)
    standard = torch.randn(200_000, width, generator=draw)
    moved = 3 * torch.randn(200_000, width, generator=draw) + 2
    # of N(0, 1) and N(2, 9) per dimension: 2 ** 2 + (3 - 1) ** 2
    assert frechet_distance(standard, moved) == pytest.approx(8 * width, rel=0.02)


def test_frechet_distance_against_the_formula_of_tts_scores():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8)), rng.normal(1, 2, size=(50, 8))
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    means = first.mean(0) - second.mean(0)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real  # as in pytorch-fid, which tts-scores calls
    expected = means @ means + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(torch.from_numpy(first), torch.from_numpy(second)) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_with_fewer_embeddings_than_dimensions():
    few = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(few, few + 1) == pytest.approx(64, rel=1e-5)
    with pytest.raises(ValueError, match="two"):
        frechet_distance(few[:1], few)


def test_clvp_score_is_the_mean_similarity_times_the_temperature():
    text, speech = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert clvp_score(text, speech, math.log(20)) == pytest.approx(10)
