import numpy as np
import pytest
import torch

from clvp_train.metrics import RetrievalRanks, by_label, by_quartile


def made(*ranks):
    ranks = torch.tensor(ranks, dtype=torch.float64)
    return RetrievalRanks(ranks, ranks.flip(0))


def test_every_label_has_the_ranks_of_its_own_texts():
    rows = by_label(["slt", "joe", "slt", "slt"], made(1, 2, 3, 1))
    assert [(row["label"], row["texts"]) for row in rows] == [("slt", 3), ("joe", 1)]
    assert [row["text_to_speech"]["R@1"] for row in rows] == [pytest.approx(2 / 3), 0]
    assert [row["speech_to_text"]["mean_rank"] for row in rows] == [pytest.approx(4 / 3), 3]


def test_rare_labels_stand_together():
    labels = [f"voice {number}" for number in range(30) for _ in range(30 - number)]
    rows = by_label(labels, made(*range(1, len(labels) + 1)))
    assert len(rows) == 21 and rows[0]["label"] == "voice 0" and rows[-1]["label"] == "10 others"
    assert sum(row["texts"] for row in rows) == len(labels)


def test_quarters_go_from_short_to_long_and_hold_every_text_once():
    lengths = np.array([40, 10, 30, 20, 41, 11, 31, 21])
    rows = by_quartile(lengths, made(*range(1, 9)))
    assert [row["label"] for row in rows] == ["10–11", "20–21", "30–31", "40–41"]
    assert [row["texts"] for row in rows] == [2] * 4
    assert rows[0]["text_to_speech"]["mean_rank"] == 4 and rows[3]["text_to_speech"]["mean_rank"] == 3


def test_equal_lengths_are_not_torn_apart():
    rows = by_quartile(np.array([5, 5, 5, 5, 5, 9]), made(1, 1, 1, 1, 1, 2))
    assert [(row["label"], row["texts"]) for row in rows] == [("5–5", 5), ("9–9", 1)]
