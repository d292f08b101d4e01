import numpy as np
import pytest
import torch

from clvp_train.data.collate import Collate
from clvp_train.tortoise.padding import pad
from clvp_train.tortoise.silence_padding import SILENCE_CODE, SILENCE_TAIL


def pair(text_length, speech_ids, finished=True, **more):
    return {
        "input_ids": torch.arange(1, 1 + text_length),
        "speech_ids": torch.tensor(speech_ids),
        "finished": finished,
        **more,
    }


def test_masks_are_true_exactly_on_real_positions():
    ids, mask = pad([torch.tensor([3, 0, 4]), torch.tensor([5]), torch.arange(9)])
    assert ids.shape == mask.shape == (3, 16) and mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [3, 1, 9]
    assert ids[0, :3].tolist() == [3, 0, 4] and mask[0].tolist() == [True] * 3 + [False] * 13  # id 0 is real too
    assert not ids[~mask].any()


def test_lengths_round_up_to_the_multiple_and_no_further():
    assert pad([torch.arange(8)])[0].shape == (1, 8)
    assert pad([torch.arange(9)])[0].shape == (1, 16)
    assert pad([torch.arange(9)], multiple=1)[0].shape == (1, 9)
    assert pad([torch.arange(7)], zeros=1)[0].shape == (1, 8)
    assert pad([torch.arange(8)], zeros=1)[0].shape == (1, 16)


def test_texts_and_codes_are_padded_independently():
    pairs = [pair(3, [1] * 20, text=7), pair(10, [1, 1], text=4)]
    batch = Collate()(pairs)
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "input_ids": (2, 16),
        "text_attention_mask": (2, 16),
        "speech_ids": (2, 24),
        "speech_attention_mask": (2, 24),
        "text": (2,),
        "text_lengths": (2,),
        "speech_lengths": (2,),
    }
    assert batch["text_lengths"].tolist() == [3, 10] and isinstance(batch["speech_lengths"], np.ndarray)
    assert batch["speech_attention_mask"].sum(dim=1).tolist() == [20, 2] and batch["text"].tolist() == [7, 4]


def test_keys_of_all_64_bits_and_negatives_stay_with_their_pairs():
    keys = [-(2**63), 2**63 - 1]
    negatives = [[(torch.tensor([10 * row + copy] * (9 + copy)), True) for copy in range(2)] for row in range(2)]
    batch = Collate()([pair(2, [1], key=key, negatives=copies) for key, copies in zip(keys, negatives)])
    assert batch["key"].tolist() == keys and batch["key"].dtype == torch.int64
    assert batch["negative_ids"].shape == batch["negative_attention_mask"].shape == (4, 16)
    assert batch["negative_ids"][:, 0].tolist() == [0, 1, 10, 11]
    assert batch["negative_attention_mask"].sum(dim=1).tolist() == [9, 10, 9, 10]


TAIL = list(SILENCE_TAIL)


@pytest.mark.parametrize(
    ("codes", "finished", "served", "real"),
    [
        ([7, 8], True, [7, 8, *[SILENCE_CODE] * 5, *TAIL], 10),
        ([7] * 6, True, [*[7] * 6, SILENCE_CODE, *TAIL], 10),
        ([7] * 9, True, [*[7] * 7, *TAIL], 10),  # the tail replaces codes, as in tortoise-tts
        ([7] * 10, True, [7] * 10, 10),
        ([7] * 14, True, [7] * 10, 10),
        ([7] * 14, False, [7] * 10, 10),
        ([7] * 9, False, [*[7] * 9, 0], 9),
        ([7] * 3, False, [*[7] * 3, *[0] * 7], 3),
    ],
)
def test_codes_are_padded_as_tortoise_tts_serves_them(codes, finished, served, real):
    collate = Collate("tortoise", max_codes=10)
    batch = collate([pair(2, codes, finished, negatives=[(torch.tensor(codes), finished)])])
    for name in ("speech", "negative"):
        assert batch[f"{name}_ids"].tolist() == [served]
        assert batch[f"{name}_attention_mask"].tolist() == [[True] * real + [False] * (10 - real)]


def test_a_text_for_tortoise_ends_with_one_zero_that_counts():
    batch = Collate("tortoise", max_codes=10)([pair(8, [1]), pair(3, [1])])
    assert batch["input_ids"].tolist() == [[*range(1, 9), *[0] * 8], [1, 2, 3, *[0] * 13]]
    assert batch["text_attention_mask"].sum(dim=1).tolist() == [9, 4]
    assert batch["text_attention_mask"][1].tolist() == [True] * 4 + [False] * 12
