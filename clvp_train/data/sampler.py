"""Which pairs stand in which batch, on which rank."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class CandidateSampler(Sampler[int]):
    """One pass over the texts in random order, with one of each text's candidates, another one in each epoch.

    As no text occurs twice in an epoch, none occurs twice in a batch. The order depends on seed and epoch alone, so all
    ranks agree on it.

    Args:
        candidates: per text, the places of its pairs.
        seed: of the order.
    """

    def __init__(self, candidates: Sequence[Sequence[int]], seed: int) -> None:
        self.candidates, self.seed, self.epoch = candidates, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.candidates))
        for text in order.tolist():
            of_text = self.candidates[text]
            # each text starts at a place of its own, so that an epoch mixes all candidate numbers
            yield of_text[(self.epoch + text) % len(of_text)]


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
        per_rank = -(-num_texts // world_size)
        self.texts = [(rank + place * world_size) % num_texts for place in range(per_rank)] if num_texts else []

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[int]:
        return iter(self.texts)
