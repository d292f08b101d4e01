"""What is evaluated: held-out texts with their codes. Shapes: T text length, S speech length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clvp_train.data.dataset import PairDataset
from clvp_train.data.perturbations import Codes


@dataclass(frozen=True)
class HeldOut:
    """Pairs by row, all lists of the same length."""

    texts: Sequence[str]
    input_ids: Sequence[np.ndarray]  # (T,) each
    codes: Sequence[Codes]  # (S,) each
    finished: Sequence[bool]  # False: the AR ran into its limit of codes
    voices: Sequence[str]
    log_probabilities: np.ndarray  # in nats, under the AR; NaN where it is not known

    @classmethod
    def read(cls, pairs: PairDataset, places: np.ndarray, limit: int | None = None) -> "HeldOut":
        """The pairs at these places of a split, with `limit` codes at most."""
        read = [pairs[int(place)] for place in places]
        return cls(
            texts=pairs.column("text", places),
            input_ids=[pair["input_ids"].numpy() for pair in read],
            codes=[pair["speech_ids"][:limit].numpy() for pair in read],
            finished=[pair["finished"] for pair in read],
            voices=pairs.column("voice", places),
            log_probabilities=np.array(pairs.column("log_probability", places), dtype=np.float64),
        )

    @classmethod
    def first_candidates(cls, pairs: PairDataset, limit: int | None = None) -> "HeldOut":
        """One pair of each distinct text, so that a text that occurs several times counts once."""
        return cls.read(pairs, pairs.text_index.first(), limit)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class CandidateSets:
    """Several candidates of each text, those of the first text first."""

    pairs: HeldOut
    sizes: Sequence[int]  # candidates of each text, two or more
    num_single: int = 0  # texts that were passed over, as they have one candidate

    @classmethod
    def read(cls, pairs: PairDataset, num_texts: int, limit: int | None = None) -> "CandidateSets | None":
        """Of the first `num_texts` texts that have several candidates, with `limit` codes at most; None if there are none."""
        several = pairs.text_index.sizes() > 1
        texts = np.flatnonzero(several)[:num_texts]
        if not len(texts):
            return None
        places = [pairs.text_index[text] for text in texts]
        num_single = int((~several[: texts[-1]]).sum())
        return cls(HeldOut.read(pairs, np.concatenate(places), limit), [len(one) for one in places], num_single)

    @property
    def num_mixed(self) -> int:
        """Texts whose candidates are in several voices, so that a preference for one shapes the pick."""
        voices = self.pairs.voices
        return sum(len(set(voices[start : start + size])) > 1 for start, size in zip(self.starts, self.sizes))

    @property
    def starts(self) -> list[int]:
        """Where each text's candidates begin."""
        return np.cumsum([0, *self.sizes[:-1]]).tolist()

    def by_text(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """(N, K) of one value a candidate; NaN where a text has fewer."""
        found = np.full((len(self.sizes), max(self.sizes)), np.nan)
        for row, (start, size) in enumerate(zip(self.starts, self.sizes)):
            found[row, :size] = values[start : start + size]
        return found
