import numpy as np
import pytest
from scipy import stats

from clvp_train.metrics import bootstrap, interval, median_interval


def test_interval_of_a_mean_against_scipy():
    values = np.random.default_rng(0).normal(3, 2, 400)
    reference = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert interval(values) == pytest.approx([reference.low, reference.high], abs=0.03)


def test_coverage():
    rng = np.random.default_rng(0)
    inside = [low <= 0.3 <= high for low, high in (interval((rng.random(300) < 0.3).astype(float)) for _ in range(200))]
    assert 0.89 <= np.mean(inside) <= 0.99


def test_constant_values_have_no_width():
    assert interval(np.full(50, 0.25)) == [0.25, 0.25] == median_interval(np.full(50, 0.25))


def test_intervals_are_deterministic_and_differences_are_paired():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 5, 200)  # of a text, for both models
    first, second = difficulty + rng.normal(0, 0.1, 200), difficulty + 0.2 + rng.normal(0, 0.1, 200)
    assert interval(first) == interval(first)
    low, high = interval(second - first)
    assert 0 < low < 0.2 < high and interval(first)[1] > interval(second)[0], "only paired they differ"


def test_function_of_several_means():
    values = np.stack([np.arange(1.0, 101), np.full(100, 2.0)], axis=1)
    expected = [bound / 2 for bound in interval(values[:, 0])]
    assert interval(values, lambda means: means[:, 0] / means[:, 1]) == pytest.approx(expected)


@pytest.mark.parametrize("size", [2, 5, 100, 101])
def test_interval_of_a_median_against_resampled_medians(size):
    values = np.random.default_rng(size).permutation(size).astype(float)
    draws = np.random.default_rng(1).choice(values, (4000, size))
    reference = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    assert median_interval(values) == pytest.approx(reference.tolist(), abs=0.06 * size)


def test_resampling_in_blocks_changes_nothing(monkeypatch):
    values = np.random.default_rng(0).random(500)
    expected = interval(values)
    monkeypatch.setattr(bootstrap, "MAX_DRAWS", 1000)
    assert interval(values) == pytest.approx(expected, abs=1e-12)
