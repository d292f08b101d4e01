"""The symmetric contrastive loss. Shapes: B rows a rank, N = W B rows over all W ranks, D width."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from clvp_train.losses.gather import gather, rank


@dataclass
class ContrastiveOutput:
    """The loss of this rank's rows and what is worth logging."""

    loss: torch.Tensor  # scalar
    accuracy: torch.Tensor  # share of rows whose own partner scores highest, mean of both directions


class SymmetricContrastiveLoss(nn.Module):
    """Cross entropy of picking a text's own codes among all codes of the global batch, and the reverse, averaged.

    This is CLIP's objective (Radford et al. 2021), which CLVP was trained with; choose it unless batches are too small to
    give good negatives. Each rank computes the rows it owns against everybody's embeddings; averaged over ranks, as DDP
    does, loss and gradients are those of the whole batch in one process.
    """

    def forward(
        self, text_embeds_BD: torch.Tensor, speech_embeds_BD: torch.Tensor, logit_scale: torch.Tensor
    ) -> ContrastiveOutput:
        """Both embeddings L2-normalised, row i of one belonging to row i of the other; `logit_scale` is the log scale."""
        B = len(text_embeds_BD)
        scale = logit_scale.exp()
        logits_text_BN = scale * text_embeds_BD @ gather(speech_embeds_BD).T
        logits_speech_BN = scale * speech_embeds_BD @ gather(text_embeds_BD).T
        own_B = torch.arange(rank() * B, (rank() + 1) * B, device=logits_text_BN.device)
        loss = functional.cross_entropy(logits_text_BN, own_B) + functional.cross_entropy(logits_speech_BN, own_B)
        right = (logits_text_BN.argmax(dim=1) == own_B).float() + (logits_speech_BN.argmax(dim=1) == own_B).float()
        return ContrastiveOutput(loss / 2, right.mean().detach() / 2)
