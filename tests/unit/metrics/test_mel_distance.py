import numpy as np
import pytest
import torch

from clvp_train.metrics import mel_distances


def naive_distance(first, second):
    """The recurrence of Sakoe and Chiba, cell by cell in float64."""
    costs = np.sqrt(((first.double()[:, :, None] - second.double()[:, None]) ** 2).mean(dim=0).numpy())
    sums = np.full((first.shape[1] + 1, second.shape[1] + 1), np.inf)
    sums[0, 0] = 0
    for i, j in np.ndindex(costs.shape):
        diagonal, up, left = sums[i, j] + 2 * costs[i, j], sums[i, j + 1] + costs[i, j], sums[i + 1, j] + costs[i, j]
        sums[i + 1, j + 1] = min(diagonal, up, left)
    return sums[-1, -1] / (first.shape[1] + second.shape[1])


@pytest.mark.parametrize("max_cells", [1, 1500, 10**6])
def test_against_the_recurrence_cell_by_cell(max_cells):
    generator = torch.Generator().manual_seed(0)
    lengths = [(1, 1), (1, 9), (9, 1), (7, 7), (30, 12), (12, 30), (25, 26), (3, 40), (2, 2)]
    pairs = [[torch.randn(80, length, generator=generator) - 5 for length in both] for both in lengths]
    firsts, seconds = zip(*pairs)
    expected = [naive_distance(*pair) for pair in pairs]
    assert mel_distances(firsts, seconds, max_cells) == pytest.approx(expected, rel=1e-5)


def test_speed_does_not_count_but_wrong_sounds_do():
    sound = torch.nn.functional.interpolate(torch.randn(1, 80, 20, generator=torch.Generator().manual_seed(1)), 100)[0]
    slow, fast, reversed_ = sound.repeat_interleave(2, dim=1), sound[:, ::2], sound.flip(1)
    same, slower, faster, wrong = mel_distances([sound, slow, fast, reversed_], [sound] * 4)
    assert max(same, slower, faster) < 1e-3 < 0.3 < wrong


def test_no_pairs():
    assert mel_distances([], []).shape == (0,)
