"""Retrieval of speech codes by text and of texts by codes.

Shapes: N gallery, C texts and K codes of a tile, also Q queries and K entries of it in one direction, X scores to recompute,
D width.
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
    torch.set_float32_matmul_precision("highest")  # TF32 exceeds the rounding errors that _OwnScores allows for
    try:
        directions = _count_tiles(text_ND, speech_ND, on_tile)
    finally:
        torch.set_float32_matmul_precision(precision)
    higher_2N = torch.stack([counts.higher_N for counts in directions])
    equal_2N = torch.stack([counts.equal_N for counts in directions])
    if rank_and_world_size()[1] > 1:
        dist.all_reduce(higher_2N)
        dist.all_reduce(equal_2N)
    ranks_2N = 1 + higher_2N.double() + equal_2N.double() / 2
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


def _count_tiles(
    text_ND: torch.Tensor, speech_ND: torch.Tensor, on_tile: Callable[[int, int], None]
) -> "tuple[_Counts, _Counts]":
    """Counts the tiles of this process: with texts as queries, and with codes as queries."""
    own, size = _OwnScores(text_ND, speech_ND), len(text_ND)
    by_text, by_speech = _Counts(text_ND, speech_ND, own), _Counts(speech_ND, text_ND, own)
    rows, columns = tile_shape(size, text_ND.device)
    tiles = [(row, column) for row in range(0, size, rows) for column in range(0, size, columns)]
    rank, world_size = rank_and_world_size()
    own_tiles = tiles[rank::world_size]
    for done, (row, column) in enumerate(own_tiles, start=1):
        _count_tile(by_text, by_speech, slice(row, row + rows), slice(column, column + columns))
        on_tile(done, len(own_tiles))
    return by_text, by_speech


def _count_tile(by_text: "_Counts", by_speech: "_Counts", texts: slice, codes: slice) -> None:
    """Counts the scores of some texts with some codes, from one product for both directions."""
    text_CD, speech_KD = by_text.queries_ND[texts], by_speech.queries_ND[codes]
    sides = [(by_text, texts, codes), (by_speech, codes, texts)]
    scores = _both_ways(_without_own(text_CD @ speech_KD.T, texts, codes))
    compared = [counts.compare(scores_QK, queries) for (counts, queries, _), scores_QK in zip(sides, scores)]
    nums_close = torch.stack([close_Q.sum() for _, close_Q in compared]).tolist()  # one read from the device for both
    most_close = DENSE * scores[0].numel()
    if max(nums_close) > most_close:  # an untrained model
        exact = _both_ways(_without_own(text_CD.double() @ speech_KD.double().T, texts, codes))
    for way, (counts, queries, gallery) in enumerate(sides):
        higher_Q, close_Q = compared[way]
        if nums_close[way] > most_close:
            counts.add_exact(exact[way], queries)
            continue
        counts.higher_N[queries] += higher_Q
        if nums_close[way]:
            counts.add_close(scores[way], close_Q, queries, gallery)


def _both_ways(scores_CK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores by text and, as a view, by codes: the queries are the rows."""
    return scores_CK, scores_CK.T


def tile_shape(size: int, device: torch.device) -> tuple[int, int]:
    """Rows and columns of the scores that are in memory at a time."""
    if device.type == "cpu":
        return ROWS, COLUMNS
    columns = min(size, DEVICE_SCORES)
    return max(1, min(size, DEVICE_SCORES // columns)), columns


class _OwnScores:
    """The score of each query with its own entry, which is the same in both directions, and its margins."""

    def __init__(self, text_ND: torch.Tensor, speech_ND: torch.Tensor) -> None:
        self.exact_N = _exact_scores(text_ND, speech_ND)
        # Upper bound on the rounding error of a difference of two dot products (Higham and Mary 2019, A New Approach to
        # Probabilistic Rounding Error Analysis, theorem 3.1: exceeded once in 1e11).
        norms = (text_ND.norm(dim=1).max() * speech_ND.norm(dim=1).max()).item()
        units = (SIGMAS * text_ND.shape[1] ** 0.5 + 1) * norms
        self.tolerance = units * torch.finfo(torch.float64).eps  # float64 scores that differ by less count as equal
        margin = self.tolerance + units * torch.finfo(text_ND.dtype).eps
        # scores of a tile above `above` are higher, up to `below` lower, whatever the rounding; those between are close
        self.above_N = (self.exact_N + margin).to(text_ND.dtype)
        self.below_N = (self.exact_N - margin).to(text_ND.dtype)


class _Counts:
    """Counts for each query how many other entries score higher than its own entry, and how many the same."""

    def __init__(self, queries_ND: torch.Tensor, gallery_ND: torch.Tensor, own: _OwnScores) -> None:
        self.queries_ND, self.gallery_ND, self.own = queries_ND, gallery_ND, own
        self.higher_N = torch.zeros(len(queries_ND), dtype=torch.int64, device=queries_ND.device)
        self.equal_N = torch.zeros_like(self.higher_N)

    def compare(self, scores_QK: torch.Tensor, queries: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """(Q,) how many scores of a tile are certainly higher than the query's own, and how many are too close to it."""
        higher_Q = _count_above(scores_QK, self.own.above_N[queries])
        return higher_Q, _count_above(scores_QK, self.own.below_N[queries]) - higher_Q

    def add_close(self, scores_QK: torch.Tensor, close_Q: torch.Tensor, queries: slice, gallery: slice) -> None:
        """Adds the few scores of a tile that `compare` found too close, compared in float64."""
        query_X = close_Q.nonzero()[:, 0]
        below_X1, above_X1 = (bound_N[queries][query_X, None] for bound_N in (self.own.below_N, self.own.above_N))
        scores_XK = scores_QK[query_X]
        row, entry = ((scores_XK > below_X1) & (scores_XK <= above_X1)).nonzero(as_tuple=True)
        query, entry = query_X[row] + queries.start, entry + gallery.start
        difference = _exact_scores(self.queries_ND[query], self.gallery_ND[entry]) - self.own.exact_N[query]
        self.higher_N += torch.bincount(query[difference > self.own.tolerance], minlength=len(self.higher_N))
        self.equal_N += torch.bincount(query[difference.abs() <= self.own.tolerance], minlength=len(self.equal_N))

    def add_exact(self, exact_QK: torch.Tensor, queries: slice) -> None:
        """Adds a tile of float64 scores."""
        own_Q, tolerance = self.own.exact_N[queries], self.own.tolerance
        higher_Q = _count_above(exact_QK, own_Q + tolerance)
        self.higher_N[queries] += higher_Q
        self.equal_N[queries] += _count_above(exact_QK, own_Q - tolerance) - higher_Q


def _exact_scores(queries_XD: torch.Tensor, entries_XD: torch.Tensor) -> torch.Tensor:
    """(X,) float64 scores of row i with row i."""
    pairs = zip(queries_XD.split(4096), entries_XD.split(4096))
    return torch.cat([(query.double() * entry.double()).sum(dim=1) for query, entry in pairs])


def _without_own(scores_QK: torch.Tensor, queries: slice, gallery: slice) -> torch.Tensor:
    """Sets the scores of true pairs to -inf in place, so that a query's own entry is not counted."""
    offset = queries.start - gallery.start
    if -len(scores_QK) < offset < scores_QK.shape[1]:
        scores_QK.diagonal(offset).fill_(-torch.inf)
    return scores_QK


def _count_above(scores_QK: torch.Tensor, thresholds_Q: torch.Tensor) -> torch.Tensor:
    """(Q,) numbers of scores of each row that exceed its threshold."""
    above_QK = torch.gt(scores_QK, thresholds_Q[:, None], out=torch.empty_like(scores_QK))
    # a product with ones is several times as fast as a sum of booleans, and exact up to 2 ** 24
    return (above_QK @ above_QK.new_ones(above_QK.shape[1])).long()
