"""How sure a mean is: bootstrap over texts. Shapes: N texts, K quantities, R resamples."""

from collections.abc import Callable, Iterator

import numpy as np

Interval = list[float]  # [low, high]
RESAMPLES, LEVEL, SEED = 1000, 95, 0
VALUES_AT_ONCE = 8_000_000


def interval(values_N: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray] | None = None) -> Interval:
    """The percentile interval of a mean, or of a function of means (Efron and Tibshirani 1993, chapter 13).

    The same N gives the same resamples, so that an interval of differences between two models is a paired one.

    Args:
        values_N: one a text; or (N, K).
        statistic: of (R, K) means, R results; None: the mean itself, for (N,) values.

    Returns:
        [low, high], which hold 95% of the resampled statistics.
    """
    values_NK = np.asarray(values_N, dtype=np.float64).reshape(len(values_N), -1)
    means_RK = np.concatenate([counts @ values_NK / len(values_NK) for counts in _counts(len(values_NK))])
    return _percentiles(means_RK[:, 0] if statistic is None else statistic(means_RK))


def median_interval(values_N: np.ndarray) -> Interval:
    """The same of the median."""
    sorted_N, found = np.sort(values_N), []
    middle = np.array([(len(sorted_N) - 1) // 2, len(sorted_N) // 2])  # two places where N is even
    for counts_RN in _counts(len(sorted_N)):
        found += [
            sorted_N[np.searchsorted(up_to_N, middle, side="right")].mean() for up_to_N in counts_RN.cumsum(axis=1)
        ]
    return _percentiles(np.array(found))


def _counts(size: int) -> Iterator[np.ndarray]:
    """How often each text occurs in each of the resamples, in blocks."""
    rng, at_once = np.random.default_rng((SEED, size)), max(1, VALUES_AT_ONCE // size)
    for start in range(0, RESAMPLES, at_once):
        draws = rng.integers(size, size=(min(at_once, RESAMPLES - start), size))
        yield np.stack([np.bincount(draw, minlength=size) for draw in draws])


def _percentiles(found_R: np.ndarray) -> Interval:
    low, high = np.nanpercentile(found_R, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return [float(low), float(high)]
