"""Throughput of training steps. Shapes: B batch, L length."""

import time

import torch
from lightning.fabric.utilities.throughput import get_available_flops

from clvp_train.inference.chunked_encoding import computed_positions, lengths
from clvp_train.models import CLVPModel


class Throughput:
    """Measures pairs and real tokens per second, the share of computed positions that are padding, and model FLOPs utilisation.

    Args:
        model: whose FLOPs are counted: 6 a weight and real token, and 12 times layers, inner width and length for its
            attention, forward and backward (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B). Recomputation
            that saves memory is not counted.
        chunk_size: rows that an encoder takes at once.
    """

    def __init__(self, model: CLVPModel, chunk_size: int) -> None:
        self.chunk_size = chunk_size
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
        self, masks: list[torch.Tensor], world_size: int, dtype: torch.dtype
    ) -> dict[str, torch.Tensor | float]:
        """The metrics of a step, extrapolated from this rank to all; none for the first step after `start`.

        Args:
            masks: (B, L) of texts and (B, L) of codes.
            world_size: number of ranks.
            dtype: of matrix multiplications.
        """
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        if seconds == now:
            return {}
        tokens, positions, flops = torch.zeros(3, dtype=torch.float64).unbind()
        for mask_BL, (weights, width) in zip(masks, self.towers):
            lengths_B = lengths(mask_BL).double()
            tokens = tokens + lengths_B.sum()
            positions = positions + computed_positions(mask_BL, self.chunk_size)
            flops = flops + 6 * weights * lengths_B.sum() + 12 * width * (lengths_B**2).sum()
        metrics: dict[str, torch.Tensor | float] = {
            "train/pairs_per_second": len(masks[0]) * world_size / seconds,
            "train/tokens_per_second": tokens * world_size / seconds,
            "train/padding": 1 - tokens / positions,
        }
        peak = get_available_flops(masks[0].device, dtype) if masks[0].is_cuda else None
        if peak:
            metrics["train/mfu"] = flops / seconds / peak
        return metrics
