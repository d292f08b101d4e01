"""Gain of picking a candidate by score over a random candidate. Shapes: N texts, K candidates per text at most."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clvp_train.metrics.bootstrap import interval
from clvp_train.metrics.scores import win_rate


@dataclass(frozen=True)
class CandidateScores:
    """Scores and properties of the candidates of each text. NaN if a text has fewer than K, or if the value is unknown."""

    scores_NK: np.ndarray
    finished_NK: np.ndarray  # 1: ended with a stop token, 0: reached the limit of codes
    log_probabilities_NK: np.ndarray  # of all codes and the stop token under the AR, in nats
    num_codes_NK: np.ndarray
    word_errors_NK: np.ndarray | None = None  # word errors of an ASR transcript
    num_words_N: np.ndarray | None = None

    @property
    def log_probabilities_per_code_NK(self) -> np.ndarray:
        return self.log_probabilities_NK / (self.num_codes_NK + self.finished_NK)  # the stop token counts as a code


def reranking_metrics(candidates: CandidateScores) -> dict[str, Any]:
    """Compares the candidate with the highest score with a random one, the AR's most likely one and the best one.

    Returns:
        {"texts": N, "candidates": mean number per text}, and as far as they are known: "finished", "log_probability_per_code"
        and "word_error_rate", see `_by_picker`; "agreement": Spearman's correlation of the scores with the AR's
        log-probabilities within a text; "picks_likeliest": how often the pick is the AR's most likely candidate.
    """
    scores_NK, per_code_NK = candidates.scores_NK, candidates.log_probabilities_per_code_NK
    known = bool(np.isfinite(per_code_NK[np.isfinite(scores_NK)]).all())
    pickers = {"pick": _best(scores_NK)} | ({"likeliest": _best(per_code_NK)} if known else {})
    results: dict[str, Any] = {
        "texts": len(scores_NK),
        "candidates": float(np.isfinite(scores_NK).sum(axis=1).mean()),
        "finished": _by_picker(candidates.finished_NK, pickers),
    }
    if known:
        chance = float((1 / np.isfinite(scores_NK).sum(axis=1)).mean())
        same_N = (pickers["pick"] == pickers["likeliest"]).astype(float)
        results |= {
            "log_probability_per_code": _by_picker(per_code_NK, pickers),
            "agreement": {
                "log_probability": _agreement(scores_NK, candidates.log_probabilities_NK),
                "log_probability_per_code": _agreement(scores_NK, per_code_NK),
            },
            "picks_likeliest": {"rate": float(same_N.mean()), "interval": interval(same_N), "chance": chance},
        }
    if candidates.word_errors_NK is not None and candidates.num_words_N is not None:
        results["word_error_rate"] = _by_picker(
            candidates.word_errors_NK, pickers, candidates.num_words_N, best=np.nanmin
        )
    return results


def picked_values(candidates: CandidateScores) -> dict[str, np.ndarray]:
    """Returns (N,) values of the candidate with the highest score of each text, for paired comparisons.

    They are "finished", "log_probability_per_code" and "word_error_rate" as a share of the mean number of words, if known.
    """
    rows, pick = np.arange(len(candidates.scores_NK)), _best(candidates.scores_NK)
    values = {
        "finished": candidates.finished_NK[rows, pick],
        "log_probability_per_code": candidates.log_probabilities_per_code_NK[rows, pick],
    }
    if candidates.word_errors_NK is not None and candidates.num_words_N is not None:
        values["word_error_rate"] = candidates.word_errors_NK[rows, pick] / candidates.num_words_N.mean()
    return {name: values_N for name, values_N in values.items() if np.isfinite(values_N).all()}


def _best(values_NK: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values_NK), values_NK, -np.inf).argmax(axis=1)


def _by_picker(
    values_NK: np.ndarray,
    pickers: dict[str, np.ndarray],
    weights_N: np.ndarray | None = None,
    best: Callable[..., np.ndarray] = np.nanmax,
) -> dict[str, Any]:
    """Returns the mean of a quantity over the candidates that each picker takes.

    Returns:
        {"random": mean over all candidates, "pick": by score, "likeliest": by the AR, "best"}, each {"value", "interval"}, and
        "gain": pick minus random, with the interval of the difference. With `weights_N`, the sum of the values over the sum of
        the weights.
    """
    columns = {"random": np.nanmean(values_NK, axis=1)}
    columns |= {name: values_NK[np.arange(len(values_NK)), picked_N] for name, picked_N in pickers.items()}
    columns["best"] = best(values_NK, axis=1)
    weights_N = np.ones(len(values_NK)) if weights_N is None else weights_N

    def ratio(numerators_N: np.ndarray) -> dict[str, Any]:
        both_N2 = np.stack([numerators_N, weights_N], axis=1)
        bounds = interval(both_N2, lambda means_R2: means_R2[:, 0] / means_R2[:, 1])
        return {"value": float(numerators_N.sum() / weights_N.sum()), "interval": bounds}

    return {
        **{name: ratio(column) for name, column in columns.items()},
        "gain": ratio(columns["pick"] - columns["random"]),
    }


def _agreement(scores_NK: np.ndarray, others_NK: np.ndarray) -> dict[str, Any]:
    """Returns the mean over texts of Spearman's rank correlation; texts whose candidates all tie are left out."""
    correlations = []
    for scores_K, others_K in zip(scores_NK, others_NK):
        known_K = np.isfinite(scores_K)
        orders = [_order(values[known_K]) for values in (scores_K, others_K)]
        if min(order.std() for order in orders) > 0:
            correlations.append(np.corrcoef(np.stack(orders))[0, 1])
    if not correlations:
        return {"value": None, "interval": [None, None], "texts": 0}
    bounds = interval(np.array(correlations))
    return {"value": float(np.mean(correlations)), "interval": bounds, "texts": len(correlations)}


def _order(values_K: np.ndarray) -> np.ndarray:
    """(K,) how many values each exceeds, ties as one half: ranks up to a constant."""
    return win_rate(values_K[:, None], values_K[None]).sum(axis=1)
