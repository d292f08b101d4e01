"""What picking by score is worth, against a random candidate and against the best one. Shapes: N texts, K candidates of each at
most."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clvp_train.metrics.bootstrap import interval
from clvp_train.metrics.scores import win_rate


@dataclass(frozen=True)
class Candidates:
    """What is known of the candidates of each text. NaN where a text has fewer than K, or where it is not known."""

    scores_NK: np.ndarray
    finished_NK: np.ndarray  # 1: stopped by itself, 0: ran into its limit
    log_probabilities_NK: np.ndarray  # of all codes and the stop, under the AR, in nats
    num_codes_NK: np.ndarray
    word_errors_NK: np.ndarray | None = None  # words that an ASR model heard wrong
    num_words_N: np.ndarray | None = None


def rerank(candidates: Candidates) -> dict[str, Any]:
    """How good the pick is.

    Returns:
        {"texts": N, "candidates": how many a text on average, and as far as they are known "finished",
        "log_probability_per_code" and "word_error_rate": see `_by_picker`, "agreement": how the score's order agrees with that
        of the AR's log-probability, by Spearman's coefficient within a text, and "picks_likeliest": how often the pick is what
        the AR finds likeliest}.
    """
    scores_NK = candidates.scores_NK
    per_code_NK = _per_code(candidates)
    known = bool(np.isfinite(per_code_NK[np.isfinite(scores_NK)]).all())
    pickers = {"pick": _best(scores_NK)} | ({"likeliest": _best(per_code_NK)} if known else {})
    found: dict[str, Any] = {
        "texts": len(scores_NK),
        "candidates": float(np.isfinite(scores_NK).sum(axis=1).mean()),
        "finished": _by_picker(candidates.finished_NK, pickers),
    }
    if known:
        chance = float((1 / np.isfinite(scores_NK).sum(axis=1)).mean())
        same_N = (pickers["pick"] == pickers["likeliest"]).astype(float)
        found |= {
            "log_probability_per_code": _by_picker(per_code_NK, pickers),
            "agreement": {
                "log_probability": _agreement(scores_NK, candidates.log_probabilities_NK),
                "log_probability_per_code": _agreement(scores_NK, per_code_NK),
            },
            "picks_likeliest": {"rate": float(same_N.mean()), "interval": interval(same_N), "chance": chance},
        }
    if candidates.word_errors_NK is not None and candidates.num_words_N is not None:
        found["word_error_rate"] = _by_picker(
            candidates.word_errors_NK, pickers, candidates.num_words_N, best=np.nanmin
        )
    return found


def of_picks(candidates: Candidates) -> dict[str, np.ndarray]:
    """(N,) of what the pick of each text is like, for comparisons: "finished", "log_probability_per_code" and, as a share of
    the mean text's words, "word_error_rate"; those that are known."""
    rows, pick = np.arange(len(candidates.scores_NK)), _best(candidates.scores_NK)
    found = {
        "finished": candidates.finished_NK[rows, pick],
        "log_probability_per_code": _per_code(candidates)[rows, pick],
    }
    if candidates.word_errors_NK is not None and candidates.num_words_N is not None:
        found["word_error_rate"] = candidates.word_errors_NK[rows, pick] / candidates.num_words_N.mean()
    return {name: values_N for name, values_N in found.items() if np.isfinite(values_N).all()}


def _per_code(candidates: Candidates) -> np.ndarray:
    drawn_NK = candidates.num_codes_NK + candidates.finished_NK  # those that finished have drawn a stop too
    return candidates.log_probabilities_NK / drawn_NK


def _best(values_NK: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values_NK), values_NK, -np.inf).argmax(axis=1)


def _by_picker(
    values_NK: np.ndarray, pickers: dict[str, np.ndarray], weights_N: np.ndarray | None = None, best: Any = np.nanmax
) -> dict[str, Any]:
    """A quantity of the candidate that each picker takes, of a random one, and of the best.

    Returns:
        {"random": mean over all candidates, "pick" by score, "likeliest" by the AR, "best": each {"value", "interval"}, and
        "gain": pick minus random, with the interval of the difference}. With `weights_N`, sums over sums of weights.
    """
    columns = {"random": np.nanmean(values_NK, axis=1)}
    columns |= {name: values_NK[np.arange(len(values_NK)), taken] for name, taken in pickers.items()}
    columns["best"] = best(values_NK, axis=1)
    weights_N = np.ones(len(values_NK)) if weights_N is None else weights_N

    def ratio(numerators_N: np.ndarray) -> dict[str, Any]:
        both_NK = np.stack([numerators_N, weights_N], axis=1)
        bounds = interval(both_NK, lambda means_RK: means_RK[:, 0] / means_RK[:, 1])
        return {"value": float(numerators_N.sum() / weights_N.sum()), "interval": bounds}

    return {
        **{name: ratio(column) for name, column in columns.items()},
        "gain": ratio(columns["pick"] - columns["random"]),
    }


def _agreement(scores_NK: np.ndarray, others_NK: np.ndarray) -> dict[str, Any]:
    """The mean over texts of Spearman's rank correlation; texts whose candidates all tie are left out."""
    found = []
    for scores_K, others_K in zip(scores_NK, others_NK):
        real = np.isfinite(scores_K)
        ranks = [_ranks(values[real]) for values in (scores_K, others_K)]
        if min(rank.std() for rank in ranks) > 0:
            found.append(np.corrcoef(np.stack(ranks))[0, 1])
    if not found:
        return {"value": None, "interval": [None, None], "texts": 0}
    return {"value": float(np.mean(found)), "interval": interval(np.array(found)), "texts": len(found)}


def _ranks(values_K: np.ndarray) -> np.ndarray:
    return win_rate(values_K[:, None], values_K[None]).sum(axis=1)
