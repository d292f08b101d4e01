"""All that one model must embed, at one go for each half. Shapes: X places, D width."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import normalize

from clvp_train.evaluation.embed import Embedder
from clvp_train.evaluation.evaluation_data import EvaluationData

Places = np.ndarray  # (X,) int64, in a pool


class EmbeddingStore:
    """Where the texts and codes of an `EvaluationData` lie in two pools, and their embeddings.

    Attributes:
        pairs: places of texts and of codes of the held-out pairs.
        perturbations: likewise of each of `data.perturbations`.
        candidates: likewise of all candidates.
        reference: places of the reference's codes.
    """

    def __init__(self, data: EvaluationData, embedder: Embedder) -> None:
        self._texts: list[np.ndarray] = []
        self._codes: list[np.ndarray] = []
        self._finished: list[bool] = []
        pairs, sets = data.pairs, data.candidates
        self.pairs = self._add_texts(pairs.input_ids), self._add_codes(pairs.codes, pairs.finished)
        self.perturbations = [
            (self._add_texts(perturbation.perturbed), self.pairs[1][perturbation.rows])
            if perturbation.side == "text"
            else (
                self.pairs[0][perturbation.rows],
                self._add_codes(perturbation.perturbed, [pairs.finished[row] for row in perturbation.rows]),
            )
            for perturbation in data.perturbations
        ]
        self.candidates = self._add_texts([]), self._add_codes([], [])
        if sets is not None:
            texts = self._add_texts([sets.pairs.input_ids[start] for start in sets.starts])
            self.candidates = texts.repeat(sets.sizes), self._add_codes(sets.pairs.codes, sets.pairs.finished)
        reference = data.reference
        self.reference = self._add_codes(reference.codes, reference.finished) if reference else self._add_codes([], [])
        self._text_XD = normalize(embedder.texts(self._texts), dim=-1)
        self._speech_XD = embedder.speech(self._codes, self._finished)

    def texts(self, places: Places) -> torch.Tensor:
        """(X, D) L2-normalised."""
        return self._text_XD[torch.from_numpy(places).to(self._text_XD.device)]

    def projections(self, places: Places) -> torch.Tensor:
        """(X, D) of codes, as they are projected."""
        return self._speech_XD[torch.from_numpy(places).to(self._speech_XD.device)]

    def speech(self, places: Places) -> torch.Tensor:
        """(X, D) of codes, L2-normalised."""
        return normalize(self.projections(places), dim=-1)

    def scores(self, pairs: tuple[Places, Places]) -> np.ndarray:
        """(X,) cosine similarities of texts with codes, float64."""
        parts = zip(*(np.array_split(places, 1 + len(places) // 8192) for places in pairs))
        return np.concatenate(
            [(self.texts(text).double() * self.speech(code).double()).sum(dim=1).cpu().numpy() for text, code in parts]
        )

    def _add_texts(self, sequences: Sequence[np.ndarray]) -> Places:
        self._texts += sequences
        return np.arange(len(self._texts) - len(sequences), len(self._texts))

    def _add_codes(self, sequences: Sequence[np.ndarray], finished: Sequence[bool]) -> Places:
        self._codes += sequences
        self._finished += finished
        return np.arange(len(self._codes) - len(sequences), len(self._codes))
