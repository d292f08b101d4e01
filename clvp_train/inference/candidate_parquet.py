"""Candidates in a Parquet file to the same file with scores. Shapes: N rows, T text length, S speech length."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clvp_train.corpus.tables import BUFFER_BYTES
from clvp_train.errors import UserError
from clvp_train.inference.reranker import Reranker
from clvp_train.pairs.storage import Storage

ADDED = {"score": pa.float64(), "percentile": pa.float64(), "rank": pa.int32()}
MADE_FROM = b"clvp_train.rerank"  # in the metadata of a written file: what shaped it, as JSON
ROWS_SCORED, ROWS_COPIED = 1024, 8192  # at once


class CandidateFile:
    """A file with one candidate a row. Some of its rows are held at a time, and of all of them the scores.

    Args:
        path: with columns `speech_ids`, `text` or `input_ids`, and perhaps `finished`.
        reranker: scores them. Where the file has both, its tokenizer reads `text`; without one `input_ids` are taken.

    Raises:
        UserError: the file cannot be read, lacks a column, or has one that is to be added.
    """

    def __init__(self, path: Path, reranker: Reranker) -> None:
        self.path, self.reranker = path, reranker
        try:
            with pq.ParquetFile(path) as file:
                self.schema, self.num_rows = file.schema_arrow, file.metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from None
        reads_text = "text" in self.schema.names and reranker.tokenizer is not None
        self.text_column = "text" if reads_text else "input_ids"
        self._check_columns()

    def scores(self, on_candidate: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) scores, float64, and (N,) numbers of the rows' texts, the same for equal texts.

        Args:
            on_candidate: called after each with its number of codes.

        Raises:
            UserError: a row has no text or no codes, or some that the model does not know.
        """
        scores_N, texts_N = np.empty(self.num_rows), np.empty(self.num_rows, dtype=np.int64)
        numbers = dict[Any, int]()
        optional = ["finished"] if "finished" in self.schema.names else []
        for start, batch in self._batches(ROWS_SCORED, [self.text_column, "speech_ids", *optional]):
            keys = [_key(text) for text in self._cells(batch, start, self.text_column)]
            texts = dict[Any, torch.Tensor]()
            for row, key in enumerate(keys):
                if key not in texts:
                    texts[key] = self.reranker.text_ids(key, f"{self._row(start + row)}: {self.text_column}")
            speech = [
                self.reranker.speech_ids(np.array(codes.values), f"{self._row(start + row)}: speech_ids")
                for row, codes in enumerate(self._cells(batch, start, "speech_ids"))
            ]
            finished = batch["finished"].fill_null(True).to_pylist() if optional else [True] * len(batch)
            rows = slice(start, start + len(batch))
            texts_N[rows] = [numbers.setdefault(key, len(numbers)) for key in keys]
            scores_N[rows] = self.reranker.scores([texts[key] for key in keys], speech, finished)
            for codes_S in speech:
                on_candidate(len(codes_S))
        return scores_N, texts_N

    def write(self, storage: Storage, added: dict[str, pa.Array], made_from: dict[str, Any]) -> None:
        """Writes the file with the columns of `ADDED`, (N,) each, whole or not at all.

        Args:
            storage: the folder that it is written into, under its own name.
            added: the columns.
            made_from: what shaped them, see `made_from`.

        Raises:
            UserError: the file cannot be read any more, or the folder not be written to.
        """
        # `datasets` would take the columns from its own entry, which lacks the new ones
        kept = {name: value for name, value in (self.schema.metadata or {}).items() if name != b"huggingface"}
        fields = [*self.schema, *(pa.field(name, kind) for name, kind in ADDED.items())]
        schema = pa.schema(fields, kept | {MADE_FROM: json.dumps(made_from).encode()})
        with storage.replacing(self.path.name) as partial, pq.ParquetWriter(partial, schema) as writer:
            for start, batch in self._batches(ROWS_COPIED):
                columns = [*batch.columns, *(added[name].slice(start, len(batch)) for name in ADDED)]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    def _batches(self, rows: int, columns: list[str] | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Some rows at a time, and the number of the first of them."""
        start = 0
        try:
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
                for batch in file.iter_batches(rows, columns=columns):
                    yield start, batch
                    start += len(batch)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from None

    def _cells(self, batch: pa.RecordBatch, start: int, name: str) -> pa.Array:
        """A column that must be known everywhere."""
        cells = batch[name]
        if cells.null_count:
            row = start + cells.is_valid().to_pylist().index(False)
            raise UserError(f"{self._row(row)}: {name} is null: give it a value, or leave the row out")
        return cells

    def _row(self, row: int) -> str:
        """What to call a row in messages, where the first is row 1."""
        return f"{self.path}, row {row + 1}"

    def _check_columns(self) -> None:
        names = self.schema.names
        if "text" in names and self.text_column not in names:
            raise UserError(
                f"{self.path} has no column 'input_ids', and {self.reranker.source} comes without a tokenizer for its texts: "
                "set reranker.tokenizer to a folder that holds one"
            )
        for name, missing in (("speech_ids", "'speech_ids'"), (self.text_column, "'text' or 'input_ids'")):
            if name not in names:
                raise UserError(f"{self.path}: no column {missing} (found: {', '.join(names) or 'none'}): give it one")
        for name in ADDED:
            if name in names:
                raise UserError(f"{self.path} has a column '{name}' already: rename or remove it")
        for field in self.schema:
            if field.name in (self.text_column, "speech_ids", "finished"):
                self._check_kind(field)

    def _check_kind(self, field: pa.Field) -> None:
        kind, types = field.type, pa.types
        if field.name == "text":
            fits, needed = types.is_string(kind) or types.is_large_string(kind), "strings"
        elif field.name == "finished":
            fits, needed = types.is_boolean(kind), "booleans"
        else:
            is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
            fits, needed = is_list and types.is_integer(kind.value_type), "lists of whole numbers"
        if not fits:
            raise UserError(f"{self.path}: column '{field.name}' holds {kind} where {needed} are needed: convert it")

    def _unreadable(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split())
        return UserError(f"{self.path} cannot be read as Parquet ({reason}): restore it, or make it again")


def ranks(scores_N: np.ndarray, texts_N: np.ndarray) -> np.ndarray:
    """(N,) places of the candidates among those of their text: 1 for the best, of equal ones for the first."""
    order_N = np.lexsort((-scores_N, texts_N))
    sorted_N, places_N = texts_N[order_N], np.arange(len(texts_N))
    ranks_N = np.empty(len(texts_N), dtype=np.int64)
    ranks_N[order_N] = places_N - np.searchsorted(sorted_N, sorted_N) + 1
    return ranks_N


def made_from(file: Path) -> dict[str, Any] | None:
    """What shaped a file that `CandidateFile.write` wrote; None of any other.

    Raises:
        UserError: it cannot be read.
    """
    try:
        metadata = pq.read_schema(file).metadata or {}
        return json.loads(metadata[MADE_FROM]) if MADE_FROM in metadata else None
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is damaged ({reason}): delete it, and run the same command again") from None


def _key(text: pa.Scalar) -> str | tuple[int, ...]:
    value = text.as_py()
    return value if isinstance(value, str) else tuple(value)
