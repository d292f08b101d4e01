import numpy as np
import pytest
from scipy import stats

from clvp_train.metrics import Candidates, of_picks, rerank

NAN = np.nan


def candidates(scores, finished=None, log_probabilities=None, codes=None, **more):
    scores = np.array(scores, dtype=float)
    real = np.where(np.isfinite(scores), 1.0, NAN)
    return Candidates(
        scores_NK=scores,
        finished_NK=real if finished is None else np.array(finished, dtype=float),
        log_probabilities_NK=real * NAN if log_probabilities is None else np.array(log_probabilities, dtype=float),
        num_codes_NK=9 * real if codes is None else np.array(codes, dtype=float),
        **more,
    )


def test_the_pick_is_compared_with_chance_and_with_the_best():
    found = rerank(candidates([[0.9, 0.1], [0.2, 0.8], [0.5, 0.6], [0.7, 0.1]], [[1, 0], [0, 1], [1, 0], [0, 0]]))
    finished = found["finished"]
    assert (found["texts"], found["candidates"]) == (4, 2)
    assert finished["random"]["value"] == 3 / 8
    assert finished["pick"]["value"] == 2 / 4 and finished["best"]["value"] == 3 / 4
    assert finished["gain"]["value"] == pytest.approx(1 / 8)
    assert "agreement" not in found and "word_error_rate" not in found and "likeliest" not in finished


def test_texts_with_fewer_candidates_count_with_those_they_have():
    found = rerank(candidates([[0.9, 0.1, 0.5], [0.2, 0.8, NAN]], [[1, 0, 0], [0, 1, NAN]]))
    assert found["candidates"] == 2.5
    assert found["finished"]["random"]["value"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found["finished"]["pick"]["value"] == 1


def test_word_errors_are_summed_before_they_are_divided():
    errors = np.array([[0.0, 4.0], [3.0, 1.0]])
    found = rerank(candidates([[2, 1], [2, 1]], word_errors_NK=errors, num_words_N=np.array([4, 12])))
    rates = {name: one["value"] for name, one in found["word_error_rate"].items()}
    assert rates == {"random": 4 / 16, "pick": 3 / 16, "best": 1 / 16, "gain": -1 / 16}
    picked = of_picks(candidates([[2, 1], [2, 1]], word_errors_NK=errors, num_words_N=np.array([4, 12])))
    assert picked["word_error_rate"].mean() == 3 / 16


def test_agreement_is_spearmans_within_each_text():
    rng = np.random.default_rng(0)
    scores, log_probabilities = rng.random((40, 8)).round(1), rng.random((40, 8)).round(1)
    found = rerank(candidates(scores, log_probabilities=log_probabilities, codes=np.full((40, 8), 4)))
    expected = [stats.spearmanr(*rows).statistic for rows in zip(scores, log_probabilities)]
    assert found["agreement"]["log_probability"]["value"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert found["agreement"]["log_probability_per_code"] == found["agreement"]["log_probability"]
    assert found["picks_likeliest"]["chance"] == 1 / 8


def test_a_score_that_is_the_ars_own_agrees_and_one_that_is_random_does_not():
    rng = np.random.default_rng(0)
    log_probabilities = -rng.random((400, 16))
    own = rerank(candidates(log_probabilities, log_probabilities=log_probabilities))
    assert own["agreement"]["log_probability"]["value"] == pytest.approx(1) and own["picks_likeliest"]["rate"] == 1
    chance = rerank(candidates(rng.random((400, 16)), log_probabilities=log_probabilities))
    assert abs(chance["agreement"]["log_probability"]["value"]) < 0.04  # of 400 texts, 3 standard deviations
    assert chance["picks_likeliest"]["rate"] == pytest.approx(1 / 16, abs=0.04)
    bounds = chance["log_probability_per_code"]["gain"]["interval"]
    assert bounds[0] < 0 < bounds[1]


def test_texts_whose_candidates_all_score_the_same_say_nothing_of_agreement():
    found = rerank(candidates(np.ones((3, 4)), log_probabilities=np.arange(12.0).reshape(3, 4)))
    assert found["agreement"]["log_probability"] == {"value": None, "interval": [None, None], "texts": 0}


def test_a_stop_counts_as_a_code():
    found = rerank(candidates([[1, 2]], log_probabilities=[[-10, -20]], codes=[[4, 9]]))
    assert found["log_probability_per_code"]["pick"]["value"] == -2
