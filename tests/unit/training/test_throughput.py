import time

import numpy as np
import pytest
import torch

from clvp_train.training.throughput import Throughput, peak_flops

LENGTHS = [np.array([4, 8]), np.array([9, 20])]


def measured(model, world_size=1):
    throughput, batch = Throughput(model), (LENGTHS, 50, world_size, torch.device("cpu"), torch.float32)
    assert throughput.measure(*batch) == {}, "no interval yet"
    time.sleep(0.05)
    before = time.monotonic()
    found = throughput.measure(*batch)
    throughput.start()
    assert throughput.measure(*batch) == {}, "an interval with a pause is left out"
    return found, time.monotonic() - before


def test_pairs_and_real_tokens_are_those_of_all_ranks(model):
    found, _ = measured(model, world_size=3)
    assert found["train/pairs_per_second"] == pytest.approx(3 * 2 / 0.05, rel=0.5)
    assert found["train/tokens_per_second"] / found["train/pairs_per_second"] == pytest.approx(41 / 2)
    assert found["train/padding"] == pytest.approx(1 - 41 / 50)
    assert "train/mfu" not in found, "no figure for the peak of a CPU"


def test_flops_are_those_that_torch_counts(model):
    """Without the embedding, norms and projection, which are not counted, and in attention all of what is not masked."""
    from torch.utils.flop_counter import FlopCounterMode

    model.config._attn_implementation = "eager"
    for tower in (model.text_model, model.speech_model):
        tower.config._attn_implementation = "eager"
    with FlopCounterMode(display=False) as counter:
        outputs = [
            tower(torch.ones(2, L, dtype=torch.long)).last_hidden_state.sum()
            for tower, L in ((model.text_model, 8), (model.speech_model, 24))
        ]
        sum(outputs).backward()
    counted = Throughput(model).flops([np.full(2, 8), np.full(2, 24)])
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA B200", 2250),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("NVIDIA RTX 6000", None),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", None),
    ],
)
def test_peaks_are_known_by_the_name_of_the_device(name, half):
    assert peak_flops(name, torch.bfloat16) == (half and pytest.approx(half * 1e12))
    assert half is None or peak_flops(name, torch.float32) < half * 1e12
