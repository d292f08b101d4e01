"""Candidates in Parquet files: reading, scoring, and writing with scores. Shapes: N rows, T text length, S speech length."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from clvp_train.corpus.tables import BUFFER_BYTES
from clvp_train.errors import UserError
from clvp_train.inference.reranker import Reranker, Text
from clvp_train.pairs.sources import MAX_WARNINGS
from clvp_train.pairs.storage import Storage
from clvp_train.tortoise.generation import Candidate

ADDED = {
    "score": pa.float64(),
    "percentile": pa.float64(),
    "voice_score": pa.float64(),
    "combined_score": pa.float64(),
    "rank": pa.int32(),
}
OPTIONAL = ("finished", "log_probability")
References = Mapping[str, torch.Tensor]  # (D,) of `Reranker.voice_embeddings`, by voice


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


TYPES: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {  # of other columns than ids
    "text": (_is_string, "strings"),
    "finished": (pa.types.is_boolean, "booleans"),
    "log_probability": (pa.types.is_floating, "floating-point numbers"),
    "voice": (_is_string, "strings"),
}
SOURCE_KEY = b"clvp_train.rerank"  # metadata of a written file: what its contents depend on, as JSON
log = logging.getLogger(__name__)
ROWS_SCORED, ROWS_COPIED = 1024, 8192  # at once


class Scores(NamedTuple):
    """What candidates are ranked by."""

    scores_N: np.ndarray  # cosine similarities of text and codes, float64; NaN for bad rows
    per_code_N: np.ndarray  # log-probabilities per code under the AR; NaN if unknown
    voice_N: np.ndarray  # similarities to the reference clips of the voice; NaN without any
    texts_N: np.ndarray  # numbers of the texts, the same for equal texts


class CandidateFile:
    """A Parquet file with one candidate per row. Some rows and all scores are in memory at a time.

    Args:
        path: has columns `speech_ids`, `text` or `input_ids`, and optionally `finished` and `log_probability`.
        reranker: scores the candidates. If the file has both, its tokenizer reads `text`; without one `input_ids` are used.
        references: of the voices, which the column `voice` names; None: voices are not compared.

    Raises:
        UserError: the file cannot be read, lacks a column, or already has one of `ADDED`.
    """

    def __init__(self, path: Path, reranker: Reranker, references: References | None = None) -> None:
        self.path, self.reranker, self.references = path, reranker, references
        try:
            with pq.ParquetFile(path) as file:
                self.schema, self.num_rows = file.schema_arrow, file.metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from None
        reads_text = "text" in self.schema.names and reranker.tokenizer is not None
        self.text_column = "text" if reads_text else "input_ids"
        self._check_columns()

    def scores(self, on_candidate: Callable[[int], None]) -> Scores:
        """Scores all candidates.

        A bad row has no text, no codes, or ids that the model does not know. It is logged.

        Args:
            on_candidate: called after each candidate with its number of codes.

        Raises:
            UserError: all rows are bad, or no voice has references.
        """
        scores_N, texts_N = np.full(self.num_rows, np.nan), np.empty(self.num_rows, dtype=np.int64)
        per_code_N, voice_N = np.full(self.num_rows, np.nan), np.full(self.num_rows, np.nan)
        numbers, bad, num_padded = dict[Any, int](), list[UserError](), 0
        optional = [name for name in OPTIONAL if name in self.schema.names]
        optional += [] if self.references is None else ["voice"]
        for start, batch in self._batches(ROWS_SCORED, [self.text_column, "speech_ids", *optional]):
            keys = [_key(text) for text in batch[self.text_column]]
            texts_N[start : start + len(batch)] = [numbers.setdefault(key, len(numbers)) for key in keys]
            pairs = self._pairs(keys, batch["speech_ids"], start, bad)
            if not pairs:
                continue
            rows, texts, speech = zip(*pairs)
            finished, lengths = np.full(len(rows), True), np.array([len(codes_S) for codes_S in speech])
            if "finished" in optional:
                finished = batch["finished"].fill_null(True).to_numpy(zero_copy_only=False)[list(rows)]
            good = start + np.array(rows)
            scores_N[good] = self.reranker.scores(texts, speech, finished.tolist())
            if "log_probability" in optional:
                values = batch["log_probability"].to_numpy(zero_copy_only=False)[list(rows)]
                per_code_N[good] = values / (lengths + finished)  # the stop token counts as a code
            if self.references is not None:
                voices = batch["voice"].take(pa.array(rows)).to_pylist()
                unknown_D = torch.full_like(next(iter(self.references.values())), torch.nan)
                voices_ND = torch.stack([self.references.get(voice, unknown_D) for voice in voices])
                voice_N[good] = self.reranker.voice_scores(voices_ND, speech, finished.tolist())
            stored = pc.list_value_length(batch["speech_ids"]).to_numpy(zero_copy_only=False)[list(rows)]
            num_padded += int((stored > lengths).sum())
            for length in lengths.tolist():
                on_candidate(length)
        self._report(bad, num_padded)
        self._report_voices(scores_N, voice_N)
        for values_N in (per_code_N, voice_N):
            values_N[np.isnan(scores_N)] = 0.0  # a bad row does not make its text one with unknown values
        return Scores(scores_N, per_code_N, voice_N, texts_N)

    def unfamiliar(self) -> list[Text]:
        """Returns the distinct texts that are unlike those of the training, without bad ones."""
        found = dict[Text, bool]()
        for _, batch in self._batches(ROWS_COPIED, [self.text_column]):
            for text in map(_key, batch[self.text_column]):
                if text is not None and text not in found:
                    with contextlib.suppress(UserError):
                        found[text] = self.reranker.is_unfamiliar(text)
        return [text for text, is_unfamiliar in found.items() if is_unfamiliar]

    def candidates(self) -> Iterator[tuple[Text, Candidate]]:
        """Yields the text and the codes of each row. Bad rows are logged and left out; an unknown log-probability is NaN.

        Raises:
            UserError: all rows are bad.
        """
        bad, optional = list[UserError](), [name for name in OPTIONAL if name in self.schema.names]
        for start, batch in self._batches(ROWS_SCORED, [self.text_column, "speech_ids", *optional]):
            keys = [_key(text) for text in batch[self.text_column]]
            columns = {name: batch[name].to_pylist() for name in optional}
            for row, _, codes_S in self._pairs(keys, batch["speech_ids"], start, bad):
                finished, log_probability = (columns[name][row] if name in columns else None for name in OPTIONAL)
                added = np.nan if log_probability is None else log_probability
                text = keys[row]
                assert text is not None  # a good row
                yield text, Candidate(tuple(codes_S.tolist()), finished is not False, added)
        self._report(bad, 0)

    def _pairs(
        self, keys: list[Any], codes: pa.Array, start: int, bad: list[UserError]
    ) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
        """The number in the batch, the token ids, and the codes of each good row. Errors of others are appended to `bad`."""
        texts, pairs = dict[Any, torch.Tensor](), list[tuple[int, torch.Tensor, torch.Tensor]]()
        for row, (key, cell) in enumerate(zip(keys, codes)):
            text_name, codes_name = (self._cell_name(start + row, name) for name in (self.text_column, "speech_ids"))
            try:
                for name, value in ((text_name, key), (codes_name, cell.values)):
                    if value is None:
                        raise UserError(f"{name} is null. Give it a value, or delete the row.")
                if key not in texts:
                    texts[key] = self.reranker.text_ids(key, text_name)
                pairs.append((row, texts[key], self.reranker.speech_ids(np.array(cell.values), codes_name)))
            except UserError as error:
                bad.append(error)
        return pairs

    def _report(self, bad: list[UserError], num_padded: int) -> None:
        """Logs what was left out. Raises UserError if all rows are bad."""
        if bad and len(bad) == self.num_rows:
            raise bad[0]
        for error in bad[:MAX_WARNINGS]:
            log.warning("skipped: %s", error)
        if len(bad) > MAX_WARNINGS:
            log.warning("%s: %d rows are skipped; their scores are null", self.path, len(bad))
        if num_padded:
            log.info("%s: start and stop tokens or padding removed from %d candidates", self.path, num_padded)

    def _report_voices(self, scores_N: np.ndarray, voice_N: np.ndarray) -> None:
        """Logs how many candidates have no references. Raises UserError if none has any."""
        num_good, num_compared = np.isfinite(scores_N).sum(), np.isfinite(voice_N).sum()
        if self.references is None or num_compared == num_good:
            return
        if not num_compared:
            known = ", ".join(map(str, list(self.references)[:5]))
            raise UserError(
                f"{self.path}: no voice of its candidates is among the references ({known}, …). Use the same names."
            )
        log.warning(
            "%s: %d candidates have a voice without references; voices do not count for their texts",
            self.path,
            num_good - num_compared,
        )

    def write(self, storage: Storage, added: dict[str, pa.Array], source: dict[str, Any]) -> None:
        """Writes the file with additional columns atomically.

        Args:
            storage: the folder that it is written to, under the same name.
            added: columns of `ADDED`, (N,) each.
            source: what the columns depend on, see `read_source`.

        Raises:
            UserError: the file can no longer be read, or the folder cannot be written to.
        """
        # drop the schema of `datasets`, which would omit the new columns
        kept = {name: value for name, value in (self.schema.metadata or {}).items() if name != b"huggingface"}
        fields = [*self.schema, *(pa.field(name, ADDED[name]) for name in added)]
        schema = pa.schema(fields, kept | {SOURCE_KEY: json.dumps(source).encode()})
        with (
            storage.replacing(self.path.name) as partial,
            pq.ParquetWriter(partial, schema, write_page_checksum=True) as writer,
        ):
            for start, batch in self._batches(ROWS_COPIED):
                columns = [*batch.columns, *(column.slice(start, len(batch)) for column in added.values())]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    def _batches(self, rows: int, columns: list[str] | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields the number of the first row with each batch."""
        start = 0
        try:
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
                for batch in file.iter_batches(rows, columns=columns):
                    yield start, batch
                    start += len(batch)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from None

    def _cell_name(self, row: int, column: str) -> str:
        """For messages, which count rows from 1."""
        return f"{self.path}, row {row + 1}: {column}"

    def _check_columns(self) -> None:
        names = self.schema.names
        if "text" in names and self.text_column not in names:
            raise UserError(
                f"{self.path}: no column 'input_ids', and {self.reranker.source} has no tokenizer to read 'text'. Set "
                "reranker.tokenizer to a folder with one."
            )
        for name, missing in (("speech_ids", "'speech_ids'"), (self.text_column, "'text' or 'input_ids'")):
            if name not in names:
                raise UserError(f"{self.path}: no column {missing} (columns: {', '.join(names) or 'none'}). Add it.")
        needed = () if self.references is None else ("voice",)
        if needed and "voice" not in names:
            raise UserError(
                f"{self.path}: no column 'voice', which names the references. Add it, or set references=null."
            )
        for name in ADDED:
            if name in names:
                raise UserError(f"{self.path}: already has a column '{name}'. Rename or remove it.")
        for field in self.schema:
            if field.name in (self.text_column, "speech_ids", *OPTIONAL, *needed):
                self._check_type(field)

    def _check_type(self, field: pa.Field) -> None:
        is_codes = field.name == "speech_ids"
        is_valid, expected = TYPES.get(
            field.name, (_is_list_of_numbers if is_codes else _is_list_of_integers, "lists of integers")
        )
        if not is_valid(field.type):
            raise UserError(f"{self.path}: column '{field.name}' has type {field.type}. Convert it to {expected}.")

    def _unreadable(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split())
        return UserError(f"{self.path}: cannot be read as Parquet ({reason}). Restore the file, or write it again.")


def ranks_in_text(scores_N: np.ndarray, texts_N: np.ndarray) -> np.ndarray:
    """Returns (N,) ranks of the candidates of each text: 1 for the highest score; the first of equal scores comes first,
    NaN last."""
    order_N = np.lexsort((-scores_N, texts_N))
    sorted_N = texts_N[order_N]
    ranks_N = np.empty(len(texts_N), dtype=np.int64)
    ranks_N[order_N] = np.arange(len(texts_N)) - np.searchsorted(sorted_N, sorted_N) + 1
    return ranks_N


def read_source(file: Path) -> dict[str, Any] | None:
    """Returns the `source` of a file that `CandidateFile.write` wrote; None for other files.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        metadata = pq.read_schema(file).metadata or {}
        return json.loads(metadata[SOURCE_KEY]) if SOURCE_KEY in metadata else None
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: corrupt ({reason}). Delete it, and run the same command again.") from None


def _is_list_of_integers(kind: pa.DataType) -> bool:
    return _is_list(kind) and pa.types.is_integer(kind.value_type)


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    return _is_list_of_integers(kind) or (_is_list(kind) and pa.types.is_floating(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _key(text: pa.Scalar) -> str | tuple[int, ...] | None:
    value = text.as_py()
    return tuple(value) if isinstance(value, list) else value
