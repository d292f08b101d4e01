"""Which pairs stand in which batch, on which rank. Shapes: U distinct texts, B batch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from clvp_train.data.candidates import Candidates

Item = tuple[int, int]  # a pair's place and the epoch


class EpochOrder:
    """One pass over the texts in random order, with one of each text's candidates, another one in each epoch.

    As no text occurs twice in an epoch, none occurs twice in a batch. The order depends on seed and epoch alone, so all
    ranks agree on it.

    Args:
        candidates: per text, the places of its pairs.
        seed: of the order.
        fixed: whether every epoch repeats the first, as `trainer.overfit_batches` needs.
    """

    def __init__(self, candidates: Candidates, seed: int, fixed: bool = False) -> None:
        self.candidates, self.seed, self.fixed, self.epoch = candidates, seed, fixed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = 0 if self.fixed else epoch

    def __len__(self) -> int:
        return len(self.candidates)

    def texts(self) -> np.ndarray:
        """(U,) all of them, in this epoch's order."""
        return np.random.default_rng((self.seed, self.epoch)).permutation(len(self.candidates))

    def places(self, texts_B: np.ndarray) -> list[int]:
        """Of the pairs that this epoch takes for these texts."""
        # each text starts at a place of its own, so that an epoch mixes all candidate numbers
        return self.candidates.pick(texts_B, self.epoch + texts_B).tolist()


class GlobalBatchSampler(Sampler[list[Item]]):
    """Cuts an epoch into global batches and gives each rank its equal share; the incomplete last one is dropped.

    Args:
        order: of the texts.
        batch_size: pairs over all ranks, a multiple of `world_size`.
        rank: this process.
        world_size: how many there are.
        begin: (epoch, batches): that epoch leaves out its first `batches` batches. Its length stays that of a whole one.
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        begin: tuple[int, int] = (0, 0),
    ) -> None:
        self.sampler = order  # so called because Lightning calls batch_sampler.sampler.set_epoch
        self.batch_size, self.rank, self.world_size, self.begin = batch_size, rank, world_size, begin

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, texts_U = self.sampler.epoch, self.sampler.texts()
        share = self.batch_size // self.world_size
        for batch in range(self.begin[1] if epoch == self.begin[0] else 0, len(self)):
            start = batch * self.batch_size + self.rank * share
            yield [(place, epoch) for place in self.sampler.places(texts_U[start : start + share])]


class EvaluationSampler(Sampler[int]):
    """The first candidate of every text, spread over the ranks; ranks that come out short repeat texts, so that all have the
    same number. Who gathers the embeddings must place them by text.

    Args:
        num_texts: how many there are.
        rank: this process.
        world_size: how many there are.
    """

    def __init__(self, num_texts: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_texts, self.rank, self.world_size = num_texts, rank, world_size

    def __len__(self) -> int:
        return -(-self.num_texts // self.world_size)

    def __iter__(self) -> Iterator[int]:
        return ((self.rank + place * self.world_size) % self.num_texts for place in range(len(self)))
