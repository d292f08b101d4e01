"""The gain from picking a candidate by score. Shapes: N texts, K candidates per text at most."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clvp_train.metrics.bootstrap import interval
from clvp_train.metrics.pickers import FOLDS, best_candidate, cross_fitted_weight, picked, rank_correlations

# the first available one chooses the weight
JUDGES = ("word_error_rate", "character_error_rate", "mel_distance", "negative_quality")
ENOUGH = 0.8  # share of the gain with all candidates that counts as enough

Result = dict[str, Any]  # {"value", "interval"}
Pickers = dict[str, np.ndarray]  # name: (N, K) scores, of which the highest is picked


@dataclass(frozen=True)
class Judge:
    """How bad the candidates are by a measure that knows neither CLVP nor the AR."""

    errors_NK: np.ndarray  # lower is better; NaN for all candidates of a text that is not judged
    lengths_N: np.ndarray  # rates are sums of errors over sums of lengths, such as words; ones for plain means


@dataclass(frozen=True)
class CandidateScores:
    """Scores and properties of the candidates of each text. NaN if a text has fewer than K, or if the value is unknown."""

    scores_NK: np.ndarray
    finished_NK: np.ndarray  # 1: ended with a stop token, 0: reached the limit of codes
    log_probabilities_NK: np.ndarray  # of all codes and the stop token under the AR, in nats
    num_codes_NK: np.ndarray
    judges: dict[str, Judge] = field(default_factory=dict)  # by name, of `JUDGES`

    @property
    def log_probabilities_per_code_NK(self) -> np.ndarray:
        return self.log_probabilities_NK / (self.num_codes_NK + self.finished_NK)  # the stop token counts as a code

    @property
    def has_log_probabilities(self) -> bool:
        return bool(np.isfinite(self.log_probabilities_NK[np.isfinite(self.scores_NK)]).all())


def reranking_metrics(candidates: CandidateScores) -> dict[str, Any]:
    """Compares the candidate with the highest score with a random one, the AR's most likely one, the one with the highest
    combination of both, and the best one.

    Returns:
        {"texts": N, "candidates": mean number per text}, and, where known, "finished" and
        "log_probability_per_code", see `_by_picker`; "agreement": Spearman's correlation of the scores with the AR's
        log-probabilities within a text; "picks_likeliest": how often the pick is the AR's most likely candidate; the name of
        each judge, see `_judged`; "combination": its weight, which judge chose it, and how.
    """
    scores_NK, per_code_NK = candidates.scores_NK, candidates.log_probabilities_per_code_NK
    pickers, combination = _pickers(candidates)
    results: dict[str, Any] = {
        "texts": len(scores_NK),
        "candidates": float(np.isfinite(scores_NK).sum(axis=1).mean()),
        "finished": _by_picker(candidates.finished_NK, pickers),
    }
    if candidates.has_log_probabilities:
        chance = float((1 / np.isfinite(scores_NK).sum(axis=1)).mean())
        same_N = (best_candidate(scores_NK) == best_candidate(per_code_NK)).astype(float)
        results |= {
            "log_probability_per_code": _by_picker(per_code_NK, pickers),
            "agreement": {
                "log_probability": _correlation(scores_NK, candidates.log_probabilities_NK),
                "log_probability_per_code": _correlation(scores_NK, per_code_NK),
            },
            "picks_likeliest": {"rate": float(same_N.mean()), "interval": interval(same_N), "chance": chance},
        }
    results |= {name: _judged(candidates.judges[name], pickers) for name in JUDGES if name in candidates.judges}
    return results | ({"combination": combination} if combination else {})


def picked_values(candidates: CandidateScores) -> dict[str, np.ndarray]:
    """Returns values of the candidate with the highest score of each text, for paired comparisons.

    They are "finished" and "log_probability_per_code", (N,) each, if known; and for each judge the values of the texts that it
    has judged, whose mean is the rate.
    """
    values = {"finished": candidates.finished_NK, "log_probability_per_code": candidates.log_probabilities_per_code_NK}
    picks = {name: picked(candidates.scores_NK, values_NK) for name, values_NK in values.items()}
    picks = {name: values_N for name, values_N in picks.items() if np.isfinite(values_N).all()}
    for name, judge in candidates.judges.items():
        values_N = picked(candidates.scores_NK, judge.errors_NK)
        judged_N = np.isfinite(values_N)
        picks[name] = values_N[judged_N] / judge.lengths_N[judged_N].mean()
    return picks


def _pickers(candidates: CandidateScores) -> tuple[Pickers, dict[str, Any]]:
    """The scores that pick, and how the combination of score and log-probability was chosen: {} if there is none."""
    pickers: Pickers = {"pick": candidates.scores_NK}
    if not candidates.has_log_probabilities:
        return pickers, {}
    per_code_NK = pickers["likeliest"] = candidates.log_probabilities_per_code_NK
    chooser = next((name for name in JUDGES if name in candidates.judges), None)
    if chooser is None:
        return pickers, {}
    errors_NK = candidates.judges[chooser].errors_NK
    weight, weights_N = cross_fitted_weight(candidates.scores_NK, per_code_NK, errors_NK)
    pickers["combined"] = candidates.scores_NK + weights_N[:, None] * per_code_NK
    return pickers, {"weight": weight, "judge": chooser, "folds": FOLDS, "weights": np.unique(weights_N).tolist()}


def _judged(judge: Judge, pickers: Pickers) -> dict[str, Any]:
    """Returns what `_by_picker` does for the texts that are judged, and how many these are ("texts"); for each picker
    "gap_closed", the share of the gap from random to best; "correlation", Spearman's within a text, of its score with low
    errors; "curve", differences to random by number of candidates; and "enough", the smallest number whose gain is 80% of
    that with all candidates; None if that gain is not distinguishable from zero.
    """
    judged_N = np.isfinite(judge.errors_NK).any(axis=1)
    errors_NK, lengths_N = judge.errors_NK[judged_N], judge.lengths_N[judged_N]
    pickers = {name: scores_NK[judged_N] for name, scores_NK in pickers.items()}
    curve = _curve(errors_NK, pickers | {"best": -errors_NK}, lengths_N)
    return {
        "texts": int(judged_N.sum()),
        **_by_picker(errors_NK, pickers, lengths_N, best=np.nanmin),
        "gap_closed": {name: _gap_closed(errors_NK, scores_NK) for name, scores_NK in pickers.items()},
        "correlation": {name: _correlation(scores_NK, -errors_NK) for name, scores_NK in pickers.items()},
        "curve": curve,
        "enough": {name: _enough(curve["candidates"], curve[name]) for name in pickers},
    }


def _by_picker(
    values_NK: np.ndarray,
    pickers: Pickers,
    lengths_N: np.ndarray | None = None,
    best: Callable[..., np.ndarray] = np.nanmax,
) -> dict[str, Result]:
    """Returns the mean of a quantity over the candidates that each picker takes.

    Returns:
        {"random": mean over all candidates, "best", and each picker}, each {"value", "interval"}; "gain": pick minus random,
        with the interval of the difference; "gain_likeliest" and "gain_combined" likewise. With `lengths_N`, the sum of the
        values over the sum of the lengths.
    """
    lengths_N = np.ones(len(values_NK)) if lengths_N is None else lengths_N
    random_N = np.nanmean(values_NK, axis=1)
    columns = {name: picked(scores_NK, values_NK) for name, scores_NK in pickers.items()}
    results = {"random": random_N, **columns, "best": best(values_NK, axis=1)}
    gains = {"gain" if name == "pick" else f"gain_{name}": values_N - random_N for name, values_N in columns.items()}
    return {name: _rate(values_N, lengths_N) for name, values_N in (results | gains).items()}


def _rate(values_N: np.ndarray, lengths_N: np.ndarray) -> Result:
    both_N2 = np.stack([values_N, lengths_N], axis=1)
    bounds = interval(both_N2, lambda means_R2: means_R2[:, 0] / means_R2[:, 1])
    return {"value": float(values_N.sum() / lengths_N.sum()), "interval": bounds}


def _gap_closed(errors_NK: np.ndarray, scores_NK: np.ndarray) -> Result:
    """The share of the gap from random to best that a picker closes; None if there is no gap."""
    columns = [np.nanmean(errors_NK, axis=1), picked(scores_NK, errors_NK), np.nanmin(errors_NK, axis=1)]
    random, own, best = (column.mean() for column in columns)
    if random == best:
        return {"value": None, "interval": [None, None]}

    def share(means_R3: np.ndarray) -> np.ndarray:
        gaps_R = means_R3[:, 0] - means_R3[:, 2]
        return (means_R3[:, 0] - means_R3[:, 1]) / np.where(gaps_R > 0, gaps_R, np.nan)

    return {"value": float((random - own) / (random - best)), "interval": interval(np.stack(columns, axis=1), share)}


def _curve(errors_NK: np.ndarray, pickers: Pickers, lengths_N: np.ndarray) -> dict[str, Any]:
    """{"candidates": 1, 2, 4, … up to K; each picker: the difference to random with so many candidates, expected over random
    subsets of the candidates}."""
    most, random_N = errors_NK.shape[1], np.nanmean(errors_NK, axis=1)
    sizes = [*(2**power for power in range((most - 1).bit_length())), most]
    return {"candidates": sizes} | {
        name: [_rate(picked(scores_NK, errors_NK, size) - random_N, lengths_N) for size in sizes]
        for name, scores_NK in pickers.items()
    }


def _enough(sizes: list[int], gains: list[Result]) -> int | None:
    if gains[-1]["interval"][1] >= 0:
        return None
    return next(size for size, gain in zip(sizes, gains) if gain["value"] <= ENOUGH * gains[-1]["value"])


def _correlation(scores_NK: np.ndarray, others_NK: np.ndarray) -> dict[str, Any]:
    """The mean over texts of Spearman's rank correlation; texts whose candidates all tie are left out."""
    correlations_N = rank_correlations(scores_NK, others_NK)
    correlations_N = correlations_N[np.isfinite(correlations_N)]
    if not len(correlations_N):
        return {"value": None, "interval": [None, None], "texts": 0}
    return {
        "value": float(correlations_N.mean()),
        "interval": interval(correlations_N),
        "texts": len(correlations_N),
    }
