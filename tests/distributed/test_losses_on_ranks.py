"""Two and three real processes under DDP against one process with the full batch, in float64, through CLVP's encoders."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.losses import ListwiseLoss, SigmoidLoss, SymmetricContrastiveLoss, gather
from clvp_train.models import CLVPConfig, CLVPModel
from clvp_train.training import CLVPModule, TrainingConfig
from tests.distributed.ranks import on_ranks

B, RANKS = 5, 3  # rows a rank
CASES = {
    "plain": {},
    "cached gradients": {"cached": True},
    "equal texts": {"equal": True},
    "hard negatives": {"hard": True, "cached": True, "equal": True},
    "logits by rows": {"loss": lambda: SymmetricContrastiveLoss(chunk_size=2), "equal": True, "hard": True},
    "listwise": {"loss": lambda: ListwiseLoss(SymmetricContrastiveLoss(), 0.5), "hard": True, "cached": True},
    "packed": {"packed": True},
    "packed, all of it": {"packed": True, "cached": True, "equal": True, "hard": True},
    "sigmoid": {"loss": SigmoidLoss},
    "sigmoid, all of it": {"loss": lambda: SigmoidLoss(chunk_size=2), "cached": True, "equal": True, "hard": True},
}

STEPS = {"plain": 10, "hard negatives": 10, "packed": 10}  # of AdamW, whose weights are compared


class Step(nn.Module):
    """What `CLVPModule.training_step` computes, without a trainer."""

    def __init__(self, loss=SymmetricContrastiveLoss, cached=False, packed=False, **kwargs):
        super().__init__()
        torch.manual_seed(0)
        tower = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
        tower |= {"num_attention_heads": 2, "initializer_range": 0.3, "dropout": 0.0, "attention_dropout": 0.0}
        model = CLVPModel(CLVPConfig(text_config=tower, speech_config=tower, projection_dim=8))
        settings = TrainingConfig(chunk_tokens=32, cached_gradients=cached, packed=packed)
        self.clvp = CLVPModule(model, loss(), training=settings).double()

    def forward(self, batch):
        text_BD, speech_BD = self.clvp.batch_encoder.embed(batch)
        negatives = speech_BD[len(text_BD) :] if "negative_ids" in batch else None
        scale = self.clvp.model.logit_scale
        more = [batch["qualities"]] if isinstance(self.clvp.loss, ListwiseLoss) else []
        return self.clvp.loss(text_BD, speech_BD[: len(text_BD)], scale, batch.get("key"), negatives, *more)


def batch(ranks, equal=False, hard=False, **kwargs):
    draw = torch.Generator().manual_seed(1)

    def rows(number, width):
        mask = torch.arange(width) < torch.randint(2, width + 1, (number, 1), generator=draw)
        return torch.randint(1, 40, mask.shape, generator=draw) * mask, mask

    N = ranks * B
    (input_ids, text_mask), (speech_ids, speech_mask), (negative_ids, negative_mask) = (
        rows(number, width) for number, width in ((N, 9), (N, 20), (2 * N, 24))
    )
    full = {"input_ids": input_ids, "text_attention_mask": text_mask}
    full |= {"speech_ids": speech_ids, "speech_attention_mask": speech_mask}
    if equal:  # among them on different ranks
        full["key"] = torch.arange(N) % (N - 3)
    if hard:
        qualities = torch.randn(N, 3, generator=draw, dtype=torch.float64) / 20
        qualities[1, 1], qualities[2] = torch.nan, torch.nan
        full |= {"negative_ids": negative_ids, "negative_attention_mask": negative_mask, "qualities": qualities}
    return full


def share(full, rank, ranks):
    return {name: rows.chunk(ranks)[rank] for name, rows in full.items()}


def results(model, data, steps=0):
    output = model(data)
    output.loss.backward()
    named = {name.removeprefix("module."): parameter for name, parameter in model.named_parameters()}
    gradients = {name: parameter.grad.tolist() for name, parameter in named.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.step()
        optimizer.zero_grad()
        model(data).loss.backward()
    weights = {f"{name} after {steps} steps": weight.tolist() for name, weight in named.items() if steps}
    return output.loss.item(), output.accuracy.item(), gradients | weights


def own_shares(rank):
    found, (_, world_size) = {}, rank_and_world_size()
    for name, settings in CASES.items():
        model = DistributedDataParallel(Step(**settings))
        found[name] = results(model, share(batch(world_size, **settings), rank, world_size), STEPS.get(name, 0))
    return found


@pytest.fixture(scope="module", params=[2, RANKS])
def on_all(request):
    return request.param, on_ranks(request.param, own_shares)


@pytest.mark.parametrize("case", CASES)
def test_mean_loss_and_averaged_gradients_equal_those_of_the_global_batch(on_all, case):
    ranks, by_rank = on_all
    loss, accuracy, gradients = results(Step(**CASES[case]), batch(ranks, **CASES[case]), STEPS.get(case, 0))
    losses = [rank[case][0] for rank in by_rank]
    assert len(set(losses)) == ranks, "each rank has different rows"
    assert abs(sum(losses) / ranks - loss) < 1e-10
    assert sum(rank[case][1] for rank in by_rank) / ranks == pytest.approx(accuracy, abs=1e-6)
    assert {"clvp.model.logit_scale", "clvp.model.text_model.token_embedding.weight"} <= gradients.keys()
    assert ("clvp.loss.bias" in gradients) == case.startswith("sigmoid")
    for rank in by_rank:
        assert rank[case][2].keys() == gradients.keys()
        for name, expected in gradients.items():
            found, wanted = (torch.tensor(values, dtype=torch.float64) for values in (rank[case][2][name], expected))
            assert wanted.abs().max() > 1e-3 and (found - wanted).abs().max() < 1e-10, name


def test_the_cases_differ():
    """Otherwise the cases above would test the same thing."""
    losses = {name: results(Step(**settings), batch(2, **settings))[0] for name, settings in CASES.items()}
    assert losses["plain"] == pytest.approx(losses["cached gradients"], abs=1e-12)
    assert losses["hard negatives"] == pytest.approx(losses["logits by rows"], abs=1e-12)
    assert len({round(loss, 9) for loss in losses.values()}) == 6


def gathered(rank):
    rows = torch.tensor([[10.0 * rank], [10.0 * rank + 1]])
    return gather(rows).tolist()


def test_gathered_rows_are_in_the_order_of_ranks():
    assert on_ranks(2, gathered) == [[[0.0], [1.0], [10.0], [11.0]]] * 2
