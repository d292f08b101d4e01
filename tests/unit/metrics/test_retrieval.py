import pytest
import torch
from torch.nn import functional

from clvp_train.errors import UserError
from clvp_train.metrics import ranks, retrieval, summary


def naive_ranks(queries, gallery):
    """Sorts every row of the whole score matrix; of equal scores each takes the mean of their places."""
    found = []
    for own, scores in enumerate((queries.double() @ gallery.double().T).tolist()):
        places = [place for place, score in enumerate(sorted(scores, reverse=True), start=1) if score == scores[own]]
        found.append(sum(places) / len(places))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("tile", [1, 2, 5, 16, 17, 1024])
@pytest.mark.parametrize("N", [1, 2, 17, 33])
def test_it_equals_a_full_sort_whatever_the_tile(N, tile):
    draw = torch.Generator().manual_seed(N)
    queries, gallery = (functional.normalize(torch.randn(N, 6, generator=draw).double(), dim=-1) for _ in range(2))
    assert torch.equal(ranks(queries, gallery, tile), naive_ranks(queries, gallery))


@pytest.mark.parametrize("tile", [1, 3, 7, 64])
def test_it_equals_a_full_sort_with_many_ties(tile):
    draw = torch.Generator().manual_seed(5)
    # whole numbers make exact ties; no row is normalised, as the rule does not need it
    queries, gallery = (torch.randint(-1, 2, (23, 3), generator=draw).float() for _ in range(2))
    expected = naive_ranks(queries, gallery)
    assert len(set(expected.tolist()) & {n + 0.5 for n in range(23)}) > 0, "no ties drawn"
    assert torch.equal(ranks(queries, gallery, tile), expected)


def test_perfect_embeddings_are_all_first():
    metrics = retrieval(torch.eye(12), torch.eye(12))
    perfect = {"R@1": 1, "R@5": 1, "R@10": 1, "MRR": 1, "median_rank": 1, "mean_rank": 1}
    assert metrics["text_to_speech"] == metrics["speech_to_text"] == perfect
    assert metrics["gallery"] == 12 and metrics["chance_R@1"] == 1 / 12


def test_opposite_embeddings_are_all_last():
    assert ranks(torch.eye(12), -torch.eye(12)).tolist() == [12] * 12
    assert summary(torch.full((12,), 12.0, dtype=torch.float64)) == {
        "R@1": 0,
        "R@5": 0,
        "R@10": 0,
        "MRR": pytest.approx(1 / 12),
        "median_rank": 12,
        "mean_rank": 12,
    }


@pytest.mark.parametrize("N", [2, 5, 100])
def test_embeddings_that_are_all_equal_take_the_mean_place(N):
    same = functional.normalize(torch.ones(N, 4), dim=-1)
    assert ranks(same, same, tile=3).tolist() == [(N + 1) / 2] * N


def test_the_two_directions_are_told_apart():
    # both texts like the first codes best; each code likes its own text best
    text, speech = torch.tensor([[1.0, 0.0], [0.9, 0.1]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    metrics = retrieval(text, speech)
    assert metrics["text_to_speech"]["R@1"] == 0.5
    assert metrics["speech_to_text"]["R@1"] == 1.0


def test_a_summary_counts_what_it_says():
    found = summary(torch.tensor([1.0, 2.0, 5.0, 5.5, 10.0, 40.0], dtype=torch.float64))
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
        ranks(*both)


def test_unequal_or_empty_sets_are_refused():
    with pytest.raises(ValueError, match="equal, non-empty"):
        ranks(torch.eye(3), torch.eye(3)[:2])
    with pytest.raises(ValueError, match="equal, non-empty"):
        ranks(torch.zeros(0, 4), torch.zeros(0, 4))
