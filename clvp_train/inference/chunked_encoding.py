"""Encodes a batch without computing most of its padding. Shapes: B batch, L length, D width."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

Lengths = Sequence[int] | np.ndarray
Encoder = Callable[..., torch.Tensor]

MULTIPLE = 8  # lengths of chunks are rounded up to it, which limits the number of shapes
# on a GPU as many as take about as long to compute as the launches of their kernels: estimated for 20 layers of width 768 from
# the times of full-size steps in benchmarks/RESULTS.md
CPU_TOKENS, GPU_TOKENS = 2048, 32768
# a further chunk is worth its launches where it saves this share of `chunk_tokens`
OVERHEAD = 1 / 24


class Chunk(NamedTuple):
    """Rows that are encoded together."""

    rows: slice  # of the batch sorted by length, the longest first
    length: int  # positions of each row that are computed
    is_full: bool  # whether no row has padding
    tokens: int  # positions without padding


def default_chunk_tokens(device: torch.device) -> int:
    """The positions of a chunk where no setting says otherwise."""
    return CPU_TOKENS if device.type == "cpu" else GPU_TOKENS


def plan_chunks(lengths_B: Lengths, chunk_tokens: int, width: int, packed: bool = False) -> list[Chunk]:
    """Divides rows into chunks with the fewest positions in total, where each chunk counts as `OVERHEAD` more.

    Args:
        lengths_B: of the rows, in any order.
        chunk_tokens: positions of a chunk, padding included; a longer row is a separate chunk. 0: all rows in one chunk with
            all of their padding.
        width: positions of the padded batch.
        packed: padding costs nothing, so that chunks need not have rows of similar length.
    """
    ordered = sorted((int(length) for length in lengths_B), reverse=True)
    if chunk_tokens == 0:
        return [Chunk(slice(0, len(ordered)), width, ordered[-1] == width, sum(ordered))]
    ends = _packed_ends(ordered, chunk_tokens) if packed else _padded_ends(ordered, chunk_tokens)
    chunks = []
    for start, stop in pairwise([0, *ends]):
        length = min(_rounded(ordered[start]), width)
        chunks.append(Chunk(slice(start, stop), length, ordered[stop - 1] == length, sum(ordered[start:stop])))
    return chunks


def _packed_ends(ordered: Sequence[int], chunk_tokens: int) -> list[int]:
    ends, tokens = [], 0
    for row, length in enumerate(ordered):
        if row and tokens + length > chunk_tokens:
            ends.append(row)
            tokens = 0
        tokens += length
    return [*ends, len(ordered)]


def _padded_ends(ordered: Sequence[int], chunk_tokens: int) -> list[int]:
    ends = []
    for first, end in pairwise(_bounds(ordered, chunk_tokens)):
        most = max(1, chunk_tokens // _rounded(ordered[first]))
        ends += [int(part[-1]) + 1 for part in np.array_split(np.arange(first, end), -(-(end - first) // most))]
    return ends


def _bounds(ordered: Sequence[int], chunk_tokens: int) -> list[int]:
    """Where runs of chunks of equal length start among rows sorted by length, by dynamic programming over their lengths."""
    groups = sorted(Counter(map(_rounded, ordered)).items(), reverse=True)  # (length, number of rows)
    best = [(0.0, 0)] + [(float("inf"), 0)] * len(groups)  # of the first groups: cost, and where the last run starts
    for first, (length, _) in enumerate(groups):
        rows, most = 0, max(1, chunk_tokens // length)
        for last in range(first, len(groups)):
            rows += groups[last][1]
            cost = best[first][0] + rows * length - (-rows // most) * OVERHEAD * chunk_tokens
            best[last + 1] = min(best[last + 1], (cost, first))
    ends, group = [len(ordered)], len(groups)
    while group:
        group = best[group][1]
        ends.append(sum(rows for _, rows in groups[:group]))
    return ends[::-1]


def encode_in_chunks(
    encode: Encoder,
    ids_BL: torch.Tensor,
    mask_BL: torch.Tensor,
    chunk_tokens: int,
    lengths_B: Lengths | None = None,
    *,
    cached: bool = False,
    has_gaps: bool = False,
    one_graph: bool = False,
    packed: bool = False,
) -> torch.Tensor:
    """Sorts the rows by length, encodes them in chunks, each truncated to its longest row, and restores the order.

    Exact for an encoder that honours the mask: only padding is left out. Texts and codes of a batch can be sorted independently
    because the loss sees embeddings only, so batches stay random. Does not wait for the device if `lengths_B` is given.

    Args:
        encode: (ids, mask) to (B, D) embeddings; the mask is None where a chunk has no padding. With `packed` it takes an
            argument of this name, see `CLVPTextModel.forward`, and always a mask.
        ids_BL: right-padded ids.
        mask_BL: True for real positions. It may have gaps.
        chunk_tokens: positions that are encoded together, see `plan_chunks`.
        lengths_B: of the rows, on the host, as `Collate` counts them; none may be shorter than its last real position. None:
            read from the mask.
        cached: keep only the embeddings of a chunk, and encode it again in the backward pass, with the same dropout. This is
            GradCache (Gao et al. 2021, https://arxiv.org/abs/2101.06983) in one backward pass, which DDP needs: the memory
            of one chunk and all embeddings, for one more forward pass.
        has_gaps: `lengths_B` does not say everything about the mask, so that every chunk needs it.
        one_graph: for a compiled encoder: every chunk has a mask and at least two rows, which one graph can serve.
        packed: compute no padding at all.

    Returns:
        (B, D) embeddings in the order of `ids_BL`.
    """
    if cached and torch.is_grad_enabled():
        encode = partial(checkpoint, encode, use_reentrant=False)
    ends_B = row_lengths(mask_BL)
    if lengths_B is None:
        lengths_B, real_B = torch.stack([ends_B, mask_BL.sum(dim=1)]).tolist()
        has_gaps = has_gaps or lengths_B != real_B
    # longest first: later chunks fit into the memory that earlier ones free, which avoids fragmentation; sorted where the mask
    # is, as the plan needs the sorted lengths only
    order_B = ends_B.argsort(descending=True)
    ids_BL, mask_BL, encoded = ids_BL[order_B], mask_BL[order_B], []
    for rows, length, is_full, tokens in plan_chunks(lengths_B, chunk_tokens, ids_BL.shape[1], packed):
        ids, mask = ids_BL[rows, :length], mask_BL[rows, :length]
        if packed:
            encoded.append(encode(ids, mask, packed=(tokens, tokens if has_gaps else length)))
        elif one_graph:  # which would otherwise depend on the strides, too
            twice = (2 if len(ids) == 1 else 1, 1)
            encoded.append(encode(ids.repeat(twice), mask.repeat(twice))[: len(ids)])
        else:
            encoded.append(encode(ids, None if is_full and not has_gaps else mask))
    return torch.cat(encoded)[order_B.argsort()]


def computed_positions(lengths_B: Lengths, chunk_tokens: int, width: int, packed: bool = False) -> int:
    """The number of positions that `encode_in_chunks` computes, with padding."""
    if packed:
        return int(sum(lengths_B))
    chunks = plan_chunks(lengths_B, chunk_tokens, width)
    return sum((chunk.rows.stop - chunk.rows.start) * chunk.length for chunk in chunks)


def row_lengths(mask_BL: torch.Tensor) -> torch.Tensor:
    """(B,) position of the last real token of each row, counted from 1."""
    return (mask_BL * torch.arange(1, mask_BL.shape[1] + 1, device=mask_BL.device)).amax(dim=1)


def _rounded(length: int) -> int:
    return -(-max(length, 1) // MULTIPLE) * MULTIPLE
