import numpy as np
import pytest
from scipy import stats

from clvp_train.metrics import CandidateScores, Judge, picked_values, reranking_metrics

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
    data = candidates([[2, 1], [2, 1]], judges={"word_error_rate": Judge(errors, np.array([4, 12]))})
    rates = reranking_metrics(data)["word_error_rate"]
    expected = {"random": 4 / 16, "pick": 3 / 16, "best": 1 / 16, "gain": -1 / 16}
    assert {picker: rates[picker]["value"] for picker in expected} == expected
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


def judged(texts=400, most=8, noise=0.5):
    """Errors that both the score and the log-probability foretell, each with other noise; some texts have fewer candidates, and
    every fourth text is not judged."""
    rng = np.random.default_rng(0)
    errors = rng.random((texts, most))
    scores, per_code = (-errors + noise * rng.normal(size=errors.shape) for _ in range(2))
    scores[::3, most // 2 :] = NAN
    errors[np.isnan(scores)] = NAN
    seen = errors.copy()
    seen[::4] = NAN
    judges = {"mel_distance": Judge(seen, np.ones(texts))}
    data = candidates(scores, log_probabilities=per_code * 10, codes=np.where(np.isnan(scores), NAN, 9), judges=judges)
    return data, seen[np.isfinite(seen).any(axis=1)], scores[np.isfinite(seen).any(axis=1)]


def test_a_judge_says_what_each_picker_is_worth():
    data, errors, scores = judged()
    result = reranking_metrics(data)["mel_distance"]
    rows, pick = range(len(errors)), np.nanargmax(scores, axis=1)
    random, own, best = np.nanmean(errors, axis=1).mean(), errors[rows, pick].mean(), np.nanmin(errors, axis=1).mean()
    assert result["texts"] == 300 and result["random"]["value"] == pytest.approx(random)
    assert result["gain"]["value"] == pytest.approx(own - random) and result["gain"]["interval"][1] < 0
    assert result["gap_closed"]["pick"]["value"] == pytest.approx((random - own) / (random - best))
    correlations = [stats.spearmanr(s, -e, nan_policy="omit").statistic for s, e in zip(scores, errors)]
    assert result["correlation"]["pick"]["value"] == pytest.approx(np.mean(correlations))
    assert result["gap_closed"]["combined"]["value"] > max(
        result["gap_closed"][name]["value"] for name in ("pick", "likeliest")
    )
    values = picked_values(data)["mel_distance"]
    assert len(values) == 300 and values.mean() == pytest.approx(own)


def test_the_curve_ends_at_the_gain_and_tells_how_many_candidates_are_enough():
    result = reranking_metrics(judged()[0])["mel_distance"]
    curve = result["curve"]
    assert curve["candidates"] == [1, 2, 4, 8] and curve["pick"][0]["value"] == pytest.approx(0, abs=1e-12)
    for picker, gain in (("pick", "gain"), ("likeliest", "gain_likeliest"), ("combined", "gain_combined")):
        values = [each["value"] for each in curve[picker]]
        assert values[-1] == pytest.approx(result[gain]["value"]) and values == sorted(values, reverse=True)
        share = values[curve["candidates"].index(result["enough"][picker])] / values[-1]
        assert share >= 0.8 and result["enough"][picker] in (2, 4, 8)
    assert curve["best"][-1]["value"] == pytest.approx(result["best"]["value"] - result["random"]["value"])


def test_nothing_is_enough_without_a_gain():
    rng = np.random.default_rng(0)
    judges = {
        "word_error_rate": Judge(rng.random((50, 4)), np.ones(50)),
        "mel_distance": Judge(np.ones((50, 4)), np.ones(50)),
    }
    results = reranking_metrics(candidates(rng.random((50, 4)), judges=judges))
    assert results["word_error_rate"]["enough"] == {"pick": None} and "combination" not in results
    assert results["mel_distance"]["gap_closed"]["pick"] == {"value": None, "interval": [None, None]}
    assert results["mel_distance"]["correlation"]["pick"]["value"] is None
