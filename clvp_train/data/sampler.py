"""Which pairs form which batch on which rank. Shapes: U distinct texts, B batch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from clvp_train.data.text_index import TextIndex

Item = tuple[int, int]  # index of a pair and epoch


class EpochOrder:
    """One pass over the texts in random order, with one of each text's pairs, another one in each epoch.

    No text occurs twice in an epoch, so none occurs twice in a batch. The order depends on seed and epoch only, so all ranks
    have the same one.

    Args:
        text_index: the pairs of each text.
        seed: of the order.
        fixed: whether every epoch repeats the first, as `trainer.overfit_batches` needs.
    """

    def __init__(self, text_index: TextIndex, seed: int, fixed: bool = False) -> None:
        self.text_index, self.seed, self.fixed, self.epoch = text_index, seed, fixed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = 0 if self.fixed else epoch

    def __len__(self) -> int:
        return len(self.text_index)

    def texts(self) -> np.ndarray:
        """(U,) all texts in the order of this epoch."""
        return np.random.default_rng((self.seed, self.epoch)).permutation(len(self.text_index))

    def indices(self, texts_B: np.ndarray) -> list[int]:
        """The indices of the pairs that this epoch takes for these texts."""
        # each text starts at a different candidate, so that an epoch mixes all candidate numbers
        return self.text_index.pick(texts_B, self.epoch + texts_B).tolist()


class GlobalBatchSampler(Sampler[list[Item]]):
    """Cuts an epoch into global batches and gives each rank an equal share. The last incomplete batch is dropped.

    Args:
        order: of the texts.
        batch_size: pairs over all ranks, a multiple of `world_size`.
        rank: of this process.
        world_size: number of processes.
        start: (epoch, batches): in that epoch the first `batches` batches are skipped; `len` still counts them.
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        start: tuple[int, int] = (0, 0),
    ) -> None:
        self.sampler = order  # the name that Lightning expects: it calls batch_sampler.sampler.set_epoch
        self.batch_size, self.rank, self.world_size, self.start = batch_size, rank, world_size, start

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, texts_U = self.sampler.epoch, self.sampler.texts()
        share = self.batch_size // self.world_size
        for batch in range(self.start[1] if epoch == self.start[0] else 0, len(self)):
            start = batch * self.batch_size + self.rank * share
            yield [(index, epoch) for index in self.sampler.indices(texts_U[start : start + share])]


class EvaluationSampler(Sampler[int]):
    """Distributes all texts over the ranks. Some ranks repeat a text, so that all have the same number: embeddings that are
    gathered afterwards must be placed by text.

    Args:
        num_texts: number of texts.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, num_texts: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_texts, self.rank, self.world_size = num_texts, rank, world_size

    def __len__(self) -> int:
        return -(-self.num_texts // self.world_size)

    def __iter__(self) -> Iterator[int]:
        return ((self.rank + step * self.world_size) % self.num_texts for step in range(len(self)))
