"""Folders of pairs as `codes.generate` leaves them, without drawing a code."""

import hashlib
import io
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from clvp_train.pairs.manifest import Manifest, write_manifest
from clvp_train.pairs.shards import SCHEMA

VOCABULARY = 32


def write_folder(
    folder: Path | str, shards: list[list[dict[str, Any]]], schema: pa.Schema = SCHEMA, **changes: Any
) -> Path | str:
    """One shard for each list of rows, and a manifest of them with these changes."""
    filesystem, root = fsspec.core.url_to_fs(str(folder))
    filesystem.makedirs(root, exist_ok=True)
    held = []
    for index, rows in enumerate(shards):
        name, sink = f"pairs-{index:05d}-of-{len(shards):05d}.parquet", io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
        content = sink.getvalue()
        filesystem.pipe_file(f"{root}/{name}", content)
        held.append(
            {"name": name, "rows": len(rows), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        )
    settings = {"fingerprint": "f", "corpus": "corpus", "source": "ar", "num_shards": len(shards), "tortoise": "none"}
    settings |= {"text_vocab_size": VOCABULARY, "speech_vocab_size": VOCABULARY, "complete": True, "shards": held}
    write_manifest(folder, Manifest(**settings | changes))
    return folder
