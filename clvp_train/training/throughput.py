"""Throughput of training steps. Shapes: B batch."""

import time
from collections.abc import Sequence

import numpy as np
import torch

from clvp_train.models import CLVPModel

# dense teraFLOPS of matrix products by a part of the device's name: of 16 bits, accumulated in float32, and of float32. From
# NVIDIA's data sheets; of names that contain another, the longer one counts.
PEAK_TERAFLOPS = {
    "A100": (312.0, 19.5),
    "H100": (989.4, 66.9),
    "H100 PCIe": (756.0, 51.2),
    "H100 NVL": (835.0, 60.0),
    "H200": (989.4, 66.9),
    "H200 NVL": (835.0, 60.0),
    "B200": (2250.0, 75.0),
    "GH200": (989.4, 66.9),
    "L4": (121.0, 30.3),
    "L40S": (362.0, 91.6),
    "RTX 4090": (165.2, 82.6),
    "RTX 5090": (209.5, 104.8),
    "RTX 6000 Ada": (364.2, 91.1),
}


def peak_flops(name: str, dtype: torch.dtype) -> float | None:
    """FLOPs per second that a device can do at most in matrix products of a dtype; None if it is not known.

    Args:
        name: as `torch.cuda.get_device_name` returns it, such as "NVIDIA H100 80GB HBM3".
        dtype: float32 counts without TF32.
    """
    words = f" {name.replace('-', ' ')} "
    known = [key for key in PEAK_TERAFLOPS if all(f" {word} " in words for word in key.split())]
    if not known or " Laptop " in words or dtype.itemsize not in (2, 4):
        return None
    return PEAK_TERAFLOPS[max(known, key=len)][dtype.itemsize == 4] * 1e12


class Throughput:
    """Measures pairs and real tokens per second, the share of computed positions that are padding, and model FLOPs utilisation.

    Args:
        model: whose FLOPs are counted: 6 a weight and real token, and 12 times layers, inner width and length for its
            attention, forward and backward (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B). Recomputation
            that saves memory is not counted.
    """

    def __init__(self, model: CLVPModel) -> None:
        self.towers = []
        for tower in (model.text_model, model.speech_model):
            weights = sum(parameter.numel() for parameter in tower.layers.parameters() if parameter.dim() >= 2)
            config = tower.config
            self.towers.append((weights, config.num_hidden_layers * config.num_attention_heads * config.head_dim))
        self._last = 0.0

    def start(self) -> None:
        """Excludes the time since the last batch from the next measurement, for example the time of a validation."""
        self._last = 0.0

    def measure(
        self,
        lengths: Sequence[np.ndarray],
        positions: int,
        world_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> dict[str, float]:
        """The metrics of a step, extrapolated from this rank to all; none for the first step after `start`.

        Args:
            lengths: (B,) of texts and (B,) of codes.
            positions: that were computed, padding included.
            world_size: number of ranks.
            device: of this rank.
            dtype: of matrix multiplications.
        """
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        if seconds == now:
            return {}
        tokens = sum(int(lengths_B.sum()) for lengths_B in lengths)
        metrics = {
            "train/pairs_per_second": len(lengths[0]) * world_size / seconds,
            "train/tokens_per_second": tokens * world_size / seconds,
            "train/padding": 1 - tokens / positions,
        }
        peak = peak_flops(torch.cuda.get_device_name(device), dtype) if device.type == "cuda" else None
        if peak:
            metrics["train/mfu"] = self.flops(lengths) / seconds / peak
        return metrics

    def flops(self, lengths: Sequence[np.ndarray]) -> float:
        """Of the forward and backward pass of a batch."""
        return sum(
            float(6 * weights * lengths_B.sum() + 12 * width * (lengths_B.astype(float) ** 2).sum())
            for lengths_B, (weights, width) in zip(lengths, self.towers)
        )
