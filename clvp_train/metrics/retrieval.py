"""Retrieval of speech codes by text and of texts by codes.

Shapes: N gallery, C rows and K columns of a tile, Q queries in a tile, X scores to recompute, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from clvp_train.errors import UserError
from clvp_train.io.process_rank import rank_and_world_size

PRIMARY = "val/R@1"  # the default of primary_metric in conf/train.yaml
DIRECTIONS = {"text_to_speech": "text → speech", "speech_to_text": "speech → text"}  # key: display name
WRONG_VOICE = "wrong-voice detection"  # share of other voices that score lower
ROWS, COLUMNS = 512, 2048  # of a tile on a CPU: 4 MiB of scores, which fit into its caches
DEVICE_SCORES = (
    2**26
)  # of a tile on another device, 256 MiB: a block of complete rows, so that the host waits once for each
SIGMAS = 8  # rounding errors up to so many standard deviations are resolved exactly
DENSE = 1 / 16  # if a larger share of a tile is ambiguous, all of it is recomputed in float64
MAX_LABELS = 20  # rows of a breakdown


@dataclass(frozen=True)
class RetrievalRanks:
    """Rank of every query's own entry in a gallery sorted by score: 1 for the best; (N,) float64 on the CPU.

    Entries with equal scores share the mean of their ranks, so a model that cannot distinguish entries is at chance level.
    """

    text_to_speech: torch.Tensor
    speech_to_text: torch.Tensor


def retrieval_ranks(
    text_ND: torch.Tensor, speech_ND: torch.Tensor, on_tile: Callable[[int, int], None] = lambda done, total: None
) -> RetrievalRanks:
    """Returns the ranks in both directions from one pass over the score matrix, of which one tile is in memory at a time.

    The ranks are those of float64 scores: a tile is multiplied in the dtype of the embeddings, and scores that are too close to
    a query's own score for that precision are recomputed in float64.

    With a process group, every process must call this with the same embeddings; each counts its share of the tiles.

    Args:
        text_ND: L2-normalised; row i belongs to row i of `speech_ND`.
        speech_ND: L2-normalised, on the same device.
        on_tile: called with the number of this process's finished tiles and their total.

    Raises:
        ValueError: the shapes differ, or the gallery is empty.
        UserError: an embedding is not finite.
    """
    if text_ND.shape != speech_ND.shape or len(text_ND) == 0:
        raise ValueError(f"needs two equal, non-empty sets of embeddings, not {text_ND.shape} and {speech_ND.shape}")
    if not (text_ND.isfinite().all() and speech_ND.isfinite().all()):
        raise UserError("embeddings are NaN or infinite: the model has diverged. Lower the learning rate (optim.lr).")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 exceeds the rounding errors that _Counts allows for
    try:
        counts = _count_tiles(text_ND, speech_ND, on_tile)
    finally:
        torch.set_float32_matmul_precision(precision)
    if rank_and_world_size()[1] > 1:
        dist.all_reduce(counts.better_2N)
        dist.all_reduce(counts.equal_2N)
    ranks_2N = 1 + counts.better_2N.double() + counts.equal_2N.double() / 2
    return RetrievalRanks(*ranks_2N.cpu())


def rank_summary(ranks_N: torch.Tensor) -> dict[str, float]:
    """Returns recall at 1, 5 and 10, mean reciprocal rank, median and mean rank."""
    recalls = {f"R@{k}": (ranks_N <= k).double().mean().item() for k in (1, 5, 10)}
    return {
        **recalls,
        "MRR": (1 / ranks_N).mean().item(),
        "median_rank": ranks_N.quantile(0.5).item(),
        "mean_rank": ranks_N.mean().item(),
    }


def retrieval_summary(ranks: RetrievalRanks) -> dict[str, Any]:
    """Returns {"gallery": N, "chance_R@1": 1 / N, "text_to_speech": {…}, "speech_to_text": {…}}."""
    size = len(ranks.text_to_speech)
    return {"gallery": size, "chance_R@1": 1 / size} | {key: rank_summary(getattr(ranks, key)) for key in DIRECTIONS}


def mean_of_directions(summary: dict[str, Any]) -> dict[str, float]:
    """Returns the mean over both directions of each quantity of a `retrieval_summary`; R@1 is the primary metric."""
    first, second = (summary[key] for key in DIRECTIONS)
    return {name: (first[name] + second[name]) / 2 for name in first}


def by_label(labels_N: Sequence[str], ranks: RetrievalRanks) -> list[dict[str, Any]]:
    """Returns one row for each of the most frequent labels and one for all others.

    Every text is ranked among all texts, not among those with its label.

    Returns:
        [{"label", "texts": how many, "text_to_speech": {…}, "speech_to_text": {…}}, …]
    """
    names, label_ids_N, counts = np.unique(np.asarray(labels_N, dtype=str), return_inverse=True, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:MAX_LABELS]
    groups = [(str(names[label_id]), label_ids_N == label_id) for label_id in largest]
    if len(names) > len(largest):
        groups.append((f"{len(names) - len(largest)} others", ~np.isin(label_ids_N, largest)))
    return [
        {"label": label, "texts": int(mask_N.sum())}
        | {key: rank_summary(getattr(ranks, key)[mask_N]) for key in DIRECTIONS}
        for label, mask_N in groups
    ]


def by_quartile(values_N: np.ndarray, ranks: RetrievalRanks) -> list[dict[str, Any]]:
    """Returns rows as `by_label` does for the quartiles of integers, in ascending order, labelled "lowest–highest".

    Equal values are in the same row, so there may be fewer than four.
    """
    bounds = np.unique(np.quantile(values_N, [0.25, 0.5, 0.75], method="lower"))
    quartile_N = np.searchsorted(bounds, values_N, side="left")
    labels = {
        part: f"{values_N[quartile_N == part].min()}–{values_N[quartile_N == part].max()}"
        for part in np.unique(quartile_N)
    }
    rows = {row["label"]: row for row in by_label([labels[part] for part in quartile_N], ranks)}
    return [rows[label] for label in labels.values()]


def _count_tiles(text_ND: torch.Tensor, speech_ND: torch.Tensor, on_tile: Callable[[int, int], None]) -> "_Counts":
    """Counts the tiles of this process."""
    size, counts = len(text_ND), _Counts(text_ND, speech_ND)
    rows, columns = tile_shape(size, text_ND.device)
    tiles = [(row, column) for row in range(0, size, rows) for column in range(0, size, columns)]
    rank, world_size = rank_and_world_size()
    own_tiles = tiles[rank::world_size]
    for done, (row, column) in enumerate(own_tiles, start=1):
        counts.add(slice(row, row + rows), slice(column, column + columns))
        on_tile(done, len(own_tiles))
    return counts


def tile_shape(size: int, device: torch.device) -> tuple[int, int]:
    """Rows and columns of the scores that are in memory at a time."""
    if device.type == "cpu":
        return ROWS, COLUMNS
    columns = min(size, DEVICE_SCORES)
    return max(1, min(size, DEVICE_SCORES // columns)), columns


class _Counts:
    """How many other entries score higher than a query's own entry, and how many score the same.

    In tensors with a leading 2, row 0 is for texts as queries and row 1 for codes as queries.
    """

    def __init__(self, text_ND: torch.Tensor, speech_ND: torch.Tensor) -> None:
        self.text_ND, self.speech_ND = text_ND, speech_ND
        self.own_N = _exact_scores(text_ND, speech_ND)
        # Upper bound on the rounding error of a difference of two dot products (Higham and Mary 2019, A New Approach to
        # Probabilistic Rounding Error Analysis, theorem 3.1: exceeded once in 1e11). Scores that differ by less in
        # float64 count as equal.
        norms = (text_ND.norm(dim=1).max() * speech_ND.norm(dim=1).max()).item()
        units = (SIGMAS * text_ND.shape[1] ** 0.5 + 1) * norms
        self.equal = units * torch.finfo(torch.float64).eps
        margin = self.equal + units * torch.finfo(text_ND.dtype).eps
        self.above_N, self.below_N = (self.own_N + margin).to(text_ND.dtype), (self.own_N - margin).to(text_ND.dtype)
        self.better_2N = torch.zeros(2, len(text_ND), dtype=torch.int64, device=text_ND.device)
        self.equal_2N = torch.zeros_like(self.better_2N)

    def add(self, rows: slice, columns: slice) -> None:
        """Counts a tile."""
        text_CD, speech_KD = self.text_ND[rows], self.speech_ND[columns]
        scores_CK = _without_own(text_CD @ speech_KD.T, rows, columns)
        better, ambiguous = [], []
        for direction, queries in enumerate((rows, columns)):
            better.append(_count_above(scores_CK, self.above_N[queries], direction))
            ambiguous.append(_count_above(scores_CK, self.below_N[queries], direction) - better[-1])
        nums_ambiguous = torch.stack([ambiguous_Q.sum() for ambiguous_Q in ambiguous]).tolist()  # one read for both
        for direction, (queries, num_ambiguous) in enumerate(zip((rows, columns), nums_ambiguous)):
            better_Q, ambiguous_Q = better[direction], ambiguous[direction]
            if num_ambiguous > DENSE * scores_CK.numel():  # an untrained model: recompute the tile
                exact_CK = _without_own(text_CD.double() @ speech_KD.double().T, rows, columns)
                better_Q = _count_above(exact_CK, self.own_N[queries] + self.equal, direction)
                self.equal_2N[direction, queries] += (
                    _count_above(exact_CK, self.own_N[queries] - self.equal, direction) - better_Q
                )
            elif num_ambiguous:
                self._resolve(scores_CK, ambiguous_Q.nonzero()[:, 0], rows, columns, direction)
            self.better_2N[direction, queries] += better_Q

    def _resolve(
        self, scores_CK: torch.Tensor, queries_X: torch.Tensor, rows: slice, columns: slice, direction: int
    ) -> None:
        """Compares in float64 the few scores of a tile that are too close to a query's own."""
        offset = (rows, columns)[direction].start
        own_X = queries_X + offset
        scores_XK = scores_CK[queries_X] if direction == 0 else scores_CK[:, queries_X].T
        near_XK = (scores_XK > self.below_N[own_X, None]) & (scores_XK <= self.above_N[own_X, None])
        query, other = near_XK.nonzero(as_tuple=True)
        query = queries_X[query]
        row, column = (query, other) if direction == 0 else (other, query)
        index = query + offset
        differences = _exact_scores(self.text_ND[rows][row], self.speech_ND[columns][column]) - self.own_N[index]
        for counts_2N, mask in (
            (self.better_2N, differences > self.equal),
            (self.equal_2N, differences.abs() <= self.equal),
        ):
            counts_2N[direction] += torch.bincount(index[mask], minlength=counts_2N.shape[1])


def _exact_scores(text_XD: torch.Tensor, speech_XD: torch.Tensor) -> torch.Tensor:
    """(X,) float64 scores of row i with row i."""
    pairs = zip(text_XD.split(4096), speech_XD.split(4096))
    return torch.cat([(text.double() * speech.double()).sum(dim=1) for text, speech in pairs])


def _without_own(scores_CK: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
    """Sets the scores of true pairs to -inf, so that a query's own entry is not counted."""
    offset = rows.start - columns.start
    if -len(scores_CK) < offset < scores_CK.shape[1]:
        scores_CK.diagonal(offset).fill_(-torch.inf)
    return scores_CK


def _count_above(scores_CK: torch.Tensor, thresholds_Q: torch.Tensor, direction: int) -> torch.Tensor:
    """(Q,) numbers of scores in every row (direction 0) or column (1) that exceed its threshold."""
    thresholds = thresholds_Q[:, None] if direction == 0 else thresholds_Q
    above_CK = torch.gt(scores_CK, thresholds, out=torch.empty_like(scores_CK))
    # a product with ones is several times as fast as a sum of booleans, and exact up to 2 ** 24
    if direction == 0:
        return (above_CK @ above_CK.new_ones(above_CK.shape[1])).long()
    return (above_CK.new_ones(len(above_CK)) @ above_CK).long()
