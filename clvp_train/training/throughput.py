"""How much of a step was work. Shapes: B batch, L length."""

import time

import torch
from lightning.fabric.utilities.throughput import get_available_flops

from clvp_train.inference.chunked_encoding import computed_positions, lengths
from clvp_train.models import CLVPModel


class Throughput:
    """Pairs and real tokens a second, share of computed positions that were padding, and model FLOPs utilisation.

    Args:
        model: whose FLOPs are counted: 6 a weight and real token, and 12 times layers, inner width and length for its
            attention, forward and backward (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B). What is
            computed twice to save memory is not counted.
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
        """Before an interval that shall not count the time since the last batch, such as validation."""
        self._last = 0.0

    def measure(
        self, masks: list[torch.Tensor], world_size: int, dtype: torch.dtype
    ) -> dict[str, torch.Tensor | float]:
        """What to log of a step, of all ranks as if they were like this one; nothing of a step after a pause.

        Args:
            masks: (B, L) of the texts, (B, L) of the codes.
            world_size: how many ranks there are.
            dtype: that matrices are multiplied in.
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
        found: dict[str, torch.Tensor | float] = {
            "train/pairs_per_second": len(masks[0]) * world_size / seconds,
            "train/tokens_per_second": tokens * world_size / seconds,
            "train/padding": 1 - tokens / positions,
        }
        peak = get_available_flops(masks[0].device, dtype) if masks[0].is_cuda else None
        if peak:
            found["train/mfu"] = flops / seconds / peak
        return found
