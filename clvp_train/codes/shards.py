"""Pairs on disk: a folder of Parquet shards, each written whole or not at all, and a manifest.

Any tool that reads Parquet opens them, `datasets.load_dataset("parquet", data_files="FOLDER/*.parquet")` for one.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clvp_train.errors import UserError

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"  # subfolder: the tokenizer that made the text tokens
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
        "seed": pa.int64(),
    }
)


@dataclass(frozen=True)
class Manifest:
    """What a folder of pairs holds."""

    fingerprint: str  # of corpus, codes' source and splits
    corpus: str
    source: str  # "ar" or "dvae"
    num_shards: int
    text_vocab_size: int
    speech_vocab_size: int
    tortoise: str  # the folder that the codes were made with


def shard_path(folder: Path, index: int, count: int) -> Path:
    return folder / f"pairs-{index:05d}-of-{count:05d}.parquet"


def write_shard(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes beside the final place and moves it there, so that a kill leaves no half shard."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial)
    partial.replace(path)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    partial = folder / f".{MANIFEST}.{os.getpid()}.partial"
    partial.write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    partial.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Raises UserError if the folder holds no manifest, or a damaged one."""
    file = folder / MANIFEST
    if not file.exists():
        raise UserError(f"{folder} holds no {MANIFEST}: give a folder that `python -m clvp_train.generate` wrote")
    try:
        return Manifest(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}): delete it and run the same command again") from None


def read_pairs(folder: Path) -> pa.Table:
    """All pairs of a folder.

    Raises:
        UserError: a shard is missing or damaged.
    """
    manifest = read_manifest(folder)
    tables = []
    for index in range(manifest.num_shards):
        path = shard_path(folder, index, manifest.num_shards)
        try:
            tables.append(pq.read_table(path).select(SCHEMA.names).cast(SCHEMA))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise UserError(
                f"{path} is missing or damaged ({error}): delete it and run the same command again"
            ) from None
    return pa.concat_tables(tables)
