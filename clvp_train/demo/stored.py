"""What the page does with candidates in Parquet files: ranks them, without a Tortoise."""

from collections.abc import Callable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import ClassVar

import numpy as np

from clvp_train.demo.session import RankedCandidate, ranked
from clvp_train.errors import UserError
from clvp_train.inference.candidate_parquet import CandidateFile
from clvp_train.inference.reranker import Reranker, Text
from clvp_train.pairs import MANIFEST, read_manifest
from clvp_train.pipelines.rerank import candidate_files
from clvp_train.tortoise import Candidate

MAX_TEXTS, MAX_ROWS = 500, 50_000  # that the page offers, and that are read


class StoredSession:
    """Takes the place of `DemoSession`, for codes of any codec. Nothing is sampled or decoded.

    Args:
        reranker: ranks the candidates.
        candidates: a Parquet file or a folder of them, as `CandidateFile` reads them; the first `MAX_TEXTS` texts of
            the first `MAX_ROWS` rows are offered.

    Raises:
        UserError: a file cannot be read, or there are no candidates.
    """

    latents: ClassVar[Mapping[str, np.ndarray]] = {}
    is_audible = False

    def __init__(self, reranker: Reranker, candidates: str | Path) -> None:
        if reranker.voice is not None:
            raise UserError("reranker.voice: stored candidates come without reference clips. Set it to null.")
        self.reranker, self._candidates = reranker, dict[str, tuple[Text, list[Candidate]]]()
        files = candidate_files(Path(candidates))
        rows = chain.from_iterable(CandidateFile(file, reranker).candidates() for file in files)
        for text, candidate in islice(rows, MAX_ROWS):
            label = text if isinstance(text, str) else "tokens " + " ".join(map(str, text))
            if label in self._candidates or len(self._candidates) < MAX_TEXTS:
                self._candidates.setdefault(label, (text, []))[1].append(candidate)
        if not self._candidates:
            raise UserError(f"candidates={candidates}: no candidates. Choose other files.")
        folder = files[0].parent
        self._code_rate = read_manifest(folder).code_rate if (folder / MANIFEST).exists() else None

    @property
    def texts(self) -> list[str]:
        return list(self._candidates)

    @property
    def num_candidates(self) -> int:
        """The largest number of candidates of a text."""
        return max(len(candidates) for _, candidates in self._candidates.values())

    def draw(
        self, text: str, voice: str, seed: int, on_candidate: Callable[[Candidate], None]
    ) -> list[RankedCandidate]:
        """Returns the candidates of one of `texts` ranked, best first. The other arguments mean nothing here."""
        given, candidates = self._candidates[text]
        return ranked(self.reranker, given, candidates, self._code_rate)

    def is_unfamiliar(self, text: str) -> bool:
        """Whether a text is unlike those that CLVP was trained on."""
        return self.reranker.is_unfamiliar(self._candidates[text][0])

    def speak(self, candidate: Candidate) -> np.ndarray:
        raise UserError("there is no decoder for these codes. Write recordings with your codec.")
