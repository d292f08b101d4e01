"""The symmetric contrastive loss, and the evaluation of any loss some rows at a time.

Shapes: B rows a rank, C rows of a chunk, M hard negatives a rank, D width, N = W B rows over all W ranks, K columns: N partners
and the hard negatives of all ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.losses.gather import gather

# (C, K) logits, (C,) columns of the matches, and a (C, K) mask of columns that are not negatives (None: all are) to a
# sum over rows
RowLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass
class ContrastiveOutput:
    """The loss of this rank's rows and its accuracy."""

    loss: torch.Tensor  # scalar
    accuracy: torch.Tensor  # share of rows whose match scores highest
    parts: dict[str, torch.Tensor] = field(default_factory=dict)  # further scalars to log, averaged over ranks, by name


class SymmetricContrastiveLoss(nn.Module):
    """Cross entropy of picking a text's codes among all codes of the global batch, and the reverse, averaged.

    This is CLIP's objective (Radford et al. 2021, https://arxiv.org/abs/2103.00020), which CLVP was trained with. Each rank
    computes its own rows against the embeddings of all ranks; averaged over ranks, as DDP does, loss and gradients equal those
    of the global batch in one process.

    Args:
        chunk_size: rows of logits in memory at once; the logits of a larger batch are computed twice.
    """

    def __init__(self, chunk_size: int = 1024) -> None:
        super().__init__()
        self.chunk_size = chunk_size

    def forward(
        self,
        text_embeds_BD: torch.Tensor,
        speech_embeds_BD: torch.Tensor,
        logit_scale: torch.Tensor,
        keys_B: torch.Tensor | None = None,
        negative_embeds_MD: torch.Tensor | None = None,
    ) -> ContrastiveOutput:
        """All embeddings are L2-normalised.

        Args:
            text_embeds_BD: row i matches row i of the codes.
            speech_embeds_BD: codes.
            logit_scale: log of the factor on similarities.
            keys_B: int64; rows with equal keys are not negatives of each other.
            negative_embeds_MD: codes that match none of the texts: negatives of every text on every rank.
        """
        B, scale = len(text_embeds_BD), logit_scale.exp()
        speech_KD = gather_speech(speech_embeds_BD, negative_embeds_MD)
        directions = (text_embeds_BD, speech_KD), (speech_embeds_BD, gather(text_embeds_BD))
        keys = gather_keys(keys_B)
        sums, hits = zip(
            *(sum_over_rows(cross_entropy, *direction, scale, keys, self.chunk_size) for direction in directions)
        )
        return ContrastiveOutput(sum(sums) / (2 * B), sum(hits) / (2 * B))


def gather_speech(speech_embeds_BD: torch.Tensor, negative_embeds_MD: torch.Tensor | None) -> torch.Tensor:
    """(K, D) the codes of all ranks, then their hard negatives, if there are any."""
    speech_ND = gather(speech_embeds_BD)
    return speech_ND if negative_embeds_MD is None else torch.cat([speech_ND, gather(negative_embeds_MD)])


def gather_keys(keys_B: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(B,) keys of this rank's rows and (N,) those of all ranks."""
    return None if keys_B is None else (keys_B, gather(keys_B))


def cross_entropy(logits_CK: torch.Tensor, match_C: torch.Tensor, ignored_CK: torch.Tensor | None) -> torch.Tensor:
    """Cross entropy, summed over rows."""
    logits_CK = logits_CK if ignored_CK is None else logits_CK.masked_fill(ignored_CK, -torch.inf)
    return functional.cross_entropy(logits_CK, match_C, reduction="sum")


def sum_over_rows(
    row_loss: RowLoss,
    rows_BD: torch.Tensor,
    columns_KD: torch.Tensor,
    scale: torch.Tensor,
    keys: tuple[torch.Tensor, torch.Tensor] | None,
    chunk_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the sum of a loss over this rank's rows, and the number of rows whose match scores highest.

    Holds the logits of one chunk in memory; the backward pass computes them again.

    Args:
        row_loss: the loss of some rows.
        rows_BD: this rank's embeddings.
        columns_KD: what they are scored against: the matches of all ranks' rows in order of ranks, then hard negatives.
        scale: factor on cosine similarities.
        keys: of `gather_keys`; rows with equal keys are not negatives of each other. None: all keys differ.
        chunk_size: rows of logits in memory at once.
    """
    B, (rank, _) = len(rows_BD), rank_and_world_size()
    match_B = torch.arange(rank * B, (rank + 1) * B, device=rows_BD.device)
    keys_B, keys_N = keys or (None, None)
    of_chunk = partial(_sum_over_chunk, row_loss, columns_KD, scale, keys_N)
    if chunk_size < B:
        of_chunk = partial(checkpoint, of_chunk, use_reentrant=False, preserve_rng_state=False)
    chunks = [slice(start, start + chunk_size) for start in range(0, B, chunk_size)]
    parts = [of_chunk(rows_BD[rows], match_B[rows], None if keys_B is None else keys_B[rows]) for rows in chunks]
    sums, hits = zip(*parts)
    return torch.stack(sums).sum(), torch.stack(hits).sum()


def _sum_over_chunk(
    row_loss: RowLoss,
    columns_KD: torch.Tensor,
    scale: torch.Tensor,
    keys_N: torch.Tensor | None,
    rows_CD: torch.Tensor,
    match_C: torch.Tensor,
    keys_C: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits_CK = scale * rows_CD @ columns_KD.T
    ignored_CK = None
    if keys_N is not None and keys_C is not None:
        same_CN = (keys_C[:, None] == keys_N).scatter(1, match_C[:, None], False)
        ignored_CK = functional.pad(same_CN, (0, len(columns_KD) - len(keys_N)))
    with torch.no_grad():
        shown_CK = logits_CK if ignored_CK is None else logits_CK.masked_fill(ignored_CK, -torch.inf)
        hits = (shown_CK.argmax(dim=1) == match_C).sum()
    return row_loss(logits_CK, match_C, ignored_CK), hits
