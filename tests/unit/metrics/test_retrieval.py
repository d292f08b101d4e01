import sys

import pytest
import torch
from torch.nn import functional

from clvp_train.errors import UserError
from clvp_train.metrics import rank_summary, retrieval_ranks, retrieval_summary
from tests.distributed.ranks import on_ranks

MODULE = sys.modules["clvp_train.metrics.retrieval"]  # the package has a function of that name


def naive_ranks(queries, gallery):
    """Sorts every row of the whole score matrix in float64; of equal scores each takes the mean of their places."""
    found = []
    for own, scores in enumerate((queries.double() @ gallery.double().T).tolist()):
        places = [place for place, score in enumerate(sorted(scores, reverse=True), start=1) if score == scores[own]]
        found.append(sum(places) / len(places))
    return torch.tensor(found, dtype=torch.float64)


def assert_as_naive(text, speech):
    found = retrieval_ranks(text, speech)
    assert torch.equal(found.text_to_speech, naive_ranks(text, speech))
    assert torch.equal(found.speech_to_text, naive_ranks(speech, text))
    return found


@pytest.fixture
def tiles(monkeypatch, request):
    rows, columns = request.param
    monkeypatch.setattr(MODULE, "ROWS", rows)
    monkeypatch.setattr(MODULE, "COLUMNS", columns)


@pytest.mark.parametrize("tiles", [(1, 1), (2, 5), (5, 2), (16, 3), (17, 33), (512, 2048)], indirect=True)
@pytest.mark.parametrize("N", [1, 2, 17, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_directions_equal_a_full_sort_whatever_the_tile(N, tiles, dtype):
    draw = torch.Generator().manual_seed(N)
    text, speech = (functional.normalize(torch.randn(N, 6, generator=draw, dtype=dtype), dim=-1) for _ in range(2))
    assert_as_naive(text, speech)


@pytest.mark.parametrize("tiles", [(1, 1), (3, 7), (7, 3), (64, 64)], indirect=True)
def test_it_equals_a_full_sort_with_many_ties(tiles):
    draw = torch.Generator().manual_seed(5)
    # whole numbers make exact ties; no row is normalised, as the rule does not need it
    text, speech = (torch.randint(-1, 2, (23, 3), generator=draw).float() for _ in range(2))
    found = assert_as_naive(text, speech)
    assert len(set(found.text_to_speech.tolist()) & {n + 0.5 for n in range(23)}) > 0, "no ties drawn"


@pytest.mark.parametrize("tiles", [(16, 64), (512, 2048)], indirect=True)
def test_codes_that_occur_several_times_tie_at_full_width(tiles):
    """In float32 equal rows of a matrix may come out of a product with other last digits; ranks must not see them."""
    draw = torch.Generator().manual_seed(0)
    text, speech = (torch.randint(-8, 9, (301, 768), generator=draw).float() / 256 for _ in range(2))
    speech[100:200] = speech[:100]
    speech[250:260] = speech[249]
    assert_as_naive(text, speech)


@pytest.mark.parametrize("tiles", [(16, 64), (512, 2048)], indirect=True)
def test_scores_that_float32_cannot_tell_apart_are_told_apart(tiles):
    draw = torch.Generator().manual_seed(1)
    centre = functional.normalize(torch.randn(1, 64, generator=draw), dim=-1)
    near = [functional.normalize(centre + 1e-3 * torch.randn(257, 64, generator=draw), dim=-1) for _ in range(2)]
    in_float32 = (near[0] @ near[1].T).flatten()
    assert len(in_float32.unique()) < 0.02 * len(in_float32), "nearly all scores collide"
    assert_as_naive(*near)


@pytest.mark.parametrize("N", [1000, 1301])
def test_a_trained_and_an_untrained_model_at_odd_sizes(N):
    draw = torch.Generator().manual_seed(N)
    text = functional.normalize(torch.randn(N, 96, generator=draw), dim=-1)
    trained = functional.normalize(text + 0.3 * torch.randn(N, 96, generator=draw), dim=-1)
    found = assert_as_naive(text, trained)
    assert 0.1 < (found.text_to_speech == 1).double().mean() < 0.9
    assert_as_naive(text, functional.normalize(torch.randn(N, 96, generator=draw), dim=-1))


def ranks_on_a_rank(rank, size):
    draw = torch.Generator().manual_seed(0)
    text, speech = (torch.randint(-2, 3, (size, 8), generator=draw).float() for _ in range(2))
    tiles = []
    found = retrieval_ranks(text, speech, on_tile=lambda done, of: tiles.append((done, of)))
    return found.text_to_speech.tolist(), found.speech_to_text.tolist(), tiles


@pytest.mark.parametrize("size", [7, 2049, 3001])
def test_two_ranks_share_the_tiles_and_both_have_all_ranks(size):
    first, second = on_ranks(2, ranks_on_a_rank, size)
    assert first[:2] == second[:2] == ranks_on_a_rank(0, size)[:2]
    num_tiles = -(-size // 512) * -(-size // 2048)
    assert len(first[2]) + len(second[2]) == num_tiles and abs(len(first[2]) - len(second[2])) <= 1
    assert first[2] == [(done, len(first[2])) for done in range(1, len(first[2]) + 1)]


def test_perfect_embeddings_are_all_first():
    metrics = retrieval_summary(retrieval_ranks(torch.eye(12), torch.eye(12)))
    perfect = {"R@1": 1, "R@5": 1, "R@10": 1, "MRR": 1, "median_rank": 1, "mean_rank": 1}
    assert metrics["text_to_speech"] == metrics["speech_to_text"] == perfect
    assert metrics["gallery"] == 12 and metrics["chance_R@1"] == 1 / 12


def test_opposite_embeddings_are_all_last():
    assert retrieval_ranks(torch.eye(12), -torch.eye(12)).text_to_speech.tolist() == [12] * 12
    assert rank_summary(torch.full((12,), 12.0, dtype=torch.float64)) == {
        "R@1": 0,
        "R@5": 0,
        "R@10": 0,
        "MRR": pytest.approx(1 / 12),
        "median_rank": 12,
        "mean_rank": 12,
    }


@pytest.mark.parametrize("N", [2, 5, 100])
@pytest.mark.parametrize("tiles", [(3, 7), (512, 2048)], indirect=True)
def test_embeddings_that_are_all_equal_take_the_mean_place(N, tiles):
    same = functional.normalize(torch.rand(1, 40), dim=-1).expand(N, -1)
    assert retrieval_ranks(same, same).text_to_speech.tolist() == [(N + 1) / 2] * N


def test_chance_is_what_a_random_model_scores():
    draw = torch.Generator().manual_seed(3)
    text, speech = (functional.normalize(torch.randn(2000, 64, generator=draw), dim=-1) for _ in range(2))
    found = retrieval_ranks(text, speech)
    assert found.text_to_speech.mean().item() == pytest.approx(1000.5, rel=0.05)
    assert (found.text_to_speech <= 200).double().mean().item() == pytest.approx(0.1, abs=0.025)


def test_the_two_directions_are_told_apart():
    # both texts like the first codes best; each code likes its own text best
    text, speech = torch.tensor([[1.0, 0.0], [0.9, 0.1]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    metrics = retrieval_summary(retrieval_ranks(text, speech))
    assert metrics["text_to_speech"]["R@1"] == 0.5
    assert metrics["speech_to_text"]["R@1"] == 1.0


def test_a_summary_counts_what_it_says():
    found = rank_summary(torch.tensor([1.0, 2.0, 5.0, 5.5, 10.0, 40.0], dtype=torch.float64))
    reciprocal = (1 + 1 / 2 + 1 / 5 + 1 / 5.5 + 1 / 10 + 1 / 40) / 6
    assert found["R@1"] == pytest.approx(1 / 6) and found["R@5"] == pytest.approx(3 / 6)
    assert found["R@10"] == pytest.approx(5 / 6) and found["MRR"] == pytest.approx(reciprocal)
    assert found["median_rank"] == 5.25 and found["mean_rank"] == pytest.approx(63.5 / 6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_embeddings_that_are_not_finite_are_refused(bad, side):
    both = [torch.eye(3), torch.eye(3)]
    both[side][1, 1] = bad
    with pytest.raises(UserError, match="diverged; lower optim.lr"):
        retrieval_ranks(*both)


def test_unequal_or_empty_sets_are_refused():
    with pytest.raises(ValueError, match="equal, non-empty"):
        retrieval_ranks(torch.eye(3), torch.eye(3)[:2])
    with pytest.raises(ValueError, match="equal, non-empty"):
        retrieval_ranks(torch.zeros(0, 4), torch.zeros(0, 4))
