"""A loss over the candidates of a text, in addition to a contrastive one.

Shapes: B rows a rank, K candidates of a text besides its match, M = B · K, L = 1 + K, D width.
"""

from typing import ClassVar

import torch
from torch import nn

from clvp_train.losses.contrastive import ContrastiveOutput


class ListwiseLoss(nn.Module):
    """A contrastive loss plus `weight` times the cross entropy between two distributions over a text's candidates: the softmax
    of their qualities divided by `temperature`, and the softmax of their scores.

    This is ListNet with top-one probabilities (Cao et al. 2007, "Learning to rank: from pairwise approach to listwise
    approach"). The candidates of a text are on its own rank, so nothing is gathered; averaged over ranks, loss and gradients
    equal those of the global batch in one process.

    Args:
        contrastive: another loss of this package, see its `forward`.
        weight: of the list's cross entropy.
        temperature: in units of the quality: differences far below it do not count. The default suits mel distances.
    """

    needs_qualities: ClassVar[bool] = True  # whether `forward` takes `qualities_BL`

    def __init__(self, contrastive: nn.Module, weight: float = 1.0, temperature: float = 0.01) -> None:
        super().__init__()
        self.contrastive, self.weight, self.temperature = contrastive, weight, temperature

    def forward(
        self,
        text_embeds_BD: torch.Tensor,
        speech_embeds_BD: torch.Tensor,
        logit_scale: torch.Tensor,
        keys_B: torch.Tensor | None,
        negative_embeds_MD: torch.Tensor,
        qualities_BL: torch.Tensor,
    ) -> ContrastiveOutput:
        """As `SymmetricContrastiveLoss.forward`, with the qualities of each text's match and of its K negatives, which are
        consecutive rows; NaN for one that is not in the list. A text with fewer than two in its list adds 0 to the mean."""
        output = self.contrastive(text_embeds_BD, speech_embeds_BD, logit_scale, keys_B, negative_embeds_MD)
        lists_BLD = torch.cat(
            [speech_embeds_BD[:, None], negative_embeds_MD.unflatten(0, (len(text_embeds_BD), -1))], dim=1
        )
        scores_BL = logit_scale.exp() * (lists_BLD @ text_embeds_BD[:, :, None])[:, :, 0]
        listwise = self._cross_entropy(scores_BL, qualities_BL)
        loss = output.loss + self.weight * listwise
        return ContrastiveOutput(loss, output.accuracy, output.parts | {"listwise_loss": listwise.detach()})

    def _cross_entropy(self, scores_BL: torch.Tensor, qualities_BL: torch.Tensor) -> torch.Tensor:
        known_BL = qualities_BL.isfinite()
        # a finite minimum instead of -inf, so that a row without any quality has no NaN
        scores_BL, targets_BL = (
            values_BL.masked_fill(~known_BL, torch.finfo(values_BL.dtype).min)
            for values_BL in (scores_BL, qualities_BL / self.temperature)
        )
        terms_BL = targets_BL.softmax(dim=1) * scores_BL.log_softmax(dim=1)
        has_list_B = known_BL.sum(dim=1) > 1
        return -(terms_BL.sum(dim=1) * has_list_B).mean()
