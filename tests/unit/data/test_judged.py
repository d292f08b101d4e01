import numpy as np
import pytest

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.data.judged import JudgedCandidates
from clvp_train.data.text_index import TextIndex
from clvp_train.errors import UserError
from tests.unit.pairs_folder import write_folder

NAN, RECORDING, RNG = np.nan, np.inf, np.random.default_rng(0)
TEXTS = [[-3, -1, -2, -4], [-1, RECORDING, NAN, -2], [NAN, NAN], [RECORDING, RECORDING], [-5, -5], [-1]]


def candidates(num_negatives=9, margin=0.0):
    """Of the texts above, whose pairs are mixed."""
    keys = np.repeat(np.arange(len(TEXTS)), [len(text) for text in TEXTS]).astype(np.uint64)
    order = np.random.default_rng(0).permutation(len(keys))
    qualities = np.concatenate([np.array(text, dtype=np.float32) for text in TEXTS])[order]
    return JudgedCandidates(TextIndex.from_keys(keys[order]), qualities, num_negatives, margin), qualities, keys[order]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (1.0, TEXTS),
        (0.5, [[-1, -2], [-1, RECORDING], [NAN, NAN], [RECORDING, RECORDING], [-5], [-1]]),
        (0.1, [[-1], [-1, RECORDING], [NAN, NAN], [RECORDING, RECORDING], [-5], [-1]]),
    ],
)
def test_positives_are_recordings_and_the_best_candidates(share, expected):
    judged, qualities, keys = candidates()
    texts = judged.positives(share)
    found = {int(keys[pairs[0]]): sorted(qualities[pairs].tolist(), key=str) for pairs in texts}
    assert str(found) == str({text: sorted(map(float, expected[text]), key=str) for text in found}) and len(found) == 6


@pytest.mark.parametrize("margin", [0.0, 1.5])
def test_negatives_are_worse_candidates_of_the_text_and_a_recording_is_as_good_as_the_best(margin):
    judged, qualities, keys = candidates(margin=margin)
    for index, quality in enumerate(qualities):
        own = [other for other in range(len(keys)) if keys[other] == keys[index] and np.isfinite(qualities[other])]
        quality = max((qualities[other] for other in own), default=NAN) if quality == RECORDING else quality
        worse = [other for other in own if qualities[other] < quality and qualities[other] <= quality - margin]
        assert sorted(judged.negatives(index, RNG)) == worse
        np.testing.assert_equal(judged.quality_N[index], np.float32(quality))


def test_at_most_k_negatives_are_drawn_and_all_occur():
    judged, qualities, _ = candidates(num_negatives=2)
    best = next(index for index in np.flatnonzero(qualities == -1) if len(judged.negatives(index, RNG)) == 2)
    drawn = [judged.negatives(best, RNG) for _ in range(50)]
    assert {len(set(pair)) for pair in drawn} == {2}
    assert sorted({qualities[index] for pair in drawn for index in pair}) == [-4, -3, -2]


def rows(number, split, is_judged):
    """A recording, number 0, and candidates, whose quality is minus their number over ten."""
    common = {"text": f"{split} {number}", "split": split, "input_ids": [1 + number], "voice": "v", "finished": True}
    return [
        common
        | {"id": f"{split}{number}", "speech_ids": [10 + candidate, 1, 2, 3, 4, 5, 6], "candidate": candidate}
        | {"log_probability": -1.0 if candidate else None}
        | {"quality": -candidate / 10 if candidate and is_judged else None}
        for candidate in range(5)
    ]


@pytest.fixture
def folder(tmp_path):
    """Twelve texts with a recording and four candidates each, which are judged in every second text."""
    shards = [rows(number, "train", number % 2 == 0) for number in range(12)]
    shards += [rows(number, split, False) for split in ("val", "test") for number in range(3)]
    return write_folder(tmp_path / "pairs", shards)


def test_batches_have_worse_candidates_with_their_quality_and_copies_where_these_are_missing(folder):
    settings = {"num_judged_negatives": 2, "judged_margin": 0.15, "num_hard_negatives": 1}
    module = CLVPDataModule(folder, batch_size=12, **settings, judged_positive_share=0.5)
    module.check(1)
    positives = set()
    for epoch in range(3):
        loader = module.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(epoch)
        (batch,) = loader
        negatives_BKS, qualities_BL = batch["negative_ids"].unflatten(0, (12, 3)), batch["qualities"]
        assert qualities_BL.shape == (12, 1 + 3)
        for text, codes, negatives, qualities in zip(
            batch["input_ids"][:, 0].tolist(),
            batch["speech_ids"].tolist(),
            negatives_BKS.tolist(),
            qualities_BL.tolist(),
        ):
            candidate, is_judged = codes[0] - 10, text % 2 == 1
            worse = {0: {3, 4}, 1: {3, 4}, 2: {4}}[candidate] if is_judged else set()
            assert qualities[0] == pytest.approx(-max(candidate, 1) / 10) if is_judged else np.isnan(qualities[0])
            assert {negative[0] - 10 for negative in negatives[: len(worse)]} == worse
            assert qualities[1 : 1 + len(worse)] == pytest.approx([1 - row[0] / 10 for row in negatives[: len(worse)]])
            copies = negatives[len(worse) :]
            assert np.isnan(qualities[1 + len(worse) :]).all() and codes not in [copy[: len(codes)] for copy in copies]
            positives |= {candidate} if is_judged else {9}
    assert positives == {0, 1, 2, 9}, "of judged texts the recording and the better half"


def test_pairs_without_any_quality_are_refused(write_pairs):
    with pytest.raises(UserError, match="no training pair has a quality, which data.num_judged_negatives"):
        CLVPDataModule(write_pairs(), batch_size=4, num_judged_negatives=1).check(1)
