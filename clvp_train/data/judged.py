"""The candidates of a text by their quality: which are positives, and which are negatives of which.

Shapes: N pairs, U texts, K negatives.
"""

from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from clvp_train.data.collate import Pair
from clvp_train.data.sampler import Item
from clvp_train.data.text_index import TextIndex

JUDGED = 1  # keeps these random draws apart from those of perturbed copies


class JudgedCandidates:
    """Chooses among the pairs of a text by the quality that a judge gave them. It takes 14 bytes of memory per pair.

    A recording that nothing judged counts as good as the best judged candidate of its text.

    Args:
        text_index: the pairs of each text.
        quality_N: see `PairDataset.qualities`.
        num_negatives: K.
        margin: by which the quality of a negative is below that of the positive.

    Attributes:
        quality_N: NaN for pairs without judgement.
    """

    def __init__(
        self, text_index: TextIndex, quality_N: np.ndarray, num_negatives: int = 0, margin: float = 0.0
    ) -> None:
        self.text_index, self.num_negatives, self.margin = text_index, num_negatives, margin
        self.text_of_N = np.empty(len(quality_N), dtype=np.int64)
        self.text_of_N[text_index.indices_N] = np.repeat(np.arange(len(text_index)), text_index.sizes())
        self.is_recording_N = np.isposinf(quality_N)  # as `PairDataset.qualities` marks them
        self.is_judged_N = np.isfinite(quality_N)
        judged_N = np.where(self.is_recording_N, np.nan, quality_N)
        best_U = np.fmax.reduceat(
            judged_N[text_index.indices_N], text_index.offsets[:-1]
        )  # NaN: no candidate is judged
        self.quality_N = np.where(self.is_recording_N, best_U[self.text_of_N], judged_N)

    def positives(self, share: float) -> TextIndex:
        """The pairs of each text that are used as positives: its recordings and the best `share` of its judged candidates, at
        least one; all pairs of a text that has neither, or if the share is 1."""
        if share == 1:
            return self.text_index
        judged = np.flatnonzero(self.is_judged_N)
        judged = judged[np.lexsort((-self.quality_N[judged], self.text_of_N[judged]))]
        sizes_U = np.bincount(self.text_of_N[judged], minlength=len(self.text_index))
        place = np.arange(len(judged)) - (sizes_U.cumsum() - sizes_U)[self.text_of_N[judged]]  # in its text, best first
        kept_N = self.is_recording_N.copy()
        kept_N[judged[place < np.ceil(share * sizes_U - 1e-9)[self.text_of_N[judged]]]] = True
        has_none_U = np.bincount(self.text_of_N[kept_N], minlength=len(self.text_index)) == 0
        return self.text_index.subset(kept_N | has_none_U[self.text_of_N])

    def negatives(self, index: int, rng: np.random.Generator) -> list[int]:
        """Draws at most K pairs of the same text that are worse than a pair by the margin; fewer if there are no more."""
        pairs = self.text_index[self.text_of_N[index]]
        gaps = self.quality_N[index] - self.quality_N[pairs]
        worse = pairs[(gaps > 0) & (gaps >= self.margin)]  # false for NaN
        return rng.permutation(worse)[: self.num_negatives].tolist()


@dataclass(eq=False)
class JudgedPairs(Dataset[Pair]):
    """Training pairs with their qualities. Worse candidates of the text take the place of their first K negatives, where
    there are any."""

    items: Dataset[Pair]  # training pairs with at least K negatives
    pairs: Dataset[Pair]  # the same without negatives
    judged: JudgedCandidates
    seed: int  # of the choice of candidates

    def __getitem__(self, item: Item) -> Pair:
        index, epoch = item
        pair = self.items[item]
        worse = self.judged.negatives(index, np.random.default_rng((self.seed, epoch, index, JUDGED)))
        others = [self.pairs[other] for other in worse]
        copies = pair.get("negatives", [])[len(worse) :]
        if others or copies:
            pair["negatives"] = [*((other["speech_ids"], other["finished"]) for other in others), *copies]
            pair["qualities"] = [*self.judged.quality_N[[index, *worse]].tolist(), *[np.nan] * len(copies)]
        return pair
