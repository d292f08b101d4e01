"""The listening test of the demo, and what the page says about the training."""

import csv

import pytest
from scipy.stats import binomtest

from clvp_train.demo.listening_test import ANSWERS, Draw, ListeningTest, sign_test
from clvp_train.demo.serving import training_data
from clvp_train.demo.session import RankedCandidate
from clvp_train.errors import UserError
from clvp_train.tortoise import Candidate

DRAW = Draw("It was not so, he said.", "slt", 3)


def rows(*codes: int) -> list[RankedCandidate]:
    return [RankedCandidate(Candidate((code,), True, -1.0), 0.5, None) for code in codes]


def test_pick_is_compared_with_every_other_candidate_in_both_orders():
    ranks = {ListeningTest().start(DRAW, rows(7, 7, 8, 9)).ranks for _ in range(200)}
    assert ranks == {(1, 3), (3, 1), (1, 4), (4, 1)}  # rank 2 has the codes of the pick
    with pytest.raises(UserError, match="all candidates are the same"):
        ListeningTest().start(DRAW, rows(7, 7))


def test_answers_are_counted_once_and_written(tmp_path):
    test, file, expected = ListeningTest(), tmp_path / "answers.csv", []
    for seed, answer in enumerate(ANSWERS * 4):
        draw = Draw("It was not so, he said.", "slt", seed)
        first, second = test.start(draw, rows(7, 8)).ranks
        assert test.answer(answer, "me", file) == (
            "A was the pick, B was rank 2" if first == 1 else "A was rank 2, B was the pick"
        )
        assert test.answer(answer, "me", file) is None
        preferred = {"A is better": first, "No difference": 0, "B is better": second}[answer]
        expected.append((draw.text, str(seed), str(first), ("neither", "pick", "other")[preferred]))
        with pytest.raises(UserError, match="you have seen the ranking"):
            test.check_unseen(draw)
    with file.open(newline="") as stream:
        written = [(row["text"], row["seed"], row["rank_a"], row["preferred"]) for row in csv.DictReader(stream)]
    assert written == expected
    wins = sum(row[3] == "pick" for row in expected)
    assert f"in {wins} of 12 comparisons, the other candidate in {8 - wins}, no difference in 4" in test.summary()


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 3), (9, 1), (1, 9), (40, 60)])
def test_sign_test(wins, losses):
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1
    assert sign_test(wins, losses) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "training_config.yaml",
            "pairs: null\ncorpus: {_target_: a.LJSpeech, root: '${paths.data}/lj'}\ncodes: {x: {_target_: b.ARCodes}, y: {_target_: b.DVAECodes}}",
            "corpus LJSpeech data/lj, codes {x: ARCodes, y: DVAECodes}",
        ),
        ("training_config.yaml", "pairs: [A, B]\ncorpus: {_target_: a.Unused}", r"pairs \[A, B\]"),
        ("README.md", "---\ndatasets: [lj_speech]\n---\n# A model", "data sets lj_speech"),
        ("README.md", "# A model", "unknown"),
        ("config.json", "{}", "unknown"),
    ],
)
def test_training_data(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    assert training_data(tmp_path) == words
