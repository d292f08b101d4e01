"""The arrays that the figures of a report are drawn from. Shapes: N gallery, D width."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clvp_train.metrics import DIRECTIONS, RetrievalRanks, mismatched

MAX_IN_HEAT_MAP, MAX_IN_PROJECTION = 32, 2000  # texts


@dataclass
class FigureData:
    """What the figures of one model on one split show. Figures whose data is empty are not drawn.

    Attributes:
        ranks: by direction, (N,).
        scores: of "true" (matched), "mismatched" and, if there are any, "perturbed" pairs.
        similarity: (32, 32) scores of some texts (rows) with their codes (columns).
        projection: two principal components of the speech embeddings of at most 2000 pairs.
        rows: the pairs in `projection`.
        voices: of all pairs.
        lengths: number of codes of all pairs.
        perturbations: as in the metrics, see `evaluation`.
        rerank: as in the metrics, see `metrics.reranking_metrics`.
        history: rows of the log of the training, see `read_history`.
    """

    ranks: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    similarity: np.ndarray
    projection: np.ndarray
    rows: np.ndarray
    voices: Sequence[str] = ()
    lengths: Sequence[int] = ()
    perturbations: Sequence[dict[str, Any]] = ()
    rerank: dict[str, Any] = field(default_factory=dict)
    history: Sequence[dict[str, float]] = ()

    @classmethod
    def from_retrieval(
        cls,
        text_ND: torch.Tensor,
        speech_ND: torch.Tensor,
        ranks: RetrievalRanks,
        scores: dict[str, np.ndarray] | None = None,
        **more: Any,
    ) -> "FigureData":
        """Makes the data from L2-normalised embeddings. Without `scores`, those of a part of the split are computed."""
        shown, rows = _spread(len(text_ND), MAX_IN_HEAT_MAP), _spread(len(text_ND), MAX_IN_PROJECTION)
        return cls(
            ranks={direction: getattr(ranks, key).numpy() for key, direction in DIRECTIONS.items()},
            scores=_scores(text_ND[rows].cpu(), speech_ND[rows].cpu()) if scores is None else scores,
            similarity=(text_ND[shown] @ speech_ND[shown].T).cpu().numpy(),
            projection=_principal(speech_ND[rows].double()).cpu().numpy(),
            rows=np.array(rows),
            **more,
        )


def read_history(file: Path) -> list[dict[str, float]]:
    """Returns the rows of the `metrics.csv` of a training, without empty cells; [] if there is none or it cannot be read."""
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(lines)]
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def _scores(text_ND: torch.Tensor, speech_ND: torch.Tensor) -> dict[str, np.ndarray]:
    texts, codes = mismatched(len(text_ND))
    others = (text_ND[texts] * speech_ND[codes]).sum(dim=1).numpy()
    return {"true": (text_ND * speech_ND).sum(dim=1).numpy()} | ({"mismatched": others} if len(others) else {})


def _spread(size: int, wanted: int) -> list[int]:
    """Rows at equal distances over a split."""
    return np.unique(np.linspace(0, size - 1, min(size, wanted)).round().astype(int)).tolist()


def _principal(embeds_ND: torch.Tensor) -> torch.Tensor:
    """(N, 2) projections on the first two principal components."""
    centred_ND = embeds_ND - embeds_ND.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred_ND.T @ centred_ND)
    best_D2 = vectors[:, -2:].flip(1)
    # the sign of an eigenvector is arbitrary: fix it, so that the same model gives the same figure
    return centred_ND @ (best_D2 * best_D2[best_D2.abs().argmax(dim=0), [0, 1]].sign())
