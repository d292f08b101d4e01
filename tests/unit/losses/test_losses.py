"""Every loss against the sum written out, in float64."""

import math

import pytest
import torch
from torch.nn import functional

from clvp_train.losses import ListwiseLoss, SigmoidLoss, SymmetricContrastiveLoss, gather

B, M, D = 7, 5, 6
KEYS = torch.tensor([4, 9, 4, 1, 9, 4, 2])


def contrastive(text, speech, scale, keys, negatives):
    """-log of the softmax probability of the match among all codes whose text differs."""
    total = 0.0
    for rows, columns, others in ((text, speech, negatives), (speech, text, [])):
        for i in range(B):
            shown = [j for j in range(B) if j == i or keys is None or keys[i] != keys[j]]
            scores = torch.stack([scale.exp() * rows[i] @ columns[j] for j in shown])
            further = [scale.exp() * rows[i] @ other for other in others]
            all_scores = torch.cat([scores, torch.stack(further)]) if len(further) else scores
            total = total - (scores[shown.index(i)] - all_scores.logsumexp(0)) / B
    return total / 2


def sigmoid(text, speech, scale, keys, negatives, bias=-3.0):
    """-log of the probability of the right decision for all pairs of different texts and all hard negatives."""
    total = 0.0
    for i in range(B):
        for j in range(B):
            if j == i or keys is None or keys[i] != keys[j]:
                logit = scale.exp() * text[i] @ speech[j] + bias
                total = total - (logit if i == j else -logit).sigmoid().log() / B
        for other in negatives:
            total = total - (-(scale.exp() * text[i] @ other + bias)).sigmoid().log() / B
    return total


LOSSES = {
    "contrastive": (SymmetricContrastiveLoss, contrastive),
    "sigmoid": (lambda **settings: SigmoidLoss(bias=-3.0, **settings), sigmoid),
}


def listwise(text, speech, scale, negatives, qualities):
    """The cross entropy of the candidates' order over the known qualities of each text with at least two, at temperature 0.1."""
    total = 0.0
    for i in range(B):
        candidates = [speech[i], *negatives[i * len(negatives) // B : (i + 1) * len(negatives) // B]]
        known = [j for j in range(len(candidates)) if not math.isnan(qualities[i][j])]
        if len(known) > 1:
            wanted = [math.exp(qualities[i][j] / 0.1) for j in known]
            scores = torch.stack([scale.exp() * text[i] @ candidates[j] for j in known])
            parts = zip(wanted, scores)
            total = total - sum(share / sum(wanted) * (score - scores.logsumexp(0)) for share, score in parts) / B
    return total


def leaves():
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randn(size, D, generator=draw, dtype=torch.float64) for size in (B, B, M)]
    tensors = [*(functional.normalize(row, dim=-1) for row in rows), torch.tensor(1.3, dtype=torch.float64)]
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("keys", [None, KEYS], ids=["all differ", "equal texts"])
@pytest.mark.parametrize("hard", [False, True], ids=["", "hard negatives"])
@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_loss_and_gradients_equal_the_sum_written_out(name, keys, hard, chunk_size):
    made, naive = LOSSES[name]

    def run(function):
        text, speech, negatives, scale = inputs = leaves()
        loss = function(text, speech, scale, negatives)
        return loss, torch.autograd.grad(loss, inputs, materialize_grads=True)

    module = made(chunk_size=chunk_size).double()
    found = run(lambda text, speech, scale, other: module(text, speech, scale, keys, other if hard else None).loss)
    expected = run(lambda text, speech, scale, other: naive(text, speech, scale, keys, other if hard else []))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert bool(found[1][2].any()) == hard


@pytest.mark.parametrize("inner", LOSSES)
def test_listwise_loss_and_gradients_equal_the_sum_written_out(inner):
    draw = torch.Generator().manual_seed(2)
    text, speech, _, scale = leaves()
    negatives = functional.normalize(
        torch.randn(3 * B, D, generator=draw, dtype=torch.float64), dim=-1
    ).requires_grad_()
    qualities = torch.randn(B, 4, generator=draw) / 5
    qualities[0], qualities[1, 1:], qualities[2, 0], qualities[3, 3] = (torch.nan,) * 4
    made, naive = LOSSES[inner]
    output = ListwiseLoss(made().double(), weight=0.7, temperature=0.1)(
        text, speech, scale, KEYS, negatives, qualities.double()
    )
    expected = listwise(text, speech, scale, negatives, qualities.tolist())
    torch.testing.assert_close(output.parts["listwise_loss"], expected.detach(), atol=1e-12, rtol=0)
    total = naive(text, speech, scale, KEYS, negatives) + 0.7 * expected
    inputs = (text, speech, negatives, scale)
    found, wanted = ([loss, *torch.autograd.grad(loss, inputs)] for loss in (output.loss, total))
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("chunk_size", [2, 100])
def test_accuracy_ignores_equal_texts_and_counts_hard_negatives(chunk_size):
    text, scale = torch.eye(4), torch.tensor(1.0)
    speech = torch.eye(4)[[1, 0, 2, 3]]  # the first two are swapped
    for loss, with_both in ((SymmetricContrastiveLoss(chunk_size), 0.5), (SigmoidLoss(chunk_size=chunk_size), 0.5)):
        assert loss(text, speech, scale).accuracy == with_both
        assert loss(text, speech, scale, torch.tensor([3, 3, 1, 2])).accuracy == 1.0
    worse = loss(text, speech, scale, None, 2 * torch.eye(4)[2:3]).accuracy
    assert worse == 0.25, "a hard negative scores higher than the match of the third text"


def test_the_bias_of_the_sigmoid_is_learned():
    loss = SigmoidLoss(bias=-3.0).double()
    text, speech, _, scale = leaves()
    loss(text, speech, scale).loss.backward()
    step = 1e-6
    with torch.no_grad():
        around = [sigmoid(text, speech, scale, None, [], bias=-3.0 + sign * step) for sign in (1, -1)]
    assert loss.bias.grad.item() == pytest.approx(((around[0] - around[1]) / (2 * step)).item(), rel=1e-6)


def test_equal_embeddings_have_the_log_of_the_batch_size_as_loss():
    same = functional.normalize(torch.ones(8, 4), dim=-1)
    loss = SymmetricContrastiveLoss()(same, same, torch.tensor(3.0)).loss
    torch.testing.assert_close(loss, torch.tensor(8.0).log())


def test_in_one_process_gather_is_the_identity():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather(rows) is rows
