"""Encodes a batch without computing most of its padding. Shapes: B batch, L length, D width."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

Encoder = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


def encode_in_chunks(
    encode: Encoder,
    ids_BL: torch.Tensor,
    mask_BL: torch.Tensor,
    chunk_size: int,
    multiple: int = 8,
    cached: bool = False,
) -> torch.Tensor:
    """Sorts the rows by length, encodes them in chunks, each truncated to its longest row, and restores the order.

    Exact for an encoder that honours the mask: only padding is left out. Texts and codes of a batch can be sorted independently
    because the loss sees embeddings only, so batches stay random.

    Args:
        encode: (ids, mask) to (B, D) embeddings; the mask is None where a chunk has no padding.
        ids_BL: right-padded ids.
        mask_BL: True for real positions. It may have gaps.
        chunk_size: rows encoded together; 0: the batch as it is.
        multiple: lengths are rounded up to it, which limits the number of shapes.
        cached: keep only the embeddings of a chunk, and encode it again in the backward pass, with the same dropout. This is
            GradCache (Gao et al. 2021, https://arxiv.org/abs/2101.06983) in one backward pass, which DDP needs: the memory
            of one chunk and all embeddings, for one more forward pass.

    Returns:
        (B, D) embeddings in the order of `ids_BL`.
    """
    if cached and torch.is_grad_enabled():
        encode = partial(checkpoint, encode, use_reentrant=False)
    if chunk_size == 0:
        return encode(ids_BL, mask_BL)
    # longest first: later chunks fit into the memory that earlier ones free, which avoids fragmentation
    lengths_B = lengths(mask_BL)
    order_B = lengths_B.argsort(descending=True)
    chunks, encoded = order_B.split(chunk_size), []
    for rows, (longest, fewest) in zip(chunks, _bounds(mask_BL, lengths_B, chunks)):
        limit = min(_round_up(longest, multiple), ids_BL.shape[1])
        encoded.append(encode(ids_BL[rows, :limit], None if fewest == limit else mask_BL[rows, :limit]))
    return torch.cat(encoded)[order_B.argsort()]


def computed_positions(mask_BL: torch.Tensor, chunk_size: int, multiple: int = 8) -> torch.Tensor:
    """The number of positions that `encode_in_chunks` computes, with padding; a scalar on the mask's device."""
    if chunk_size == 0:
        return torch.tensor(mask_BL.numel(), device=mask_BL.device)
    chunks = lengths(mask_BL).sort(descending=True).values.split(chunk_size)
    return sum(len(chunk) * _round_up(chunk[0], multiple).clamp(max=mask_BL.shape[1]) for chunk in chunks)


def lengths(mask_BL: torch.Tensor) -> torch.Tensor:
    """(B,) position of the last real token of each row, counted from 1."""
    return (mask_BL * torch.arange(1, mask_BL.shape[1] + 1, device=mask_BL.device)).amax(dim=1)


def _bounds(mask_BL: torch.Tensor, lengths_B: torch.Tensor, chunks: Sequence[torch.Tensor]) -> list[list[int]]:
    """The length of the first row of each chunk, its longest, and the fewest real positions of any of its rows."""
    real_B = mask_BL.sum(dim=1)
    bounds = [torch.stack([lengths_B[rows[0]], real_B[rows].min()]) for rows in chunks]
    return torch.stack(bounds).tolist()  # one synchronisation with the device for all chunks


def _round_up(length, multiple: int):
    return -(-length // multiple) * multiple
