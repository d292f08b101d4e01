"""Tables of audio paths and texts: CSV, TSV, JSONL, Parquet and Arrow, and the corpus that reads them."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from clvp_train.corpus.base import LocalCorpus, Row, read_lines
from clvp_train.errors import UserError

ARROW_BATCH_ROWS = 64  # a row with audio bytes takes about 100 kB
BUFFER_BYTES = 2**20  # of a column that is read from Parquet


class Columns(NamedTuple):
    """The columns that are read from a table."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]
    remedy: str  # if a needed one is missing


MANIFEST = Columns(
    ("audio", "text"), ("speaker", "id"), "Rename the columns to audio, text and, if present, speaker and id."
)
TableRows = Iterator[tuple[str, dict[str, object]]]
"""(where, column -> cell) of each row."""


@dataclass
class ManifestCorpus(LocalCorpus):
    """A manifest: a table with the columns `audio` and `text` and, optionally, `speaker` and `id`.

    Audio paths are relative to the folder of the manifest. In Parquet `audio` may also hold bytes or `{bytes, path}` structs.
    Without an `id` column the id is the relative audio path, or the row number for other paths and for bytes.

    Attributes:
        path: a .csv, .tsv, .jsonl or .parquet file; a .tsv has no quoting.
    """

    path: str
    setting: ClassVar[str] = "path"

    source_files = LocalCorpus._local_files

    def _rows(self) -> Iterator[Row]:
        path = self._existing()
        for number, (where, cells) in enumerate(read_table(path), start=1):
            audio = audio_of(where, cells["audio"], path.parent)
            id_ = cells["id"] if "id" in cells else _id_from(audio, path.parent, number)
            yield Row(where, id_, cells["text"], audio, cells.get("speaker"))


def _id_from(audio: object, folder: Path, number: int) -> str:
    if isinstance(audio, str) and Path(audio).is_relative_to(folder):
        return Path(audio).relative_to(folder).as_posix()
    return f"row-{number:06d}"


def read_table(path: Path, columns: Columns = MANIFEST) -> TableRows:
    """The rows of a .csv, .tsv, .jsonl or .parquet file. Raises UserError if it is malformed or lacks a needed column."""
    match path.suffix.lower():
        case ".csv":  # quoted as spreadsheets do
            return _delimited_rows(path, columns, delimiter=",", strict=True)
        case ".tsv":
            return _delimited_rows(path, columns, delimiter="\t", quoting=csv.QUOTE_NONE)
        case ".jsonl":
            return _json_rows(path, columns)
        case ".parquet":
            return _parquet_rows(path, columns)
    raise UserError(f"{path}: unknown suffix '{path.suffix}'. Use .csv, .tsv, .jsonl or .parquet.")


def count_rows(path: Path, columns: Columns) -> int:
    """The number of rows of `read_table`. Raises UserError if the file is malformed or its header lacks a needed column."""
    if path.suffix.lower() == ".jsonl":  # without parsing
        return sum(1 for _, line in read_lines(path) if line.strip())
    if path.suffix.lower() == ".parquet":
        with _opened(path, columns) as file:
            return file.metadata.num_rows
    return sum(1 for _ in read_table(path, columns))


def require_columns(where: str, columns: Iterable[str], needed: Iterable[str], remedy: str) -> None:
    """Raises UserError with the list of columns if a needed one is missing."""
    columns = list(columns)
    for column in needed:
        if column not in columns:
            raise UserError(f"{where}: no column '{column}' (columns: {', '.join(columns) or 'none'}). {remedy}")


def _delimited_rows(path: Path, columns: Columns, **dialect: Any) -> TableRows:
    reader = csv.reader((line for _, line in read_lines(path)), **dialect)
    header, start = None, 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise UserError(f"{path}, line {start}: malformed ({error}). Correct the quotes of this row.") from None
        where, start = f"{path}, line {start}", reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            require_columns(str(path), header, columns.needed, columns.remedy)
        elif len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} fields, but the header has {len(header)}. Correct the separators or quotes."
            )
        else:
            yield where, dict(zip(header, cells, strict=True))


def _json_rows(path: Path, columns: Columns) -> TableRows:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(f"{where}: malformed JSON ({reason}). Write one JSON object per line.") from None
        if not isinstance(cells, dict):
            raise UserError(f"{where}: not a JSON object. Write one JSON object per line.")
        require_columns(where, cells, columns.needed, columns.remedy)
        yield where, cells


def _parquet_rows(path: Path, columns: Columns) -> TableRows:
    with _opened(path, columns) as file:
        present = [name for name in (*columns.needed, *columns.optional) if name in file.schema_arrow.names]
        yield from arrow_rows(str(path), file.iter_batches(ARROW_BATCH_ROWS, columns=present))


@contextmanager
def _opened(path: Path, columns: Columns) -> Iterator[pq.ParquetFile]:
    try:
        # by default pyarrow keeps everything it has read of the file until it is closed
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
            require_columns(str(path), file.schema_arrow.names, columns.needed, columns.remedy)
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{path}: cannot be read as Parquet ({reason}). Write the file again.") from None


def arrow_rows(source: str, batches: Iterable[pa.RecordBatch | pa.Table]) -> TableRows:
    """Rows of Arrow batches. Binary and nested cells stay Arrow scalars, so that audio bytes and codes are copied only on
    demand."""
    number = 0
    for batch in batches:
        columns = {}
        for name in batch.column_names:
            column, kind = batch.column(name), batch.schema.field(name).type
            lazy = pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
            columns[name] = column if lazy else column.to_pylist()
        for index in range(batch.num_rows):
            number += 1
            yield f"{source}, row {number}", {name: column[index] for name, column in columns.items()}


def audio_of(where: str, cell: object, folder: Path | None) -> str | Callable[[], bytes]:
    """The path in an audio cell, or a function that returns its bytes.

    Args:
        where: file and row, for messages.
        cell: a path, bytes, or the `{bytes, path}` struct of `datasets`.
        folder: base of relative paths; None leaves them unchanged.
    """
    if isinstance(cell, pa.StructScalar):
        cell = {name: cell[name] for name in cell.type.names} if cell.is_valid else None
    held, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, cell)
    if isinstance(held, pa.BinaryScalar) and held.is_valid:
        return cast(Callable[[], bytes], held.as_py)
    if isinstance(held, bytes):
        return lambda: held
    if isinstance(cell, dict) and isinstance(held, str):
        raise UserError(f"{where}: audio bytes in JSON. Write the path of an audio file, or use Parquet.")
    path = path.as_py() if isinstance(path, pa.Scalar) else path
    if isinstance(path, str) and path.strip():
        return str(folder / path.strip()) if folder else path.strip()
    if path is None or path == "":
        raise UserError(f"{where}: no audio. Add its path or bytes, or remove the row.")
    raise UserError(f"{where}: the audio is of type {type(path).__name__}. Use a path or a struct of bytes and path.")
