"""Rows of CSV, TSV, JSONL, Parquet and Arrow tables, and what an audio cell of theirs holds."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from clvp_train.corpus.files import read_lines
from clvp_train.errors import UserError

ARROW_BATCH_ROWS = 64  # rows with audio bytes are some 100 kB each
BUFFER_BYTES = 2**20  # of a column that is read from Parquet

Table = Iterator[tuple[str, dict[str, object]]]
"""(where, column -> cell) of each row."""


def require_columns(where: str, found: Iterable[str], needed: Iterable[str], mend: str) -> None:
    """Raises a UserError that lists the columns found if one of those needed is not among them."""
    found = list(found)
    for column in needed:
        if column not in found:
            raise UserError(f"{where}: no column '{column}' (found: {', '.join(found) or 'none'}): {mend}")


def csv_rows(path: Path, needed: Iterable[str], mend: str) -> Table:
    """Rows of a .csv with a header and quotes as spreadsheets write them."""
    return _delimited_rows(path, needed, mend, delimiter=",", strict=True)


def tsv_rows(path: Path, needed: Iterable[str], mend: str) -> Table:
    """Rows of a .tsv with a header; quotes are plain characters."""
    return _delimited_rows(path, needed, mend, delimiter="\t", quoting=csv.QUOTE_NONE)


def _delimited_rows(path: Path, needed: Iterable[str], mend: str, **dialect) -> Table:
    reader = csv.reader((line for _, line in read_lines(path)), **dialect)
    header, start = None, 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise UserError(f"{path}, line {start}: malformed ({error}): mend the quotes of this row") from None
        where, start = f"{path}, line {start}", reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            require_columns(str(path), header, needed, mend)
        elif len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} fields, but the header has {len(header)}: mend the row's separators or quotes"
            )
        else:
            yield where, dict(zip(header, cells, strict=True))


def json_rows(path: Path, needed: Iterable[str], mend: str) -> Table:
    """Objects of a .jsonl, one a line."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(f"{where}: malformed JSON ({reason}): write one JSON object a line") from None
        if not isinstance(cells, dict):
            raise UserError(f"{where}: not a JSON object: write one JSON object a line")
        require_columns(where, cells, needed, mend)
        yield where, cells


def parquet_rows(path: Path, needed: Iterable[str], mend: str, optional: Iterable[str] = ()) -> Table:
    """Rows of a .parquet; only the columns named are read."""
    try:
        # by default pyarrow keeps all that it has read of the file until its end
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
            require_columns(str(path), file.schema_arrow.names, needed, mend)
            columns = [*needed, *(name for name in optional if name in file.schema_arrow.names)]
            yield from arrow_rows(str(path), file.iter_batches(ARROW_BATCH_ROWS, columns=columns))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"file {path} cannot be read as Parquet ({reason}): write it again") from None


def arrow_rows(source: str, batches: Iterable[pa.RecordBatch | pa.Table]) -> Table:
    """Rows of Arrow batches; binary and struct cells stay Arrow scalars: audio bytes are copied only when asked for."""
    number = 0
    for batch in batches:
        columns = {}
        for name in batch.column_names:
            column, kind = batch.column(name), batch.schema.field(name).type
            lazy = pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
            columns[name] = column if lazy else column.to_pylist()
        for index in range(batch.num_rows):
            number += 1
            yield f"{source}, row {number}", {name: column[index] for name, column in columns.items()}


def audio_of(where: str, cell: object, folder: Path | None) -> str | Callable[[], bytes]:
    """The path, or the fetcher of bytes, in an audio cell: a path, bytes, or the `{bytes, path}` struct of `datasets`.

    Args:
        where: file and row, for messages.
        cell: the cell's value.
        folder: what relative paths start from; None leaves them alone.
    """
    if isinstance(cell, pa.BinaryScalar) and cell.is_valid:
        return cast(Callable[[], bytes], cell.as_py)
    if isinstance(cell, bytes):
        held_bytes = cell
        return lambda: held_bytes
    if isinstance(cell, pa.StructScalar | dict):
        held = cell.get("bytes") if isinstance(cell, dict) else _member(cell, "bytes")
        if isinstance(held, pa.BinaryScalar) and held.is_valid:
            return cast(Callable[[], bytes], held.as_py)
        if isinstance(held, str):
            raise UserError(f"{where}: JSON holds no audio bytes: give the path of the audio file, or write Parquet")
        path = cell.get("path") if isinstance(cell, dict) else _member(cell, "path")
        cell = path.as_py() if isinstance(path, pa.Scalar) else path
    if isinstance(cell, pa.Scalar):
        cell = cell.as_py()
    if isinstance(cell, str) and cell.strip():
        return str(folder / cell.strip()) if folder else cell.strip()
    if cell is None or cell == "":
        raise UserError(f"{where}: no audio: give its path or bytes, or remove the row")
    raise UserError(f"{where}: the audio is {type(cell).__name__}: give a path, or a struct of bytes and path")


def _member(struct: pa.StructScalar, name: str) -> pa.Scalar | None:
    return struct[name] if struct.is_valid and name in struct.type.names else None
