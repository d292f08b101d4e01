import numpy as np
import pytest
from scipy import stats

from clvp_train.metrics import CandidateScores, picked_values, reranking_metrics

NAN = np.nan


def candidates(scores, finished=None, log_probabilities=None, codes=None, **more):
    scores = np.array(scores, dtype=float)
    known = np.where(np.isfinite(scores), 1.0, NAN)
    return CandidateScores(
        scores_NK=scores,
        finished_NK=known if finished is None else np.array(finished, dtype=float),
        log_probabilities_NK=known * NAN if log_probabilities is None else np.array(log_probabilities, dtype=float),
        num_codes_NK=9 * known if codes is None else np.array(codes, dtype=float),
        **more,
    )


def test_pick_is_compared_with_random_and_best():
    scores, finished = [[0.9, 0.1], [0.2, 0.8], [0.5, 0.6], [0.7, 0.1]], [[1, 0], [0, 1], [1, 0], [0, 0]]
    results = reranking_metrics(candidates(scores, finished))
    assert (results["texts"], results["candidates"]) == (4, 2)
    values = {picker: result["value"] for picker, result in results["finished"].items()}
    assert values == {"random": 3 / 8, "pick": 2 / 4, "best": 3 / 4, "gain": pytest.approx(1 / 8)}
    assert "agreement" not in results and "word_error_rate" not in results


def test_texts_may_have_different_numbers_of_candidates():
    results = reranking_metrics(candidates([[0.9, 0.1, 0.5], [0.2, 0.8, NAN]], [[1, 0, 0], [0, 1, NAN]]))
    assert results["candidates"] == 2.5 and results["finished"]["pick"]["value"] == 1
    assert results["finished"]["random"]["value"] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_word_error_rate_is_the_ratio_of_sums():
    errors = np.array([[0.0, 4.0], [3.0, 1.0]])
    data = candidates([[2, 1], [2, 1]], word_errors_NK=errors, num_words_N=np.array([4, 12]))
    rates = {picker: result["value"] for picker, result in reranking_metrics(data)["word_error_rate"].items()}
    assert rates == {"random": 4 / 16, "pick": 3 / 16, "best": 1 / 16, "gain": -1 / 16}
    assert picked_values(data)["word_error_rate"].mean() == 3 / 16


def test_agreement_is_spearmans_correlation_within_each_text():
    rng = np.random.default_rng(0)
    scores, log_probabilities = rng.random((40, 8)).round(1), rng.random((40, 8)).round(1)
    results = reranking_metrics(candidates(scores, log_probabilities=log_probabilities, codes=np.full((40, 8), 4)))
    expected = [stats.spearmanr(*rows).statistic for rows in zip(scores, log_probabilities)]
    assert results["agreement"]["log_probability"]["value"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert results["agreement"]["log_probability_per_code"] == results["agreement"]["log_probability"]
    assert results["picks_likeliest"]["chance"] == 1 / 8


def test_the_ars_own_scores_agree_and_random_scores_do_not():
    rng = np.random.default_rng(0)
    log_probabilities = -rng.random((400, 16))
    own = reranking_metrics(candidates(log_probabilities, log_probabilities=log_probabilities))
    assert own["agreement"]["log_probability"]["value"] == pytest.approx(1) and own["picks_likeliest"]["rate"] == 1
    chance = reranking_metrics(candidates(rng.random((400, 16)), log_probabilities=log_probabilities))
    assert abs(chance["agreement"]["log_probability"]["value"]) < 0.04  # 3 standard deviations
    assert chance["picks_likeliest"]["rate"] == pytest.approx(1 / 16, abs=0.04)
    low, high = chance["log_probability_per_code"]["gain"]["interval"]
    assert low < 0 < high


def test_constant_scores_give_no_agreement():
    results = reranking_metrics(candidates(np.ones((3, 4)), log_probabilities=np.arange(12.0).reshape(3, 4)))
    assert results["agreement"]["log_probability"] == {"value": None, "interval": [None, None], "texts": 0}


def test_the_stop_token_counts_as_a_code():
    results = reranking_metrics(candidates([[1, 2]], log_probabilities=[[-10, -20]], codes=[[4, 9]]))
    assert results["log_probability_per_code"]["pick"]["value"] == -2
