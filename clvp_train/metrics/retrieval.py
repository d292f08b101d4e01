"""Retrieval: does a text find its own codes among all, and the reverse? Shapes: N gallery, C rows of a tile, D width."""

from typing import Any

import torch

from clvp_train.errors import UserError

PRIMARY, MODE = "val/R@1", "max"  # what the best checkpoint is chosen by, and in which direction


def ranks(queries_ND: torch.Tensor, gallery_ND: torch.Tensor, tile: int = 1024) -> torch.Tensor:
    """The place of every query's own entry, 1 for the best, in a gallery sorted by score.

    Of equal scores each gets the mean of their places, so that a model that cannot tell entries apart scores at chance.

    Args:
        queries_ND: L2-normalised; row i belongs to row i of the gallery.
        gallery_ND: L2-normalised.
        tile: rows of the score matrix in memory at once.

    Returns:
        (N,) float64.

    Raises:
        ValueError: shapes differ, or the gallery is empty.
        UserError: an embedding is not finite.
    """
    if queries_ND.shape != gallery_ND.shape or len(queries_ND) == 0:
        raise ValueError(
            f"needs two equal, non-empty sets of embeddings, not {queries_ND.shape} and {gallery_ND.shape}"
        )
    if not (queries_ND.isfinite().all() and gallery_ND.isfinite().all()):
        raise UserError("some embeddings are NaN or infinite: the model has diverged; lower optim.lr")
    found = []
    for start in range(0, len(queries_ND), tile):
        scores_CN = queries_ND[start : start + tile] @ gallery_ND.T
        own_C1 = scores_CN.diagonal(offset=start)[:, None]
        better_C = (scores_CN > own_C1).sum(dim=1)
        equal_C = (scores_CN == own_C1).sum(dim=1)
        found.append(1 + better_C.double() + (equal_C - 1).double() / 2)
    return torch.cat(found)


def summary(ranks_N: torch.Tensor) -> dict[str, float]:
    """Recall at 1, 5 and 10, mean reciprocal rank, median and mean rank."""
    recalls = {f"R@{k}": (ranks_N <= k).double().mean().item() for k in (1, 5, 10)}
    return {
        **recalls,
        "MRR": (1 / ranks_N).mean().item(),
        "median_rank": ranks_N.quantile(0.5).item(),
        "mean_rank": ranks_N.mean().item(),
    }


def retrieval(text_embeds_ND: torch.Tensor, speech_embeds_ND: torch.Tensor) -> dict[str, Any]:
    """Both directions: {"gallery": N, "chance_R@1": 1 / N, "text_to_speech": {…}, "speech_to_text": {…}}."""
    return {
        "gallery": len(text_embeds_ND),
        "chance_R@1": 1 / max(1, len(text_embeds_ND)),
        "text_to_speech": summary(ranks(text_embeds_ND, speech_embeds_ND)),
        "speech_to_text": summary(ranks(speech_embeds_ND, text_embeds_ND)),
    }
