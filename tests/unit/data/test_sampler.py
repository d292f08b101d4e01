import numpy as np
import pytest

from clvp_train.data.sampler import EpochOrder, EvaluationSampler, GlobalBatchSampler
from clvp_train.data.text_index import TextIndex

INDICES = [[10 * text + k for k in range(1 + text % 4)] for text in range(23)]  # 1 to 4 a text
TEXT_INDEX = TextIndex(np.concatenate(INDICES), np.cumsum([0, *map(len, INDICES)]))


def texts(indices):
    return [index // 10 for index in indices]


def at_epoch(epoch, seed=0):
    order = EpochOrder(TEXT_INDEX, seed)
    order.set_epoch(epoch)
    return order.indices(order.texts())


def batches(epoch=0, **settings):
    sampler = GlobalBatchSampler(EpochOrder(TEXT_INDEX, 0), 6, **settings)
    sampler.sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("epoch", range(4))
def test_an_epoch_holds_every_text_once(epoch):
    assert sorted(texts(at_epoch(epoch))) == list(range(23)) and len(EpochOrder(TEXT_INDEX, 0)) == 23


def test_order_and_candidates_follow_the_rule():
    """The rule is a promise: the same data and seed give the same batches in every release."""
    for seed, epoch in ((0, 0), (0, 5), (3, 1)):
        order = np.random.default_rng((seed, epoch)).permutation(len(INDICES))
        naive = [INDICES[text][(epoch + text) % len(INDICES[text])] for text in order.tolist()]
        drawn = at_epoch(epoch, seed)
        assert drawn == naive and {type(index) for index in drawn} == {int}


def test_order_depends_on_seed_and_epoch_only():
    assert at_epoch(3) == at_epoch(3)
    assert texts(at_epoch(3)) != texts(at_epoch(4))
    assert texts(at_epoch(3)) != texts(at_epoch(3, seed=1))


def test_as_many_epochs_as_candidates_show_each_candidate_equally_often():
    seen = [index for epoch in range(12) for index in at_epoch(epoch)]
    for text, candidates in enumerate(INDICES):
        assert {index: seen.count(index) for index in candidates} == {
            index: 12 // len(candidates) for index in candidates
        }, text


def test_one_epoch_mixes_candidate_numbers():
    assert {index % 10 for index in at_epoch(0)} == {0, 1, 2, 3}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_are_disjoint_and_make_up_the_global_batch(world_size):
    order = at_epoch(2)
    ranks = [batches(2, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [len(batches) for batches in ranks] == [3] * world_size  # 23 texts, the last 5 dropped
    for step, parts in enumerate(zip(*ranks)):
        assert [len(part) for part in parts] == [6 // world_size] * world_size
        together = [index for part in parts for index, _ in part]
        assert {epoch for part in parts for _, epoch in part} == {2}
        assert together == order[6 * step : 6 * (step + 1)]
        assert len(set(texts(together))) == 6
    assert len(GlobalBatchSampler(EpochOrder(TEXT_INDEX, 0), 6)) == 3


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("skipped", range(4))
def test_an_epoch_resumes_with_the_next_batch_and_others_are_complete(skipped, world_size):
    for rank in range(world_size):
        share = {"rank": rank, "world_size": world_size}
        assert batches(5, start=(5, skipped), **share) == batches(5, **share)[skipped:]
        assert batches(6, start=(5, skipped), **share) == batches(6, **share)
    assert len(GlobalBatchSampler(EpochOrder(TEXT_INDEX, 0), 6, start=(0, skipped))) == 3, "of a complete epoch"


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_texts", [1, 2, 3, 7, 12])
def test_evaluation_covers_all_texts_with_equal_shares(num_texts, world_size):
    shares = [list(EvaluationSampler(num_texts, rank, world_size)) for rank in range(world_size)]
    assert {len(share) for share in shares} == {-(-num_texts // world_size)}
    assert {text for share in shares for text in share} == set(range(num_texts))
    assert len(EvaluationSampler(num_texts, 0, world_size)) == len(shares[0])


def test_evaluation_without_texts_is_empty():
    assert list(EvaluationSampler(0, 1, 2)) == []
