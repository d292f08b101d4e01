"""What figures are drawn from: small arrays, whatever the gallery. Shapes: N gallery, D width."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from clvp_train.metrics import RetrievalRanks, mismatched

NUM_IN_HEAT_MAP, NUM_IN_PROJECTION = 32, 2000


@dataclass
class FigureData:
    """Of one model on one split. What is empty is not drawn.

    Attributes:
        ranks: by direction, (N,).
        scores: of "true", "mismatched" and, if there are any, "perturbed" pairs.
        similarity: (32, 32) scores of some texts, down, with their codes, across.
        projection: (N, 2) codes on their two principal components; of 2000 at most, `rows`.
        rows: which pairs `projection` shows.
        voices: of all pairs; lengths: their codes.
        perturbations: as in the metrics, see `evaluation`.
    """

    ranks: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    similarity: np.ndarray
    projection: np.ndarray
    rows: np.ndarray
    voices: Sequence[str] = ()
    lengths: np.ndarray = field(default_factory=lambda: np.empty(0))
    perturbations: Sequence[dict[str, Any]] = ()

    @classmethod
    def from_retrieval(
        cls,
        text_ND: torch.Tensor,
        speech_ND: torch.Tensor,
        ranks: RetrievalRanks,
        scores: dict[str, np.ndarray] | None = None,
    ) -> "FigureData":
        """From L2-normalised embeddings. Without `scores`, those of some pairs from all over the split."""
        size = len(text_ND)
        shown, drawn = _spread(size, NUM_IN_HEAT_MAP), _spread(size, NUM_IN_PROJECTION)
        if scores is None:
            scores = _scores(text_ND[drawn].cpu(), speech_ND[drawn].cpu())
        return cls(
            ranks={
                "text → speech": ranks.text_to_speech.numpy(),
                "speech → text": ranks.speech_to_text.numpy(),
            },
            scores=scores,
            similarity=(text_ND[shown] @ speech_ND[shown].T).cpu().numpy(),
            projection=_principal(speech_ND[drawn].double()).cpu().numpy(),
            rows=np.array(drawn),
        )


def _scores(text_ND: torch.Tensor, speech_ND: torch.Tensor) -> dict[str, np.ndarray]:
    texts, codes = mismatched(len(text_ND))
    others = (text_ND[texts] * speech_ND[codes]).sum(dim=1).numpy()
    return {"true": (text_ND * speech_ND).sum(dim=1).numpy()} | ({"mismatched": others} if len(others) else {})


def _spread(size: int, wanted: int) -> list[int]:
    """Rows from all over a split."""
    return np.unique(np.linspace(0, size - 1, min(size, wanted)).round().astype(int)).tolist()


def _principal(embeds_ND: torch.Tensor) -> torch.Tensor:
    """(N, 2) on the two directions that differ most."""
    centred_ND = embeds_ND - embeds_ND.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred_ND.T @ centred_ND)
    best_D2 = vectors[:, -2:].flip(1)
    # a vector's sign is free: fix it, so that the same model gives the same picture
    return centred_ND @ (best_D2 * best_D2[best_D2.abs().argmax(dim=0), [0, 1]].sign())
