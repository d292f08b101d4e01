import numpy as np
import pytest

from clvp_train.metrics import CandidateScores, Judge, reranking_metrics
from clvp_train.report import worth
from clvp_train.report.reranking import NOT_JUDGED, rerank_tables


def metrics(sign, known=True, judged=True, texts=50):
    """Scores that agree with the errors (sign 1), contradict them (-1) or say nothing (0)."""
    rng = np.random.default_rng(0)
    errors, ones = rng.random((texts, 8)), np.ones((texts, 8))
    scores = -sign * errors if sign else rng.random((texts, 8))
    errors[texts // 2 :] = np.nan
    judges = {"mel_distance": Judge(errors, ones[:, 0])} if judged else {}
    log_probabilities = -rng.random((texts, 8)) if known else ones * np.nan
    return {"rerank": reranking_metrics(CandidateScores(scores, ones, log_probabilities, 9 * ones, judges))}


@pytest.mark.parametrize(
    ("sign", "words"),
    [
        (1, ["Re-ranking 50 texts × 8 candidates.", "closes 100% of the gap", "4 candidates give at least 80% of it"]),
        (0, ["is not distinguishable from zero."]),
        (-1, ["is a loss."]),
    ],
)
def test_the_paragraph_says_what_re_ranking_is_worth(sign, words):
    text = worth(metrics(sign))
    assert all(word in text for word in [*words, "Mel distance: ", "combined, minus random: mel distance "]), text
    assert "combined" not in worth(metrics(sign, known=False))


def test_without_a_judge_it_is_not_known():
    assert worth(metrics(1, judged=False)) == NOT_JUDGED and worth({}) == ""
    assert [table.title for table in rerank_tables(metrics(1, judged=False))] == ["Re-ranking 50 texts × 8 candidates"]


def test_tables_by_judge():
    pickers, gaps, curve = rerank_tables(metrics(1))
    assert (
        "Mel distance: 25 texts, whose candidates have a recording." in pickers.note
        and "× log-probability" in pickers.note
    )
    assert [row[0] for row in gaps.rows] == ["most likely for the AR", "highest score", "score and AR combined"]
    assert gaps.rows[1][1].startswith("1.000 ") and gaps.rows[1][2].startswith("1.000 ")
    assert [row[0] for row in curve.rows] == ["1", "2", "4", "8"] and len(curve.header) == 5
    assert "At least 80% of the gain with all candidates: 4 (highest score)" in curve.note


def test_reports_of_earlier_versions_keep_their_table():
    rate = {"value": 0.5, "interval": [0.4, 0.6]}
    old = {"texts": 9, "candidates": 4, "word_error_rate": dict.fromkeys(("random", "pick", "best", "gain"), rate)}
    (table,) = rerank_tables({"rerank": old})
    assert ["highest score − random", "0.500 (0.400 to 0.600)"] in table.rows and worth({"rerank": old}) == ""
