"""Datasets over the memory-mapped pairs of one split, and their views for training and evaluation.

Shapes: T text length, S speech length, L either, N pairs, K hard negatives.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import Dataset

from clvp_train.corpus import Split
from clvp_train.data.collate import Pair
from clvp_train.data.perturbations import Codes, HardNegatives
from clvp_train.data.sampler import Item
from clvp_train.data.text_index import TextIndex, text_hashes
from clvp_train.pairs import open_copies


class RaggedColumn:
    """Id lists of different lengths, read from the memory map without a copy of the column. Chunks stay separate because
    Arrow's offsets within a chunk are int32."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.chunks = [(chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in column.chunks]
        self.starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)]).tolist()  # first row of each chunk

    def __getitem__(self, row: int) -> torch.Tensor:
        chunk = bisect_right(self.starts, row) - 1
        offsets, values = self.chunks[chunk]
        index = row - self.starts[chunk]
        ids_L = values[offsets[index] : offsets[index + 1]]
        return torch.from_numpy(ids_L.astype(np.int64))


class PairDataset(Dataset[Pair]):
    """The pairs of one split. Takes 33 bytes of memory per pair. A pickled copy maps the files again.

    Args:
        files: as `pairs.arrow_copies` returns them.
        split: which pairs to take.

    Attributes:
        text_index: the pairs of each distinct text.
        keys_N: int64, equal for equal texts, see `text_hashes`.
    """

    def __init__(self, files: Sequence[Path], split: Split) -> None:
        self.files = files
        table = open_copies(files, ["split", "text", "finished"])
        self.rows_N = np.flatnonzero(pc.equal(table["split"], split).to_numpy())
        self.finished_N = table["finished"].fill_null(True).to_numpy()[self.rows_N]
        keys_N, end = np.empty(len(self.rows_N), dtype=np.uint64), 0
        for batch in table.to_batches():
            hashes = text_hashes(batch["text"].filter(pc.equal(batch["split"], split)))
            keys_N[end : end + len(hashes)] = hashes
            end += len(hashes)
        self.text_index = TextIndex.from_keys(keys_N)
        self.keys_N = keys_N.view(np.int64)
        self._map()

    def _map(self) -> None:
        """Opens what a pickled copy lacks."""
        table = open_copies(self.files, ["input_ids", "speech_ids"])
        self.input_ids, self.speech_ids = RaggedColumn(table["input_ids"]), RaggedColumn(table["speech_ids"])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("input_ids", "speech_ids")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._map()

    def qualities(self) -> np.ndarray:
        """(N,) float32 quality of each pair, higher is better: infinite for recordings that nothing judged, NaN for candidates
        without judgement."""
        table = open_copies(self.files, ["quality", "log_probability"])
        quality_N = table["quality"].to_numpy()[self.rows_N]
        is_recording_N = table["log_probability"].is_null().to_numpy()[self.rows_N]
        return np.where(np.isnan(quality_N) & is_recording_N, np.float32(np.inf), quality_N)

    def column(self, name: str, indices: np.ndarray) -> list[Any]:
        """The values of a column of `pairs.SCHEMA` for these pairs. Works chunk by chunk: Arrow cannot join large chunks."""
        rows, column = self.rows_N[indices], open_copies(self.files, [name])[name]
        starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])
        chunk_of, values = np.searchsorted(starts, rows, side="right") - 1, np.empty(len(rows), dtype=object)
        for number in np.unique(chunk_of):
            is_here = chunk_of == number
            values[is_here] = column.chunk(number).take(pa.array(rows[is_here] - starts[number])).to_pylist()
        return values.tolist()

    def of_another_text(self, index: int, rng: np.random.Generator) -> int:
        """Draws the index of a pair whose text differs from that of the given pair, if there is another text."""
        text = int(rng.integers(len(self.text_index)))
        if self.keys_N[self.text_index[text][0]] == self.keys_N[index]:
            text = (text + 1) % len(self.text_index)
        return int(self.text_index[text][rng.integers(len(self.text_index[text]))])

    def __len__(self) -> int:
        return len(self.rows_N)

    def __getitem__(self, index: int) -> Pair:
        input_ids, speech_ids = self._ids(index)
        return {"input_ids": input_ids, "speech_ids": speech_ids, "finished": bool(self.finished_N[index])}

    def _ids(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(T,) text tokens and (S,) codes of a pair."""
        row = int(self.rows_N[index])
        return self.input_ids[row], self.speech_ids[row]


@dataclass(eq=False)
class TrainingPairs(Dataset[Pair]):
    """Pairs with the key of their text and hard negatives. The negatives depend on the pairs, the seed, the epoch and the index
    only: not on the rank, the loader process, or the batch at which a run resumes."""

    pairs: PairDataset
    negatives: HardNegatives
    seed: int  # of the hard negatives
    limit: int | None  # number of codes that the model sees; None: all

    def __getitem__(self, item: Item) -> Pair:
        index, epoch = item
        pair = self.pairs[index]
        pair["key"] = int(self.pairs.keys_N[index])
        if self.negatives.num_hard_negatives:
            rng = np.random.default_rng((self.seed, epoch, index))
            other_codes = partial(self._other_codes, index, rng)
            copies = self.negatives.draw(pair["speech_ids"].numpy(), rng, other_codes, self.limit)
            pair["negatives"] = [(torch.from_numpy(copy_S), pair["finished"]) for copy_S in copies]
        return pair

    def _other_codes(self, index: int, rng: np.random.Generator) -> Codes:
        """The codes of a pair of another text, if there is another text."""
        return self.pairs[self.pairs.of_another_text(index, rng)]["speech_ids"].numpy()


@dataclass(eq=False)
class EvaluationPairs(Dataset[Pair]):
    """The first pair of each text, with the number of the text, which is the position of its gathered embedding."""

    pairs: PairDataset

    def __len__(self) -> int:
        return len(self.pairs.text_index)

    def __getitem__(self, text: int) -> Pair:
        return {**self.pairs[self.pairs.text_index[text][0]], "text": text}
