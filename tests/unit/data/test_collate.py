import torch

from clvp_train.data.collate import collate, pad


def test_masks_are_true_exactly_on_what_is_real():
    ids, mask = pad([torch.tensor([3, 0, 4]), torch.tensor([5]), torch.arange(9)])
    assert ids.shape == mask.shape == (3, 16) and mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [3, 1, 9]
    assert ids[0, :3].tolist() == [3, 0, 4] and mask[0].tolist() == [True] * 3 + [False] * 13  # id 0 is real too
    assert not ids[~mask].any()


def test_lengths_round_up_to_the_multiple_and_no_further():
    assert pad([torch.arange(8)])[0].shape == (1, 8)
    assert pad([torch.arange(9)])[0].shape == (1, 16)
    assert pad([torch.arange(9)], multiple=1)[0].shape == (1, 9)


def test_both_sides_are_padded_apart_and_texts_keep_their_numbers():
    pairs = [
        {"input_ids": torch.ones(3).long(), "speech_ids": torch.ones(20).long(), "text": torch.tensor(7)},
        {"input_ids": torch.ones(10).long(), "speech_ids": torch.ones(2).long(), "text": torch.tensor(4)},
    ]
    batch = collate(pairs)
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "input_ids": (2, 16),
        "text_attention_mask": (2, 16),
        "speech_ids": (2, 24),
        "speech_attention_mask": (2, 24),
        "text": (2,),
    }
    assert batch["speech_attention_mask"].sum(dim=1).tolist() == [20, 2] and batch["text"].tolist() == [7, 4]
    assert "text" not in collate([{key: pair[key] for key in ("input_ids", "speech_ids")} for pair in pairs])
