import numpy as np
import pytest
from scipy import stats

from clvp_train.metrics import interval, median_interval


def test_the_interval_of_a_mean_is_that_of_scipys_bootstrap():
    values = np.random.default_rng(0).normal(3, 2, 400)
    reference = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert interval(values) == pytest.approx([reference.low, reference.high], abs=0.03)


def test_it_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = [low <= 0.3 <= high for low, high in (interval((rng.random(300) < 0.3).astype(float)) for _ in range(200))]
    assert 0.89 <= np.mean(inside) <= 0.99


def test_what_does_not_vary_has_no_width():
    assert interval(np.full(50, 0.25)) == [0.25, 0.25] == median_interval(np.full(50, 0.25))


def test_the_same_values_give_the_same_interval_and_pairs_are_paired():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 5, 200)  # of a text, for both models
    first, second = difficulty + rng.normal(0, 0.1, 200), difficulty + 0.2 + rng.normal(0, 0.1, 200)
    assert interval(first) == interval(first)
    low, high = interval(second - first)
    assert 0 < low < 0.2 < high and interval(first)[1] > interval(second)[0], "apart only in pairs"


def test_a_function_of_several_means():
    values = np.stack([np.arange(1.0, 101), np.full(100, 2.0)], axis=1)
    assert interval(values, lambda means: means[:, 0] / means[:, 1]) == pytest.approx(
        [bound / 2 for bound in interval(values[:, 0])]
    )


@pytest.mark.parametrize("size", [2, 5, 100, 101])
def test_the_interval_of_a_median_is_that_of_resampled_medians(size):
    values = np.random.default_rng(size).permutation(size).astype(float)
    draws = np.random.default_rng(1).choice(values, (4000, size))
    reference = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    assert median_interval(values) == pytest.approx(reference.tolist(), abs=0.06 * size)


def test_a_large_split_is_resampled_in_blocks(monkeypatch):
    import clvp_train.metrics.bootstrap as module

    values = np.random.default_rng(0).random(500)
    monkeypatch.setattr(module, "VALUES_AT_ONCE", 1000)
    blocks = interval(values)
    monkeypatch.setattr(module, "VALUES_AT_ONCE", 10**9)
    assert blocks == pytest.approx(interval(values), abs=1e-12)
