"""The pairwise sigmoid loss. Shapes: B rows a rank, M hard negatives a rank, C rows of a chunk, K columns, D width."""

import torch
from torch import nn
from torch.nn import functional

from clvp_train.losses.contrastive import ContrastiveOutput, gather_keys, gather_speech, sum_over_rows


class SigmoidLoss(nn.Module):
    """Binary cross entropy of every text with every code sequence of the global batch: do they match?

    This is SigLIP's objective (Zhai et al. 2023, https://arxiv.org/abs/2303.15343): a sum over all pairs, divided by the number
    of texts. No row is normalised over the others, so it suits small batches, and its scores do not depend on what they are
    compared with. Averaged over ranks, loss and gradients equal those of the global batch in one process.

    Args:
        bias: initial value of the learned bias on the logits. It is low because nearly all pairs are mismatched.
        chunk_size: rows of logits in memory at once; the logits of a larger batch are computed twice.
    """

    def __init__(self, bias: float = -10.0, chunk_size: int = 1024) -> None:
        super().__init__()
        self.bias, self.chunk_size = nn.Parameter(torch.tensor(float(bias))), chunk_size

    def forward(
        self,
        text_embeds_BD: torch.Tensor,
        speech_embeds_BD: torch.Tensor,
        logit_scale: torch.Tensor,
        keys_B: torch.Tensor | None = None,
        negative_embeds_MD: torch.Tensor | None = None,
    ) -> ContrastiveOutput:
        """As `SymmetricContrastiveLoss.forward`; pairs of rows with equal keys are left out. `accuracy` is that of the
        texts."""
        speech_KD = gather_speech(speech_embeds_BD, negative_embeds_MD)
        keys, scale = gather_keys(keys_B), logit_scale.exp()
        total, hits = sum_over_rows(self._binary, text_embeds_BD, speech_KD, scale, keys, self.chunk_size)
        return ContrastiveOutput(total / len(text_embeds_BD), hits / len(text_embeds_BD))

    def _binary(self, logits_CK: torch.Tensor, match_C: torch.Tensor, ignored_CK: torch.Tensor | None) -> torch.Tensor:
        signs_CK = torch.full_like(logits_CK, -1.0).scatter(1, match_C[:, None], 1.0)
        terms_CK = functional.logsigmoid(signs_CK * (logits_CK + self.bias))
        return -(terms_CK if ignored_CK is None else terms_CK.masked_fill(ignored_CK, 0.0)).sum()
