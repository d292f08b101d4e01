"""One shard of pairs: a Parquet file that any tool opens.

`datasets.load_dataset("FOLDER")` reads a whole folder of them.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clvp_train.pairs.storage import Storage

PATTERN = "pairs-*.parquet"
SCHEMA = pa.schema(
    {
        "id": pa.string(),  # of the utterance
        "text": pa.string(),
        "split": pa.string(),  # train, val or test
        "input_ids": pa.list_(pa.int32()),  # text tokens
        "speech_ids": pa.list_(pa.int32()),  # speech codes, without a stop token
        "voice": pa.string(),
        "candidate": pa.int32(),  # 0 … K - 1
        "finished": pa.bool_(),  # False: the AR ran into its limit
        "log_probability": pa.float32(),  # in nats, of the codes and the stop, under the AR; null for recordings
        "seed": pa.int64(),  # null for recordings
    }
)


@dataclass(frozen=True)
class Shard:
    """A written shard, as the manifest lists it."""

    name: str
    rows: int
    bytes: int
    sha256: str


def shard_name(index: int, count: int) -> str:
    return f"pairs-{index:05d}-of-{count:05d}.parquet"


def write_shard(storage: Storage, name: str, rows: list[dict[str, Any]]) -> tuple[Shard, pa.Table]:
    """Writes rows of `SCHEMA`, whole or not at all; the same rows give the same bytes. Returns the table too.

    Raises:
        UserError: the folder cannot be written to.
    """
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    data = buffer.getvalue()
    storage.write(name, data)
    return Shard(name, table.num_rows, len(data), hashlib.sha256(data).hexdigest()), table
