"""Training pairs of which only some copies of shards are on the disk. Shapes: P parts, see `CopyCache`."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from clvp_train.data.dataset import PairDataset, RaggedColumn
from clvp_train.data.sampler import Windows
from clvp_train.pairs import CopyCache


class CachedPairs(PairDataset):
    """The training pairs of a folder, whose copies are made when they are needed. At most `cache.window` of them are mapped."""

    def __init__(self, cache: CopyCache) -> None:
        self.cache = cache
        super().__init__(cache.files, "train")
        self.first_P = np.searchsorted(self.rows_N, cache.starts_P)  # training pair of each part, and their number

    def _map(self) -> None:
        self._opened: OrderedDict[int, tuple[RaggedColumn, RaggedColumn]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}

    def of_another_text(self, index: int, rng: np.random.Generator) -> int:
        """As in `PairDataset`, but in the same part."""
        part = bisect_right(self.first_P, index) - 1
        near = np.arange(*self.first_P[part : part + 2])
        others = near[self.keys_N[near] != self.keys_N[index]]
        return int(rng.choice(others)) if len(others) else index

    def _ids(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        part = bisect_right(self.first_P, index) - 1
        if part not in self._opened:
            if len(self._opened) >= self.cache.window:
                self._opened.popitem(last=False)
            table = self.cache.open(part)
            self._opened[part] = RaggedColumn(table["input_ids"]), RaggedColumn(table["speech_ids"])
        self._opened.move_to_end(part)
        input_ids, speech_ids = self._opened[part]
        row = int(self.rows_N[index] - self.cache.starts_P[part])
        return input_ids[row], speech_ids[row]


def windows_of(folders: Sequence[PairDataset]) -> Windows | None:
    """The windows of folders whose pairs are numbered one after the other; None if all copies are on the disk."""
    first, sizes, start = [], [], 0
    for pairs in folders:
        if isinstance(pairs, CachedPairs):
            first.append(start + pairs.first_P[:-1][np.diff(pairs.first_P) > 0])
            sizes.append(pairs.cache.window)
        start += len(pairs)
    return Windows(np.concatenate(first), min(sizes)) if sizes else None
