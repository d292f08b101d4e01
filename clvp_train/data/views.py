"""What training and evaluation take of the pairs. Shapes: S speech length."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from torch.utils.data import Dataset

from clvp_train.data.dataset import Pair, PairDataset
from clvp_train.data.negatives import HardNegatives
from clvp_train.data.perturbations import Codes
from clvp_train.data.sampler import Item


@dataclass(eq=False)
class TrainingPairs(Dataset[Pair]):
    """Pairs with their text's key and their hard negatives. These depend on the pairs, the seed, the epoch and the place alone:
    not on the rank, the loader process, or where a run goes on."""

    pairs: PairDataset
    negatives: HardNegatives
    seed: int  # of the hard negatives
    limit: int | None  # codes that are served; None: all

    def __getitem__(self, item: Item) -> Pair:
        place, epoch = item
        pair = self.pairs[place]
        pair["key"] = int(self.pairs.keys_N[place])
        if self.negatives.num_hard_negatives:
            rng = np.random.default_rng((self.seed, epoch, place))
            another = partial(self._another, place, rng)
            pair["negatives"] = self.negatives.draw(pair["speech_ids"].numpy(), rng, another, self.limit)
        return pair

    def _another(self, place: int, rng: np.random.Generator) -> Codes:
        """The codes of a pair of another text, if there is another."""
        candidates, keys_N = self.pairs.candidates, self.pairs.keys_N
        text = int(rng.integers(len(candidates)))
        if keys_N[candidates[text][0]] == keys_N[place]:
            text = (text + 1) % len(candidates)
        return self.pairs[candidates[text][rng.integers(len(candidates[text]))]]["speech_ids"].numpy()


@dataclass(eq=False)
class FirstCandidates(Dataset[Pair]):
    """One pair a text, with the text's number so that gathered embeddings find their place."""

    pairs: PairDataset

    def __len__(self) -> int:
        return len(self.pairs.candidates)

    def __getitem__(self, text: int) -> Pair:
        return {**self.pairs[self.pairs.candidates[text][0]], "text": text}
