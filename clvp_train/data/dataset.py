"""Pairs by place: ids out of the memory-mapped file, and which are candidates of one text.

Shapes: T text length, S speech length, L either, N pairs, K hard negatives.
"""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import Dataset

from clvp_train.corpus import Split
from clvp_train.data.candidates import Candidates, text_hashes
from clvp_train.pairs import open_copies


class Pair(TypedDict):
    """A pair as `Collate` takes it."""

    input_ids: torch.Tensor  # (T,)
    speech_ids: torch.Tensor  # (S,)
    finished: bool  # False: the AR ran into its limit of codes
    key: NotRequired[int]  # in training: the same for equal texts
    negatives: NotRequired[list[torch.Tensor]]  # in training: K perturbed copies of the codes
    text: NotRequired[int]  # in evaluation: the text's number


class Ragged:
    """Lists of ids of different lengths, read where they lie. Chunks stay apart, as Arrow's offsets within one are int32."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.chunks = [(chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in column.chunks]
        self.starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)]).tolist()  # of chunks, in rows

    def __getitem__(self, row: int) -> torch.Tensor:
        chunk = bisect_right(self.starts, row) - 1
        offsets, values = self.chunks[chunk]
        place = row - self.starts[chunk]
        ids_L = values[offsets[place] : offsets[place + 1]]
        return torch.from_numpy(ids_L.astype(np.int64))


class PairDataset(Dataset[Pair]):
    """The pairs of one split. Holds 33 bytes a pair; pickled, it takes these and the files' names along, and maps them anew.

    Args:
        files: as `codes.arrow_copies` gives them.
        split: which pairs to take.

    Attributes:
        candidates: per distinct text, the places of its pairs.
        keys_N: int64, the same for equal texts, see `candidates.text_hashes`.
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
        self.candidates = Candidates.of_keys(keys_N)
        self.keys_N = keys_N.view(np.int64)
        self._map()

    def _map(self) -> None:
        table = open_copies(self.files, ["input_ids", "speech_ids"])
        self.input_ids, self.speech_ids = Ragged(table["input_ids"]), Ragged(table["speech_ids"])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("input_ids", "speech_ids")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._map()

    def column(self, name: str, places: np.ndarray) -> list[Any]:
        """What a column of `codes.SCHEMA` says of the pairs at these places. Chunk by chunk: Arrow cannot join large ones."""
        rows, column = self.rows_N[places], open_copies(self.files, [name])[name]
        starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])
        chunk_of, found = np.searchsorted(starts, rows, side="right") - 1, np.empty(len(rows), dtype=object)
        for number in np.unique(chunk_of):
            here = chunk_of == number
            found[here] = column.chunk(number).take(pa.array(rows[here] - starts[number])).to_pylist()
        return found.tolist()

    def __len__(self) -> int:
        return len(self.rows_N)

    def __getitem__(self, place: int) -> Pair:
        row = int(self.rows_N[place])
        return {
            "input_ids": self.input_ids[row],
            "speech_ids": self.speech_ids[row],
            "finished": bool(self.finished_N[place]),
        }
