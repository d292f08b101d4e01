"""Retrieval: does a text find its own codes among all, and the reverse? Shapes: N gallery, C rows and K columns of a tile, Q
queries in a tile, X scores to look at again, D width."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from clvp_train.errors import UserError
from clvp_train.losses.gather import rank, world_size

PRIMARY, MODE = "val/R@1", "max"  # what the best checkpoint is chosen by, and in which direction
DIRECTIONS = {"text_to_speech": "text → speech", "speech_to_text": "speech → text"}  # key: what to call it
ROWS, COLUMNS = 512, 2048  # of a tile: 4 MiB of scores, which stay in the caches
SIGMAS = 8  # of rounding errors that are reckoned with
DENSE = 1 / 16  # share of a tile from which on all of it is computed in float64


@dataclass(frozen=True)
class RetrievalRanks:
    """The place of every query's own entry in a gallery sorted by score, 1 for the best; (N,) float64 on the CPU. Of equal
    scores each gets the mean of their places, so that a model that cannot tell entries apart scores at chance."""

    text_to_speech: torch.Tensor
    speech_to_text: torch.Tensor


def retrieval_ranks(
    text_ND: torch.Tensor, speech_ND: torch.Tensor, on_tile: Callable[[int, int], None] = lambda done, of: None
) -> RetrievalRanks:
    """Ranks in both directions from one pass over the score matrix, of which one tile stands in memory at a time.

    They are those of scores in float64: tiles are multiplied in the dtype of the embeddings, and what comes closer to a query's
    own score than that can tell is computed again.

    With a process group every rank must call this with the same embeddings; each takes its share of the tiles.

    Args:
        text_ND: L2-normalised; row i belongs to row i of `speech_ND`.
        speech_ND: L2-normalised, on the same device.
        on_tile: called with how many of this rank's tiles are done, and of how many.

    Raises:
        ValueError: shapes differ, or the gallery is empty.
        UserError: an embedding is not finite.
    """
    if text_ND.shape != speech_ND.shape or len(text_ND) == 0:
        raise ValueError(f"needs two equal, non-empty sets of embeddings, not {text_ND.shape} and {speech_ND.shape}")
    if not (text_ND.isfinite().all() and speech_ND.isfinite().all()):
        raise UserError("some embeddings are NaN or infinite: the model has diverged; lower optim.lr")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 would be off by more than is reckoned with
    try:
        counts = _count_all(text_ND, speech_ND, on_tile)
    finally:
        torch.set_float32_matmul_precision(precision)
    if world_size() > 1:
        dist.all_reduce(counts.better_2N)
        dist.all_reduce(counts.equal_2N)
    places_2N = 1 + counts.better_2N.double() + counts.equal_2N.double() / 2
    return RetrievalRanks(*places_2N.cpu())


def _count_all(text_ND: torch.Tensor, speech_ND: torch.Tensor, on_tile: Callable[[int, int], None]) -> "_Counts":
    """Of this rank's tiles."""
    size, counts = len(text_ND), _Counts(text_ND, speech_ND)
    tiles = [(row, column) for row in range(0, size, ROWS) for column in range(0, size, COLUMNS)]
    ours = tiles[rank() :: world_size()]
    for done, (row, column) in enumerate(ours, start=1):
        counts.add(slice(row, row + ROWS), slice(column, column + COLUMNS))
        on_tile(done, len(ours))
    return counts


class _Counts:
    """How many others score better than a query's own entry, or the same. Row 0: texts as queries, row 1: codes."""

    def __init__(self, text_ND: torch.Tensor, speech_ND: torch.Tensor) -> None:
        self.text_ND, self.speech_ND = text_ND, speech_ND
        self.own_N = _exact_scores(text_ND, speech_ND)
        # what two dot products are off by at most (Higham and Mary 2019, A New Approach to Probabilistic Rounding Error
        # Analysis, theorem 3.1: wrong once in 1e11); scores that differ by less in float64 are equal
        units = (SIGMAS * text_ND.shape[1] ** 0.5 + 1) * (
            text_ND.norm(dim=1).max() * speech_ND.norm(dim=1).max()
        ).item()
        self.equal = units * torch.finfo(torch.float64).eps
        margin = self.equal + units * torch.finfo(text_ND.dtype).eps
        self.above_N, self.below_N = (self.own_N + margin).to(text_ND.dtype), (self.own_N - margin).to(text_ND.dtype)
        self.better_2N = torch.zeros(2, len(text_ND), dtype=torch.int64, device=text_ND.device)
        self.equal_2N = torch.zeros_like(self.better_2N)

    def add(self, rows: slice, columns: slice) -> None:
        """Counts a tile."""
        text_CD, speech_KD = self.text_ND[rows], self.speech_ND[columns]
        scores_CK = _without_own(text_CD @ speech_KD.T, rows, columns)
        for direction, queries in enumerate((rows, columns)):
            above_Q, below_Q = self.above_N[queries], self.below_N[queries]
            better_Q = _count_above(scores_CK, above_Q, direction)
            near_Q = _count_above(scores_CK, below_Q, direction) - better_Q
            num_near = int(near_Q.sum())
            if num_near > DENSE * scores_CK.numel():  # the model tells little apart
                exact_CK = _without_own(text_CD.double() @ speech_KD.double().T, rows, columns)
                better_Q = _count_above(exact_CK, self.own_N[queries] + self.equal, direction)
                self.equal_2N[direction, queries] += (
                    _count_above(exact_CK, self.own_N[queries] - self.equal, direction) - better_Q
                )
            elif num_near:
                self._settle(scores_CK, near_Q.nonzero()[:, 0], rows, columns, direction)
            self.better_2N[direction, queries] += better_Q

    def _settle(
        self, scores_CK: torch.Tensor, queries_X: torch.Tensor, rows: slice, columns: slice, direction: int
    ) -> None:
        """Compares in float64 the few scores of a tile that lie too near to a query's own."""
        places_X = queries_X + (rows, columns)[direction].start
        scores_XK = scores_CK[queries_X] if direction == 0 else scores_CK[:, queries_X].T
        near_XK = (scores_XK > self.below_N[places_X, None]) & (scores_XK <= self.above_N[places_X, None])
        query, other = near_XK.nonzero(as_tuple=True)
        query = queries_X[query]
        row, column = (query, other) if direction == 0 else (other, query)
        place = query + (rows, columns)[direction].start
        differences = _exact_scores(self.text_ND[rows][row], self.speech_ND[columns][column]) - self.own_N[place]
        for counts_2N, which in (
            (self.better_2N, differences > self.equal),
            (self.equal_2N, differences.abs() <= self.equal),
        ):
            counts_2N[direction] += torch.bincount(place[which], minlength=counts_2N.shape[1])


def _exact_scores(text_XD: torch.Tensor, speech_XD: torch.Tensor) -> torch.Tensor:
    """(X,) float64 scores of row with row."""
    pairs = zip(text_XD.split(4096), speech_XD.split(4096))
    return torch.cat([(text.double() * speech.double()).sum(dim=1) for text, speech in pairs])


def _without_own(scores_CK: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
    """Nobody competes with themselves."""
    offset = rows.start - columns.start
    if -len(scores_CK) < offset < scores_CK.shape[1]:
        scores_CK.diagonal(offset).fill_(-torch.inf)
    return scores_CK


def _count_above(scores_CK: torch.Tensor, thresholds_Q: torch.Tensor, direction: int) -> torch.Tensor:
    """(Q,) scores of every row (direction 0) or column (1) that are above its threshold."""
    thresholds = thresholds_Q[:, None] if direction == 0 else thresholds_Q
    above_CK = torch.gt(scores_CK, thresholds, out=torch.empty_like(scores_CK))
    # a product with ones counts several times as fast as a sum of booleans, and is exact up to 2 ** 24
    counts_Q = (
        above_CK @ above_CK.new_ones(above_CK.shape[1])
        if direction == 0
        else above_CK.new_ones(len(above_CK)) @ above_CK
    )
    return counts_Q.long()


def rank_summary(ranks_N: torch.Tensor) -> dict[str, float]:
    """Recall at 1, 5 and 10, mean reciprocal rank, median and mean rank."""
    recalls = {f"R@{k}": (ranks_N <= k).double().mean().item() for k in (1, 5, 10)}
    return {
        **recalls,
        "MRR": (1 / ranks_N).mean().item(),
        "median_rank": ranks_N.quantile(0.5).item(),
        "mean_rank": ranks_N.mean().item(),
    }


def retrieval_summary(found: RetrievalRanks) -> dict[str, Any]:
    """What `retrieval` returns, of ranks that are there already."""
    return {
        "gallery": len(found.text_to_speech),
        "chance_R@1": 1 / len(found.text_to_speech),
        "text_to_speech": rank_summary(found.text_to_speech),
        "speech_to_text": rank_summary(found.speech_to_text),
    }
