import math

import numpy as np
import pytest
import torch
from scipy import linalg

from clvp_train.metrics import clvp_score, frechet_distance


def in_numpy(first, second):
    """As pytorch-fid, which tts-scores calls, writes it down."""
    root = linalg.sqrtm(np.cov(first, rowvar=False) @ np.cov(second, rowvar=False)).real
    means = first.mean(0) - second.mean(0)
    return means @ means + np.trace(np.cov(first, rowvar=False) + np.cov(second, rowvar=False) - 2 * root)


@pytest.mark.parametrize("width", [1, 6])
def test_two_normal_distributions_whose_distance_is_known(width):
    draw = torch.Generator().manual_seed(0)
    standard = torch.randn(200_000, width, generator=draw)
    moved = 3 * torch.randn(200_000, width, generator=draw) + 2
    # of N(0, 1) and N(2, 9) a dimension: 2 ** 2 + (3 - 1) ** 2
    assert frechet_distance(standard, moved) == pytest.approx(8 * width, rel=0.02)


def test_against_the_formula_of_tts_scores():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8)), rng.normal(1, 2, size=(50, 8))
    found = frechet_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert found == pytest.approx(in_numpy(first, second), rel=1e-6)


def test_a_set_is_as_it_is_even_where_it_has_fewer_members_than_dimensions():
    few = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(few, few + 1) == pytest.approx(64, rel=1e-5)


def test_one_is_no_distribution():
    with pytest.raises(ValueError, match="two"):
        frechet_distance(torch.randn(1, 4), torch.randn(9, 4))


def test_the_clvp_score_is_the_mean_similarity_times_the_temperature():
    text, speech = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert clvp_score(text, speech, math.log(20)) == pytest.approx(10)
