"""Which pairs form which batch on which rank. Shapes: U distinct texts, B batch, P parts."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from clvp_train.data.text_index import TextIndex

Item = tuple[int, int]  # index of a pair and epoch


@dataclass(frozen=True)
class Windows:
    """Groups of parts, such as the shards of a folder. An epoch takes all pairs of a group before those of the next.

    Attributes:
        first_P: (P,) index of the first pair of each part, ascending.
        size: parts in a window.
    """

    first_P: np.ndarray
    size: int

    def draw(self, indices_U: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(U,) the window of each of these pairs. The parts of a window are drawn at random."""
        part_U = np.searchsorted(self.first_P, indices_U, side="right") - 1
        return rng.permutation(len(self.first_P))[part_U] // self.size


class EpochOrder:
    """One pass over the texts in random order, with one of each text's pairs, another one in each epoch.

    No text occurs twice in an epoch, so none occurs twice in a batch. The order depends on seed, epoch, and windows only: all
    ranks have the same one.

    Args:
        text_index: the pairs of each text.
        seed: of the order.
        fixed: whether every epoch repeats the first, as `trainer.overfit_batches` needs.
        windows: the pairs that are taken together, in random order within each window; None: all.
    """

    def __init__(self, text_index: TextIndex, seed: int, fixed: bool = False, windows: Windows | None = None) -> None:
        self.text_index, self.seed, self.fixed, self.windows, self.epoch = text_index, seed, fixed, windows, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = 0 if self.fixed else epoch

    def __len__(self) -> int:
        return len(self.text_index)

    def texts(self) -> np.ndarray:
        """(U,) all texts in the order of this epoch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        texts_U = rng.permutation(len(self.text_index))
        if self.windows is None:
            return texts_U
        return texts_U[np.argsort(self.windows.draw(self._indices(texts_U), rng), kind="stable")]

    def indices(self, texts_B: np.ndarray) -> list[int]:
        """The indices of the pairs that this epoch takes for these texts."""
        return self._indices(texts_B).tolist()

    def _indices(self, texts_B: np.ndarray) -> np.ndarray:
        # each text starts at a different candidate, so that an epoch mixes all candidate numbers
        return self.text_index.pick(texts_B, self.epoch + texts_B)


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
