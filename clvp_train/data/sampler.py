"""Which pairs stand in which batch, on which rank. Shapes: U distinct texts, B batch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from clvp_train.data.candidates import Candidates

TEXTS_AT_ONCE = 65_536  # turned into Python numbers


class CandidateSampler(Sampler[int]):
    """One pass over the texts in random order, with one of each text's candidates, another one in each epoch.

    As no text occurs twice in an epoch, none occurs twice in a batch. The order depends on seed and epoch alone, so all
    ranks agree on it.

    Args:
        candidates: per text, the places of its pairs.
        seed: of the order.
    """

    def __init__(self, candidates: Candidates, seed: int) -> None:
        self.candidates, self.seed, self.epoch = candidates, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[int]:
        order_U = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.candidates))
        for start in range(0, len(order_U), TEXTS_AT_ONCE):
            texts_B = order_U[start : start + TEXTS_AT_ONCE]
            # each text starts at a place of its own, so that an epoch mixes all candidate numbers
            yield from self.candidates.pick(texts_B, self.epoch + texts_B).tolist()


class GlobalBatchSampler(Sampler[list[int]]):
    """Cuts the sampler's order into global batches and gives each rank its equal share; the incomplete last one is dropped.

    Args:
        sampler: the order; Lightning calls its `set_epoch`.
        batch_size: pairs over all ranks, a multiple of `world_size`.
        rank: this process.
        world_size: how many there are.
    """

    def __init__(self, sampler: CandidateSampler, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.sampler, self.batch_size, self.rank, self.world_size = sampler, batch_size, rank, world_size

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.world_size
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch[self.rank * share : (self.rank + 1) * share]
                batch = []


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
