"""Folders of pairs as `pairs.generate` writes them, without drawing codes."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clvp_train.pairs import SCHEMA, Manifest, Shard, Storage, write_manifest
from clvp_train.pairs.schema import shard_name

VOCABULARY = 32


def pair(number: int) -> dict[str, Any]:
    """A row of `SCHEMA`."""
    return {
        "id": f"a/{number}",
        "text": f"Grüße, {number}",
        "split": ("train", "val", "test")[number % 3],
        "input_ids": list(range(max(number, 1))),
        "speech_ids": [7] * (number + 1),
        "voice": "v",
        "candidate": number % 2,
        "finished": number % 2 == 0,
        "log_probability": -number / 2,
        "seed": 2**48 - number,
        "quality": -number / 4 if number % 2 else None,
    }


def write_folder(
    folder: Path | str, shards: list[list[dict[str, Any]]], schema: pa.Schema = SCHEMA, **changes: Any
) -> Path | str:
    """Writes one shard per list of rows, and a manifest with the given changes."""
    written = []
    for index, rows in enumerate(shards):
        name, sink = shard_name(index, len(shards)), io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
        content = sink.getvalue()
        Storage(folder).write(name, content)
        written.append(Shard(name, len(rows), len(content), hashlib.sha256(content).hexdigest()))
    settings = {"fingerprint": "f", "corpus": "corpus", "source": "ar", "num_shards": len(shards), "tortoise": "none"}
    settings |= {"text_vocab_size": VOCABULARY, "speech_vocab_size": VOCABULARY, "complete": True}
    write_manifest(folder, Manifest(**settings | {"shards": tuple(written)} | changes))
    return folder
