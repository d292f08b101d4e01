"""A loss: the margin by which the match must beat the hardest other codes of the global batch.

PYTHONPATH=examples python train.py --config-dir examples/conf loss=margin
"""

import torch
from torch import Tensor, nn

from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.losses import ContrastiveOutput, gather


class MarginLoss(nn.Module):
    """Called with this rank's normalised embeddings; averaged over ranks it must be the loss of the global batch.

    Shapes: B rows of this rank, N rows of all ranks, M hard negatives of this rank, D width.
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = margin

    def forward(
        self,
        text_embeds_BD: Tensor,
        speech_embeds_BD: Tensor,
        logit_scale: Tensor,  # log of the model's factor on similarities, which this loss does not need
        keys_B: Tensor | None = None,  # equal for equal texts, which are no negatives of each other
        negative_embeds_MD: Tensor | None = None,
    ) -> ContrastiveOutput:
        scores_BN = text_embeds_BD @ gather(speech_embeds_BD).T
        match_B = torch.arange(len(scores_BN), device=scores_BN.device) + rank_and_world_size()[0] * len(scores_BN)
        is_same_BN = nn.functional.one_hot(match_B, scores_BN.shape[1]).bool()
        if keys_B is not None:
            is_same_BN = is_same_BN | (keys_B[:, None] == gather(keys_B))
        others_BK = scores_BN.masked_fill(is_same_BN, -1.0)
        if negative_embeds_MD is not None:
            others_BK = torch.cat([others_BK, text_embeds_BD @ gather(negative_embeds_MD).T], dim=1)
        matched_B, hardest_B = scores_BN.gather(1, match_B[:, None])[:, 0], others_BK.amax(1)
        loss = (self.margin + hardest_B - matched_B).clamp(
            min=0
        ).mean() + 0 * logit_scale  # every parameter has a gradient
        return ContrastiveOutput(loss, (matched_B > hardest_B).float().mean())
