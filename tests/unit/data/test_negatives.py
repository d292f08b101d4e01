import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from clvp_train.data.dataset import PairDataset, TrainingPairs
from clvp_train.data.perturbations import PERTURBATIONS, HardNegatives
from clvp_train.errors import UserError
from clvp_train.pairs import arrow_copies


@pytest.mark.parametrize("names", [["swap", "typo"], []])
def test_an_unknown_perturbation_is_reported(names):
    with pytest.raises(UserError, match=r"data.hard_negatives=\[.*Choose from \[cut_off,repeat,drop,swap,for"):
        HardNegatives(1, names)


def test_settings_of_a_config_become_tuples():
    config = OmegaConf.create({"names": ["swap"], "share": [0.1, 0.2]})
    negatives = HardNegatives(1, config.names, config.share)
    assert type(negatives.hard_negatives) is type(negatives.perturbation_share) is tuple


def draw(number=1, names=tuple(PERTURBATIONS), codes=range(100, 120), seed=0, limit=None, share=(0.1, 0.5)):
    codes_S = np.array(codes)
    rng = np.random.default_rng(seed)
    copies = HardNegatives(number, names, share).draw(codes_S, rng, lambda: np.arange(200, 220), limit)
    return [copy.tolist() for copy in copies]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_no_copy_is_the_original_within_the_limit(name):
    for limit in (4, 19, 20, 30):
        for copy in draw(200, [name], limit=limit):
            assert copy[:limit] != list(range(100, 120))[:limit]


def test_all_perturbations_occur_equally_often_with_shares_in_bounds():
    copies = draw(2000, ["cut_off", "repeat", "foreign_tail"], share=(0.2, 0.4))
    short = [copy for copy in copies if len(copy) < 20]
    long = [copy for copy in copies if len(copy) > 20]
    foreign = [copy for copy in copies if len(copy) == 20]
    assert min(map(len, (short, long, foreign))) > 550 and all(copy[-1] == 219 for copy in foreign)
    assert {20 - len(copy) for copy in short} == {len(copy) - 20 for copy in long} == {4, 5, 6, 7, 8}
    assert {sum(code >= 200 for code in copy) for copy in foreign} == {4, 5, 6, 7, 8}


@pytest.fixture
def pairs(write_pairs):
    return PairDataset(arrow_copies(write_pairs(extra=("TRAIN 3?",))), "train")


def negatives(pairs, index, epoch, seed=0, number=2):
    copies = TrainingPairs(pairs, HardNegatives(number), seed, None)[index, epoch]["negatives"]
    return [copy.tolist() for copy, _ in copies]


def test_negatives_depend_on_seed_epoch_and_index_only(pairs):
    indices = range(len(pairs))
    first = [negatives(pairs, index, 0) for index in indices]
    assert first == [negatives(pairs, index, 0) for index in reversed(indices)][::-1]
    assert first != [negatives(pairs, index, 1) for index in indices]
    assert first != [negatives(pairs, index, 0, seed=1) for index in indices]
    assert any(copy != other for copy, other in first), "the copies of a pair differ"


def test_a_foreign_tail_is_never_of_the_same_text(pairs):
    """The tail of another candidate of the text could be correct."""
    view = TrainingPairs(pairs, HardNegatives(1), 0, None)
    for index in (9, 11, 60):  # "train 3" and an equal text
        rng = np.random.default_rng(0)
        texts = {int(view._other_codes(index, rng)[0]) for _ in range(500)}
        assert texts == set(range(20)) - {3}


def test_pairs_without_negatives_have_a_key_only(pairs):
    pair = TrainingPairs(pairs, HardNegatives(0), 0, None)[7, 0]
    assert pair["key"] == pairs.keys_N[7] and "negatives" not in pair
    assert torch.equal(pair["speech_ids"], pairs[7]["speech_ids"])
