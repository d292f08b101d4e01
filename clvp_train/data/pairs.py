"""Pairs in memory: which texts there are, which candidates each has, and their ids.

Shapes: T text length, S speech length.
"""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import Dataset

from clvp_train.corpus import Split, text_key


class Ragged:
    """Lists of ids of different lengths in two arrays."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = column.combine_chunks()
        self.values = array.values.to_numpy()
        self.offsets = array.offsets.to_numpy()

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.values[self.offsets[index] : self.offsets[index + 1]].astype(np.int64))

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


class PairDataset(Dataset[dict[str, torch.Tensor]]):
    """The pairs of one split.

    Args:
        table: as `codes.read_pairs` gives it.
        split: which pairs to take.
    """

    def __init__(self, table: pa.Table, split: Split) -> None:
        table = table.filter(pc.equal(table["split"], split)).combine_chunks()
        self.input_ids, self.speech_ids = Ragged(table["input_ids"]), Ragged(table["speech_ids"])
        self.texts: list[str] = table["text"].to_pylist()
        candidates: dict[str, list[int]] = defaultdict(list)
        for index, text in enumerate(self.texts):
            candidates[text_key(text)].append(index)
        self.candidates = list(candidates.values())  # per distinct text, the places of its pairs

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """{"input_ids": (T,), "speech_ids": (S,)}, int64."""
        return {"input_ids": self.input_ids[index], "speech_ids": self.speech_ids[index]}
