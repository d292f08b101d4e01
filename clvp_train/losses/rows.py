"""Own rows against the columns of all ranks, some rows at a time.

Shapes: B rows a rank, C rows of a chunk, N = W B rows over all W ranks, K columns: N and all ranks' hard negatives, D width.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from clvp_train.losses.gather import gather, rank

# (C, K) logits, (C,) own columns and, unless nothing is hidden, a (C, K) mask of what is no negative, to a sum over rows
Term = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def sum_over_rows(
    term: Term,
    rows_BD: torch.Tensor,
    columns_KD: torch.Tensor,
    scale: torch.Tensor,
    keys_B: torch.Tensor | None,
    chunk_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of an objective over this rank's rows, and how many rows score their own column highest.

    More than one chunk of logits never stands in memory: those of each are computed again in the backward pass.

    Args:
        term: the objective of some rows.
        rows_BD: this rank's embeddings.
        columns_KD: what they are scored against: the partners of all ranks' rows in their order, then hard negatives.
        scale: factor on cosine similarities.
        keys_B: int64; columns of rows with an equal key are no negatives of one another. None: all keys differ.
        chunk_size: rows of logits in memory at once.
    """
    B = len(rows_BD)
    own_B = torch.arange(rank() * B, (rank() + 1) * B, device=rows_BD.device)
    keys_N = None if keys_B is None else gather(keys_B)
    of_chunk = partial(_of_chunk, term, columns_KD, scale, keys_N)
    if chunk_size < B:
        of_chunk = partial(checkpoint, of_chunk, use_reentrant=False, preserve_rng_state=False)
    chunks = [range(start, min(start + chunk_size, B)) for start in range(0, B, chunk_size)]
    parts = [
        of_chunk(rows_BD[rows.start : rows.stop], own_B[rows.start : rows.stop], _part(keys_B, rows)) for rows in chunks
    ]
    sums, rights = zip(*parts)
    return torch.stack(sums).sum(), torch.stack(rights).sum()


def _of_chunk(
    term: Term,
    columns_KD: torch.Tensor,
    scale: torch.Tensor,
    keys_N: torch.Tensor | None,
    rows_CD: torch.Tensor,
    own_C: torch.Tensor,
    keys_C: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits_CK = scale * rows_CD @ columns_KD.T
    hidden_CK = None
    if keys_N is not None and keys_C is not None:
        same_CN = (keys_C[:, None] == keys_N).scatter(1, own_C[:, None], False)
        hidden_CK = functional.pad(same_CN, (0, len(columns_KD) - len(keys_N)))
    with torch.no_grad():
        shown_CK = logits_CK if hidden_CK is None else logits_CK.masked_fill(hidden_CK, -torch.inf)
        right = (shown_CK.argmax(dim=1) == own_C).sum()
    return term(logits_CK, own_C, hidden_CK), right


def _part(keys_B: torch.Tensor | None, rows: range) -> torch.Tensor | None:
    return None if keys_B is None else keys_B[rows.start : rows.stop]
