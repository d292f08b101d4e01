import numpy as np
import pytest

from clvp_train.data import sampler
from clvp_train.data.candidates import Candidates
from clvp_train.data.sampler import CandidateSampler, EvaluationSampler, GlobalBatchSampler

PLACES = [[10 * text + k for k in range(1 + text % 4)] for text in range(23)]  # 1 to 4 a text
CANDIDATES = Candidates(np.concatenate(PLACES), np.cumsum([0, *map(len, PLACES)]))


def texts(indices):
    return [index // 10 for index in indices]


def at_epoch(epoch, seed=0):
    sampler = CandidateSampler(CANDIDATES, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("epoch", range(4))
def test_an_epoch_holds_every_text_once(epoch):
    assert sorted(texts(at_epoch(epoch))) == list(range(23)) and len(CandidateSampler(CANDIDATES, 0)) == 23


@pytest.mark.parametrize("texts_at_once", [1, 7, 23, 100])
def test_order_and_candidates_follow_the_rule(texts_at_once, monkeypatch):
    """The rule is a promise: the same data and seed give the same batches in every release."""
    monkeypatch.setattr(sampler, "TEXTS_AT_ONCE", texts_at_once)
    for seed, epoch in ((0, 0), (0, 5), (3, 1)):
        order = np.random.default_rng((seed, epoch)).permutation(len(PLACES))
        naive = [PLACES[text][(epoch + text) % len(PLACES[text])] for text in order.tolist()]
        drawn = at_epoch(epoch, seed)
        assert drawn == naive and {type(index) for index in drawn} == {int}


def test_order_depends_on_seed_and_epoch_alone():
    assert at_epoch(3) == at_epoch(3)
    assert texts(at_epoch(3)) != texts(at_epoch(4))
    assert texts(at_epoch(3)) != texts(at_epoch(3, seed=1))


def test_as_many_epochs_as_candidates_show_each_candidate_equally_often():
    seen = [index for epoch in range(12) for index in at_epoch(epoch)]
    for text, candidates in enumerate(PLACES):
        assert {index: seen.count(index) for index in candidates} == {
            index: 12 // len(candidates) for index in candidates
        }, text


def test_one_epoch_mixes_candidate_numbers():
    assert {index % 10 for index in at_epoch(0)} == {0, 1, 2, 3}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_are_disjoint_and_make_up_the_global_batch(world_size):
    order = at_epoch(0)
    ranks = [
        list(GlobalBatchSampler(CandidateSampler(CANDIDATES, 0), 6, rank, world_size)) for rank in range(world_size)
    ]
    assert [len(batches) for batches in ranks] == [3] * world_size  # 23 texts, the last 5 dropped
    for step, parts in enumerate(zip(*ranks)):
        assert [len(part) for part in parts] == [6 // world_size] * world_size
        together = [index for part in parts for index in part]
        assert together == order[6 * step : 6 * (step + 1)]
        assert len(set(texts(together))) == 6
    assert len(GlobalBatchSampler(CandidateSampler(CANDIDATES, 0), 6)) == 3


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_texts", [1, 2, 3, 7, 12])
def test_evaluation_covers_all_texts_with_equal_shares(num_texts, world_size):
    shares = [list(EvaluationSampler(num_texts, rank, world_size)) for rank in range(world_size)]
    assert {len(share) for share in shares} == {-(-num_texts // world_size)}
    assert {text for share in shares for text in share} == set(range(num_texts))
    assert len(EvaluationSampler(num_texts, 0, world_size)) == len(shares[0])


def test_evaluation_of_nothing_is_empty():
    assert list(EvaluationSampler(0, 1, 2)) == []
