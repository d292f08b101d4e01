import numpy as np
import pytest
import torch
from torch.nn import functional

from clvp_train.errors import UserError
from clvp_train.metrics import (
    RetrievalRanks,
    by_label,
    by_quartile,
    rank_summary,
    retrieval,
    retrieval_ranks,
    retrieval_summary,
)
from tests.distributed.ranks import on_ranks


def naive_ranks(queries, gallery):
    """Sorts every row of the score matrix in float64; equal scores share the mean of their ranks."""
    ranks = []
    for own, scores in enumerate((queries.double() @ gallery.double().T).tolist()):
        equal = [rank for rank, score in enumerate(sorted(scores, reverse=True), start=1) if score == scores[own]]
        ranks.append(sum(equal) / len(equal))
    return torch.tensor(ranks, dtype=torch.float64)


def assert_as_naive(text, speech):
    ranks = retrieval_ranks(text, speech)
    assert torch.equal(ranks.text_to_speech, naive_ranks(text, speech))
    assert torch.equal(ranks.speech_to_text, naive_ranks(speech, text))
    return ranks


def random_embeddings(size, width, seed, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    return [functional.normalize(torch.randn(size, width, generator=draw, dtype=dtype), dim=-1) for _ in range(2)]


@pytest.fixture
def tiles(monkeypatch, request):
    rows, columns = request.param
    monkeypatch.setattr(retrieval, "ROWS", rows)
    monkeypatch.setattr(retrieval, "COLUMNS", columns)


@pytest.mark.parametrize("tiles", [(1, 1), (2, 5), (5, 2), (16, 3), (17, 33), (512, 2048)], indirect=True)
@pytest.mark.parametrize("N", [1, 2, 17, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_directions_equal_a_full_sort_with_any_tile(N, tiles, dtype):
    assert_as_naive(*random_embeddings(N, 6, N, dtype))


@pytest.mark.parametrize("tiles", [(1, 1), (3, 7), (7, 3), (64, 64)], indirect=True)
def test_ranks_with_many_ties(tiles):
    draw = torch.Generator().manual_seed(5)
    # integers make exact ties; the tie rule does not need normalised rows
    text, speech = (torch.randint(-1, 2, (23, 3), generator=draw).float() for _ in range(2))
    ranks = assert_as_naive(text, speech)
    assert len(set(ranks.text_to_speech.tolist()) & {n + 0.5 for n in range(23)}) > 0, "no ties drawn"


@pytest.mark.parametrize("tiles", [(16, 64), (512, 2048)], indirect=True)
def test_repeated_codes_tie_at_full_width(tiles):
    """In float32 the products of equal rows may differ in the last digits, which ranks must not depend on."""
    draw = torch.Generator().manual_seed(0)
    text, speech = (torch.randint(-8, 9, (301, 768), generator=draw).float() / 256 for _ in range(2))
    speech[100:200] = speech[:100]
    speech[250:260] = speech[249]
    assert_as_naive(text, speech)


@pytest.mark.parametrize("tiles", [(16, 64), (512, 2048)], indirect=True)
def test_scores_that_float32_cannot_distinguish(tiles):
    draw = torch.Generator().manual_seed(1)
    centre = functional.normalize(torch.randn(1, 64, generator=draw), dim=-1)
    near = [functional.normalize(centre + 1e-3 * torch.randn(257, 64, generator=draw), dim=-1) for _ in range(2)]
    in_float32 = (near[0] @ near[1].T).flatten()
    assert len(in_float32.unique()) < 0.02 * len(in_float32), "nearly all scores collide"
    assert_as_naive(*near)


@pytest.mark.parametrize("N", [1000, 1301])
def test_trained_and_untrained_models_at_odd_sizes(N):
    text, noise = random_embeddings(N, 96, N)
    trained = functional.normalize(text + 3 * noise, dim=-1)
    assert 0.1 < (assert_as_naive(text, trained).text_to_speech == 1).double().mean() < 0.9
    assert_as_naive(text, noise)


def ranks_on_a_process(rank, size):
    draw = torch.Generator().manual_seed(0)
    text, speech = (torch.randint(-2, 3, (size, 8), generator=draw).float() for _ in range(2))
    tiles = []
    ranks = retrieval_ranks(text, speech, on_tile=lambda done, total: tiles.append((done, total)))
    return ranks.text_to_speech.tolist(), ranks.speech_to_text.tolist(), tiles


@pytest.mark.parametrize("size", [7, 2049, 3001])
def test_two_processes_share_the_tiles_and_have_all_ranks(size):
    first, second = on_ranks(2, ranks_on_a_process, size)
    assert first[:2] == second[:2] == ranks_on_a_process(0, size)[:2]
    num_tiles = -(-size // 512) * -(-size // 2048)
    assert len(first[2]) + len(second[2]) == num_tiles and abs(len(first[2]) - len(second[2])) <= 1
    assert first[2] == [(done, len(first[2])) for done in range(1, len(first[2]) + 1)]


def test_perfect_and_opposite_embeddings():
    metrics = retrieval_summary(retrieval_ranks(torch.eye(12), torch.eye(12)))
    perfect = {"R@1": 1, "R@5": 1, "R@10": 1, "MRR": 1, "median_rank": 1, "mean_rank": 1}
    assert metrics["text_to_speech"] == metrics["speech_to_text"] == perfect
    assert metrics["gallery"] == 12 and metrics["chance_R@1"] == 1 / 12
    assert retrieval_ranks(torch.eye(12), -torch.eye(12)).text_to_speech.tolist() == [12] * 12


@pytest.mark.parametrize("N", [2, 5, 100])
@pytest.mark.parametrize("tiles", [(3, 7), (512, 2048)], indirect=True)
def test_equal_embeddings_share_the_mean_rank(N, tiles):
    same = functional.normalize(torch.rand(1, 40), dim=-1).expand(N, -1)
    assert retrieval_ranks(same, same).text_to_speech.tolist() == [(N + 1) / 2] * N


def test_a_random_model_is_at_chance():
    ranks = retrieval_ranks(*random_embeddings(2000, 64, 3))
    assert ranks.text_to_speech.mean().item() == pytest.approx(1000.5, rel=0.05)
    assert (ranks.text_to_speech <= 200).double().mean().item() == pytest.approx(0.1, abs=0.025)


def test_the_two_directions_differ():
    # both texts score highest with the first codes; each code scores highest with its own text
    text, speech = torch.tensor([[1.0, 0.0], [0.9, 0.1]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    metrics = retrieval_summary(retrieval_ranks(text, speech))
    assert metrics["text_to_speech"]["R@1"] == 0.5 and metrics["speech_to_text"]["R@1"] == 1.0


def test_rank_summary():
    metrics = rank_summary(torch.tensor([1.0, 2.0, 5.0, 5.5, 10.0, 40.0], dtype=torch.float64))
    reciprocal = (1 + 1 / 2 + 1 / 5 + 1 / 5.5 + 1 / 10 + 1 / 40) / 6
    expected = {"R@1": 1 / 6, "R@5": 3 / 6, "R@10": 5 / 6, "MRR": reciprocal, "median_rank": 5.25}
    assert metrics == pytest.approx(expected | {"mean_rank": 63.5 / 6})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_embeddings_must_be_finite(bad, side):
    both = [torch.eye(3), torch.eye(3)]
    both[side][1, 1] = bad
    with pytest.raises(UserError, match="diverged"):
        retrieval_ranks(*both)


@pytest.mark.parametrize("both", [(torch.eye(3), torch.eye(3)[:2]), (torch.zeros(0, 4), torch.zeros(0, 4))])
def test_embeddings_must_be_pairs(both):
    with pytest.raises(ValueError, match="equal, non-empty"):
        retrieval_ranks(*both)


def given_ranks(*ranks):
    ranks_N = torch.tensor(ranks, dtype=torch.float64)
    return RetrievalRanks(ranks_N, ranks_N.flip(0))


def test_breakdown_by_label():
    rows = by_label(["slt", "joe", "slt", "slt"], given_ranks(1, 2, 3, 1))
    assert [(row["label"], row["texts"]) for row in rows] == [("slt", 3), ("joe", 1)]
    assert [row["text_to_speech"]["R@1"] for row in rows] == [pytest.approx(2 / 3), 0]
    assert [row["speech_to_text"]["mean_rank"] for row in rows] == [pytest.approx(4 / 3), 3]


def test_breakdown_groups_rare_labels():
    labels = [f"voice {number}" for number in range(30) for _ in range(30 - number)]
    rows = by_label(labels, given_ranks(*range(1, len(labels) + 1)))
    assert len(rows) == 21 and rows[0]["label"] == "voice 0" and rows[-1]["label"] == "10 others"
    assert sum(row["texts"] for row in rows) == len(labels)


def test_breakdown_by_quartile():
    rows = by_quartile(np.array([40, 10, 30, 20, 41, 11, 31, 21]), given_ranks(*range(1, 9)))
    assert [(row["label"], row["texts"]) for row in rows] == [("10–11", 2), ("20–21", 2), ("30–31", 2), ("40–41", 2)]
    assert rows[0]["text_to_speech"]["mean_rank"] == 4 and rows[3]["text_to_speech"]["mean_rank"] == 3
    rows = by_quartile(np.array([5, 5, 5, 5, 5, 9]), given_ranks(1, 1, 1, 1, 1, 2))
    assert [(row["label"], row["texts"]) for row in rows] == [("5–5", 5), ("9–9", 1)], "equal values stay together"
