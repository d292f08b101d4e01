"""Bootstrap confidence intervals over texts. Shapes: N texts, K quantities, R resamples."""

from collections.abc import Callable, Iterator

import numpy as np

Interval = list[float]  # [low, high]
RESAMPLES, LEVEL, SEED = 1000, 95, 0
MAX_DRAWS = 8_000_000  # at once, which bounds the memory


def interval(values_N: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray] | None = None) -> Interval:
    """Returns the 95% percentile interval of a mean, or of a function of means.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. The same N always gives the same resamples,
    so an interval of the differences between two models is a paired one, and an evaluation can be repeated exactly.

    Args:
        values_N: one value per text, or (N, K).
        statistic: maps (R, K) means to (R,) results. None: the mean itself, for (N,) values.
    """
    values_N = np.asarray(values_N, dtype=np.float64)
    means_R = np.concatenate([values_N[draws_RN].mean(axis=1) for draws_RN in _resamples(len(values_N))])
    return _percentiles(means_R if statistic is None else statistic(means_R))


def median_interval(values_N: np.ndarray) -> Interval:
    """Returns the 95% percentile interval of the median."""
    sorted_N = np.sort(values_N)
    medians_R = np.concatenate([np.median(sorted_N[draws_RN], axis=1) for draws_RN in _resamples(len(sorted_N))])
    return _percentiles(medians_R)


def _resamples(size: int) -> Iterator[np.ndarray]:
    """Yields blocks of (R, N) indices of texts, drawn with replacement."""
    rng, block = np.random.default_rng((SEED, size)), max(1, MAX_DRAWS // size)
    for start in range(0, RESAMPLES, block):
        yield rng.integers(size, size=(min(block, RESAMPLES - start), size))


def _percentiles(results_R: np.ndarray) -> Interval:
    low, high = np.nanpercentile(results_R, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return [float(low), float(high)]
