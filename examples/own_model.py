"""A model: a CLVP whose speech embeddings are noisy in training, as a regulariser.

PYTHONPATH=examples python train.py --config-dir examples/conf model=noisy
"""

from typing import Any

import torch
from torch import Tensor

from clvp_train.models import CLVPConfig, CLVPModel


class NoisyCLVP(CLVPModel):
    """Has the parameters of `CLVPModel`, so that evaluation, `Reranker` and exports open what is saved as a `CLVPModel`."""

    def __init__(self, config: CLVPConfig, noise: float = 0.1) -> None:
        super().__init__(config)
        self.noise = noise

    def get_speech_features(self, speech_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        embeds_BP = super().get_speech_features(speech_ids, attention_mask, **kwargs)
        if not self.training:
            return embeds_BP
        return embeds_BP + self.noise * embeds_BP.std(1, keepdim=True) * torch.randn_like(embeds_BP)
