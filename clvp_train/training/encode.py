"""Encoding a batch without computing its padding. Shapes: B batch, L length, D width."""

from collections.abc import Callable

import torch

Encoder = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def encode_in_chunks(
    encode: Encoder, ids_BL: torch.Tensor, mask_BL: torch.Tensor, chunk_size: int, multiple: int = 8
) -> torch.Tensor:
    """Sorts the rows by length, encodes them in chunks, each cut to its own longest row, and restores the order.

    Exact for an encoder that honours the mask: only padding is left out. Both towers may be sorted apart, as the loss sees
    embeddings alone, and the batch stays as random as it was.

    Args:
        encode: (ids, mask) to (B, D) embeddings.
        ids_BL: right-padded ids.
        mask_BL: True for what is real.
        chunk_size: rows encoded together; 0 takes the whole batch as it is.
        multiple: lengths are rounded up to it, so that few different shapes occur.

    Returns:
        (B, D) embeddings in the order of `ids_BL`.
    """
    if chunk_size == 0:
        return encode(ids_BL, mask_BL)
    lengths_B = mask_BL.sum(dim=1)
    order_B = lengths_B.argsort()
    longest = [lengths_B[rows].max() for rows in order_B.split(chunk_size)]
    limits = torch.stack(longest).tolist()  # one wait for the device, not one a chunk
    encoded = [
        encode(ids_BL[rows, : -(-limit // multiple) * multiple], mask_BL[rows, : -(-limit // multiple) * multiple])
        for rows, limit in zip(order_B.split(chunk_size), limits)
    ]
    return torch.cat(encoded)[order_B.argsort()]
