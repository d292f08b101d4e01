"""Held-out texts with their codes. Shapes: N texts, K candidates per text at most, T text length, S speech length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clvp_train.data.dataset import PairDataset
from clvp_train.data.perturbations import Codes


@dataclass(frozen=True)
class HeldOut:
    """Pairs by row; all lists have the same length."""

    texts: Sequence[str]
    input_ids: Sequence[np.ndarray]  # (T,) each
    codes: Sequence[Codes]  # (S,) each
    finished: Sequence[bool]  # False: the AR reached its limit of codes
    voices: Sequence[str]
    log_probabilities: np.ndarray  # in nats, under the AR; NaN if unknown
    qualities: np.ndarray | None = None  # higher is better; NaN if unknown

    @classmethod
    def read(cls, pairs: PairDataset, indices: np.ndarray, limit: int | None = None) -> "HeldOut":
        """Reads these pairs of a split, with at most `limit` codes each."""
        items = [pairs[int(index)] for index in indices]
        return cls(
            texts=pairs.column("text", indices),
            input_ids=[item["input_ids"].numpy() for item in items],
            codes=[item["speech_ids"][:limit].numpy() for item in items],
            finished=[item["finished"] for item in items],
            voices=pairs.column("voice", indices),
            log_probabilities=np.array(pairs.column("log_probability", indices), dtype=np.float64),
            qualities=np.array(pairs.column("quality", indices), dtype=np.float64),
        )

    @classmethod
    def first_candidates(cls, pairs: PairDataset, limit: int | None = None) -> "HeldOut":
        """Reads one pair of each distinct text, so that a repeated text counts once."""
        return cls.read(pairs, pairs.text_index.first(), limit)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class CandidateSets:
    """Several candidates of each text, those of the first text first."""

    pairs: HeldOut
    sizes: Sequence[int]  # candidates of each text, at least two
    num_single: int = 0  # texts that were left out because they have a single candidate

    @classmethod
    def read(cls, pairs: PairDataset, num_texts: int, limit: int | None = None) -> "CandidateSets | None":
        """Reads the first `num_texts` texts with several candidates, at most `limit` codes each; None if there are none."""
        several = pairs.text_index.sizes() > 1
        texts = np.flatnonzero(several)[:num_texts]
        if not len(texts):
            return None
        indices = [pairs.text_index[text] for text in texts]
        num_single = int((~several[: texts[-1]]).sum())
        return cls(HeldOut.read(pairs, np.concatenate(indices), limit), [len(rows) for rows in indices], num_single)

    @property
    def num_mixed(self) -> int:
        """The number of texts whose candidates have several voices, so that a preference for a voice affects the pick."""
        voices = self.pairs.voices
        return sum(len(set(voices[start : start + size])) > 1 for start, size in zip(self.starts, self.sizes))

    @property
    def starts(self) -> list[int]:
        """The row of each text's first candidate."""
        return np.cumsum([0, *self.sizes[:-1]]).tolist()

    def by_text(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Arranges one value per candidate as (N, K); NaN if a text has fewer."""
        values_NK = np.full((len(self.sizes), max(self.sizes)), np.nan)
        for row, (start, size) in enumerate(zip(self.starts, self.sizes)):
            values_NK[row, :size] = values[start : start + size]
        return values_NK
