import time

import pytest
import torch

from clvp_train.training.throughput import Throughput

MASKS = [torch.arange(8) < torch.tensor([[4], [8]]), torch.arange(24) < torch.tensor([[9], [20]])]


def measured(model, chunk_size, world_size=1):
    throughput = Throughput(model, chunk_size)
    assert throughput.measure(MASKS, world_size, torch.float32) == {}, "no interval yet"
    time.sleep(0.05)
    before = time.monotonic()
    found = throughput.measure(MASKS, world_size, torch.float32)
    return found, time.monotonic() - before


def test_pairs_and_real_tokens_are_those_of_all_ranks(model):
    found, _ = measured(model, chunk_size=1, world_size=3)
    assert found["train/pairs_per_second"] == pytest.approx(3 * 2 / 0.05, rel=0.5)
    assert found["train/tokens_per_second"] / found["train/pairs_per_second"] == pytest.approx(41 / 2)
    assert "train/mfu" not in found, "no figure for the peak of a CPU"


@pytest.mark.parametrize(("chunk_size", "positions"), [(0, 2 * 8 + 2 * 24), (1, 8 + 8 + 16 + 24), (2, 2 * 8 + 2 * 24)])
def test_padding_is_the_share_of_positions_that_were_not_tokens(model, chunk_size, positions):
    found, _ = measured(model, chunk_size)
    assert found["train/padding"].item() == pytest.approx(1 - 41 / positions)


def test_an_interval_with_a_pause_is_left_out(model):
    throughput = Throughput(model, 0)
    throughput.measure(MASKS, 1, torch.float32)
    throughput.start()
    assert throughput.measure(MASKS, 1, torch.float32) == {}
    assert throughput.measure(MASKS, 1, torch.float32)


def test_flops_are_those_that_torch_counts(model):
    """Without the embedding, norms and projection, which are not counted, and in attention all of what is not masked."""
    from torch.utils.flop_counter import FlopCounterMode

    model.config._attn_implementation = "eager"
    for tower in (model.text_model, model.speech_model):
        tower.config._attn_implementation = "eager"
    masks = [torch.ones(2, 8, dtype=torch.bool), torch.ones(2, 24, dtype=torch.bool)]
    with FlopCounterMode(display=False) as counter:
        outputs = [
            tower(torch.ones(2, L, dtype=torch.long)).last_hidden_state.sum()
            for tower, L in ((model.text_model, 8), (model.speech_model, 24))
        ]
        sum(outputs).backward()
    counted = sum(
        6 * weights * mask.sum() + 12 * width * (mask.sum(1) ** 2).sum()
        for mask, (weights, width) in zip(masks, Throughput(model, 0).towers)
    )
    assert counter.get_total_flops() == pytest.approx(counted.item(), rel=0.02)
