import pytest
import torch
from torch.nn import functional

from clvp_train.losses import SymmetricContrastiveLoss, gather


def embeddings(B=6, D=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [functional.normalize(torch.randn(B, D, generator=draw, dtype=torch.float64), dim=-1) for _ in range(2)]


def naive(text, speech, scale):
    """Written out: the mean over rows, and over columns, of -log of the softmax probability of the own partner."""
    total = 0.0
    for one, other in ((text, speech), (speech, text)):
        for i in range(len(one)):
            scores = torch.stack([scale.exp() * (one[i] * other[j]).sum() for j in range(len(other))])
            total = total - (scores[i].exp() / scores.exp().sum()).log() / len(one)
    return total / 2


@pytest.mark.parametrize("B", [1, 2, 7])
def test_it_equals_the_naive_full_computation_with_its_gradients(B):
    def run(function):
        inputs = [*embeddings(B), torch.tensor(1.3, dtype=torch.float64)]
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        loss = function(*leaves)
        return loss, torch.autograd.grad(loss, leaves)

    loss, gradients = run(lambda *leaves: SymmetricContrastiveLoss()(*leaves).loss)
    expected, expected_gradients = run(naive)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
    for gradient, wanted in zip(gradients, expected_gradients):
        torch.testing.assert_close(gradient, wanted, atol=1e-12, rtol=0)


def test_accuracy_is_the_mean_share_of_own_partners_that_score_highest():
    text = torch.eye(4)
    speech = torch.eye(4)[[0, 1, 3, 2]]  # two of four are right
    output = SymmetricContrastiveLoss()(text, speech, torch.tensor(2.0))
    assert output.accuracy.item() == 0.5
    assert not output.accuracy.requires_grad


def test_embeddings_that_tell_nothing_cost_the_log_of_the_batch():
    same = functional.normalize(torch.ones(8, 4), dim=-1)
    loss = SymmetricContrastiveLoss()(same, same, torch.tensor(3.0)).loss
    torch.testing.assert_close(loss, torch.tensor(8.0).log())


def test_in_one_process_gather_is_the_identity():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather(rows) is rows
