import numpy as np
import pytest

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.data.mixture import MixedTextIndex
from clvp_train.data.text_index import TextIndex
from clvp_train.errors import UserError

EPOCHS = 60


def keys(*texts):
    return np.array(texts, dtype=np.uint64)


def test_one_folder_is_drawn_from_as_without_a_mixture():
    keys_N, texts_U = keys(4, 4, 8, 4, 6, 8), np.arange(3)
    for turns_U in (texts_U, texts_U + 5):
        expected = TextIndex.from_keys(keys_N).pick(texts_U, turns_U).tolist()
        assert MixedTextIndex.from_folders([keys_N], [3.0]).pick(texts_U, turns_U).tolist() == expected
        assert MixedTextIndex.from_folders([keys_N, keys()], [3.0, 1.0]).pick(texts_U, turns_U).tolist() == expected


def test_texts_are_merged_and_only_folders_that_hold_a_text_are_drawn():
    index = MixedTextIndex.from_folders([keys(4, 4, 8), keys(6, 4), keys(8, 2)], [1, 2, 5])
    assert [index[text].tolist() for text in range(len(index))] == [[0, 1, 4], [2, 5], [3], [6]]
    picked = index.pick(np.repeat(np.arange(4), EPOCHS), np.tile(np.arange(EPOCHS), 4)).reshape(4, EPOCHS)
    assert [set(row) for row in picked.tolist()] == [{0, 1, 4}, {2, 5}, {3}, {6}]


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (0.1, 0.2, 0.7)])
def test_shares_follow_the_weights_over_texts_and_over_epochs(weights):
    num_texts, candidates = 1000, 4
    index = MixedTextIndex.from_folders([np.repeat(np.arange(num_texts), candidates)] * len(weights), weights)
    texts_U = np.arange(num_texts)
    picks = np.array([index.pick(texts_U, epoch + texts_U) for epoch in range(EPOCHS)])
    folder, candidate = picks // (num_texts * candidates), picks % candidates
    for number, weight in enumerate(np.array(weights) / sum(weights)):
        drawn = folder == number
        assert np.abs(drawn.mean(axis=1) - weight).max() < 5 / num_texts, "in each epoch"
        assert np.abs(drawn.sum(axis=0) - weight * EPOCHS).max() < 3, "for each text"
        for each in range(candidates):
            often = (drawn & (candidate == each)).sum(axis=0)
            assert np.abs(often - weight * EPOCHS / candidates).max() < 4, "of each candidate for each text"


@pytest.fixture
def mixed(write_pairs):
    """Two folders of 20 and 30 training texts, of which 20 are the same; their codes differ by the number of candidates."""

    def make(first=None, second=None, **settings):
        a = write_pairs(name="a", **{"candidates": 1} | (first or {}))
        b = write_pairs(name="b", **{"train": 30} | (second or {}))
        return CLVPDataModule({"a": a, "b": b}, **{"batch_size": 10} | settings)

    return make


def drawn(module, epoch=0):
    loader = module.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return [{name: value.tolist() for name, value in batch.items()} for batch in loader]


def test_an_epoch_has_each_text_of_any_folder_once(mixed):
    module = mixed()
    assert module.steps_per_epoch == 3
    texts = [key for batch in drawn(module) for key in batch["key"]]
    assert len(set(texts)) == len(texts) == 30


def test_a_mixture_resumes_with_the_same_batches_and_negatives_on_any_rank(mixed):
    module, resumed = mixed(num_hard_negatives=1), mixed(num_hard_negatives=1)
    for epoch in (0, 3):
        resumed.resume_at(epoch, 2)
        assert drawn(resumed, epoch) == drawn(module, epoch)[2:] and drawn(module, epoch) != drawn(module, epoch + 1)


def test_hard_negatives_are_made_of_pairs_of_the_same_folder(write_pairs):
    a, b = (write_pairs(train=n, candidates=1, extra=(f"only {n}",), name=f"n{n}") for n in (11, 20))
    module = CLVPDataModule({"a": a, "b": b}, batch_size=20, num_hard_negatives=50, hard_negatives=["foreign_tail"])
    views = module.train_dataloader().dataset
    pair = views[11, 0]  # "only 11", the last of folder a, where codes range from 0 to 11
    assert len(pair["negatives"]) == 50 and all(max(codes.tolist()) <= 11 for codes, _ in pair["negatives"])
    assert views[12, 0]["speech_ids"].tolist() == [0, 0, 0], "the first of folder b"


def test_the_first_complete_folder_is_evaluated_unless_another_is_chosen(mixed):
    module = mixed(first={"test": 0})
    assert module.folder.name == "b" and module.manifest == module.mixture.manifests["b"]
    assert module.val_names == ["b", "a"] and len(module.val_dataloader()) == 2
    assert mixed().val_names == ["a", "b"] and mixed(eval_pairs="b").val_names == ["b", "a"]
    assert mixed(second={"val": 0}).val_names == ["a"]
    with pytest.raises(UserError, match="data.eval_pairs=c: no pairs with this name. Choose one of a, b"):
        mixed(eval_pairs="c")


def test_a_folder_of_weight_0_is_evaluated_only(mixed):
    apart = {"a": 1, "b": 0}
    module = mixed(weights=apart, eval_pairs="b", val_pairs="a")
    assert module.folder.name == "b" and module.val_names == ["a", "b"] and module.steps_per_epoch == 2
    assert len({key for batch in drawn(module) for key in batch["key"]}) == 20
    mixed(second={"extra": ("test 3!",)}, weights=apart).check(1)
    assert mixed(second={"val": 0}, weights=apart, eval_pairs="b").val_names == ["a"]
    with pytest.raises(UserError, match="pairs: all weights are 0"):
        mixed(weights=dict.fromkeys("ab", 0))


def test_folders_that_do_not_belong_together_are_refused(mixed, write_pairs):
    with pytest.raises(UserError, match="b: 33 speech tokens, but the pairs in .*a have 32. Use pairs of the same Tor"):
        mixed(second={"speech_vocab_size": 33})
    mixed().check(1)
    with pytest.raises(UserError, match="'test 3' is in the test split of .*a and in the train split of .*b. Generate"):
        mixed(second={"extra": ("test 3!",)}).check(1)
    with pytest.raises(UserError, match="data.batch_size=31: larger than the 30 training texts in .*a, .*b"):
        mixed(batch_size=31).check(1)
