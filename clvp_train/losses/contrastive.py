"""The symmetric contrastive loss. Shapes: B rows a rank, M hard negatives a rank, C rows of a chunk, K columns, D width."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from clvp_train.errors import check_number
from clvp_train.losses.gather import gather
from clvp_train.losses.rows import sum_over_rows


@dataclass
class ContrastiveOutput:
    """The loss of this rank's rows and what is worth logging."""

    loss: torch.Tensor  # scalar
    accuracy: torch.Tensor  # share of rows whose own partner scores highest


class SymmetricContrastiveLoss(nn.Module):
    """Cross entropy of picking a text's own codes among all codes of the global batch, and the reverse, averaged.

    This is CLIP's objective (Radford et al. 2021, https://arxiv.org/abs/2103.00020), which CLVP was trained with; choose it
    unless batches are too small to give good negatives. Each rank computes the rows it owns against everybody's embeddings;
    averaged over ranks, as DDP does, loss and gradients are those of the whole batch in one process.

    Args:
        chunk_size: rows of logits in memory at once; a larger batch has them computed twice.
    """

    def __init__(self, chunk_size: int = 1024) -> None:
        super().__init__()
        check_number("loss.chunk_size", chunk_size, 1)
        self.chunk_size = chunk_size

    def forward(
        self,
        text_embeds_BD: torch.Tensor,
        speech_embeds_BD: torch.Tensor,
        logit_scale: torch.Tensor,
        keys_B: torch.Tensor | None = None,
        negative_embeds_MD: torch.Tensor | None = None,
    ) -> ContrastiveOutput:
        """All embeddings L2-normalised.

        Args:
            text_embeds_BD: row i belongs to row i of the codes.
            speech_embeds_BD: codes.
            logit_scale: the log of the factor on similarities.
            keys_B: int64; rows with equal keys are no negatives of one another.
            negative_embeds_MD: further codes that say none of the texts. Those of all ranks are negatives of every text.
        """
        B, scale = len(text_embeds_BD), logit_scale.exp()
        speeches_KD = gather(speech_embeds_BD)
        if negative_embeds_MD is not None:
            speeches_KD = torch.cat([speeches_KD, gather(negative_embeds_MD)])
        both = (text_embeds_BD, speeches_KD), (speech_embeds_BD, gather(text_embeds_BD))
        sums, rights = zip(*(sum_over_rows(cross_entropy, *one, scale, keys_B, self.chunk_size) for one in both))
        return ContrastiveOutput(sum(sums) / (2 * B), sum(rights) / (2 * B))


def cross_entropy(logits_CK: torch.Tensor, own_C: torch.Tensor, hidden_CK: torch.Tensor | None) -> torch.Tensor:
    """Summed over rows."""
    shown_CK = logits_CK if hidden_CK is None else logits_CK.masked_fill(hidden_CK, -torch.inf)
    return functional.cross_entropy(shown_CK, own_C, reduction="sum")
