"""Two real processes under DDP against one process with the whole batch, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from clvp_train.losses import SymmetricContrastiveLoss, gather
from clvp_train.losses.gather import world_size
from tests.distributed.ranks import on_ranks

B, D = 3, 8  # rows a rank, width


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.text, self.speech = nn.Linear(5, D), nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, D))
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))
        self.loss = SymmetricContrastiveLoss()
        self.double()

    def forward(self, text, speech):
        both = functional.normalize(self.text(text), dim=-1), functional.normalize(self.speech(speech), dim=-1)
        return self.loss(*both, self.logit_scale)


def batch(ranks):
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(ranks * B, width, generator=draw, dtype=torch.float64) for width in (5, 4)]


def gradients(model):
    return {name.removeprefix("module."): parameter.grad.tolist() for name, parameter in model.named_parameters()}


def own_share(rank):
    model = DistributedDataParallel(Towers())
    output = model(*(rows[rank * B : (rank + 1) * B] for rows in batch(world_size())))
    output.loss.backward()
    return output.loss.item(), output.accuracy.item(), gradients(model)


def gathered(rank):
    rows = torch.tensor([[10.0 * rank], [10.0 * rank + 1]])
    return gather(rows).tolist()


@pytest.mark.parametrize("ranks", [2, 3])
def test_mean_loss_and_averaged_gradients_are_those_of_the_whole_batch(ranks):
    whole = Towers()
    output = whole(*batch(ranks))
    output.loss.backward()
    results = on_ranks(ranks, own_share)
    losses = [loss for loss, _, _ in results]
    assert len(set(losses)) == ranks, "each rank has rows of its own"
    assert abs(sum(losses) / ranks - output.loss.item()) < 1e-10
    assert sum(accuracy for _, accuracy, _ in results) / ranks == pytest.approx(output.accuracy.item(), abs=1e-6)
    for _, _, found in results:
        assert found.keys() == gradients(whole).keys() and "logit_scale" in found
        for name, expected in gradients(whole).items():
            difference = (torch.tensor(found[name]) - torch.tensor(expected)).abs().max().item()
            size = torch.tensor(expected).abs().max().item()
            assert size > 1e-4 and difference < 1e-10, name


def test_gathered_rows_stand_in_the_order_of_ranks():
    assert on_ranks(2, gathered) == [[[0.0], [1.0], [10.0], [11.0]]] * 2
