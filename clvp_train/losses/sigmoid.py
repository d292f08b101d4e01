"""The pairwise sigmoid loss. Shapes: B rows a rank, M hard negatives a rank, C rows of a chunk, K columns, D width."""

import torch
from torch import nn
from torch.nn import functional

from clvp_train.errors import check_number
from clvp_train.losses.contrastive import ContrastiveOutput
from clvp_train.losses.gather import gather
from clvp_train.losses.rows import sum_over_rows


class SigmoidLoss(nn.Module):
    """Every text and every codes of the global batch judged apart: do they belong together or not?

    This is SigLIP's objective (Zhai et al. 2023, https://arxiv.org/abs/2303.15343): a sum over all pairs of binary cross
    entropies, divided by the number of texts. As no row is normalised over the others, it is the one to try with small batches,
    and its scores mean the same whatever they are compared with. Averaged over ranks, loss and gradients are those of the whole
    batch in one process.

    Args:
        bias: start of the learned bias on the logits. As nearly all pairs do not belong together, it starts low.
        chunk_size: rows of logits in memory at once; a larger batch has them computed twice.
    """

    def __init__(self, bias: float = -10.0, chunk_size: int = 1024) -> None:
        super().__init__()
        check_number("loss.bias", bias, -float("inf"), whole=False)
        check_number("loss.chunk_size", chunk_size, 1)
        self.bias, self.chunk_size = nn.Parameter(torch.tensor(float(bias))), chunk_size

    def forward(
        self,
        text_embeds_BD: torch.Tensor,
        speech_embeds_BD: torch.Tensor,
        logit_scale: torch.Tensor,
        keys_B: torch.Tensor | None = None,
        negative_embeds_MD: torch.Tensor | None = None,
    ) -> ContrastiveOutput:
        """As `SymmetricContrastiveLoss.forward`; rows with equal keys are left out of one another's sums. `accuracy` is that of
        the texts."""
        speeches_KD = gather(speech_embeds_BD)
        if negative_embeds_MD is not None:
            speeches_KD = torch.cat([speeches_KD, gather(negative_embeds_MD)])
        total, right = sum_over_rows(
            self._binary, text_embeds_BD, speeches_KD, logit_scale.exp(), keys_B, self.chunk_size
        )
        return ContrastiveOutput(total / len(text_embeds_BD), right / len(text_embeds_BD))

    def _binary(self, logits_CK: torch.Tensor, own_C: torch.Tensor, hidden_CK: torch.Tensor | None) -> torch.Tensor:
        signs_CK = torch.full_like(logits_CK, -1.0).scatter(1, own_C[:, None], 1.0)
        terms_CK = functional.logsigmoid(signs_CK * (logits_CK + self.bias))
        return -(terms_CK if hidden_CK is None else terms_CK.masked_fill(hidden_CK, 0.0)).sum()
