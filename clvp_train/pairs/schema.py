"""The on-disk format of a folder of pairs: Parquet shards and `manifest.json`.

`datasets.load_dataset("FOLDER")` opens the shards, and so does any other reader of Parquet.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clvp_train.errors import UserError
from clvp_train.pairs.storage import Storage

MANIFEST = "manifest.json"
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
        "finished": pa.bool_(),  # false: the AR reached its maximum number of codes
        "log_probability": pa.float32(),  # in nats, of the codes and the stop under the AR; null for recordings
        "seed": pa.int64(),  # null for recordings
        "quality": pa.float32(),  # by the judge in codes.judge, higher is better; null where nothing was judged
    }
)
ADDED = ("quality",)  # columns that older folders lack, which then are null


@dataclass(frozen=True)
class Shard:
    """A written shard, as listed in the manifest."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`, written before the first shard and again after the last one."""

    fingerprint: str  # SHA-256 of `settings`
    corpus: str  # name of the corpus
    source: str  # name of the source of the codes: "ar", "dvae", "stored", …
    num_shards: int
    text_vocab_size: int
    speech_vocab_size: int
    tortoise: str  # folder or name of the Tortoise that made the codes
    settings: dict[str, Any] = field(default_factory=dict)  # everything that determines the pairs
    versions: dict[str, str] = field(default_factory=dict)  # of this package and torch
    complete: bool = False
    shards: tuple[Shard, ...] = ()  # in order; empty until complete
    report: dict[str, Any] = field(default_factory=dict)  # see `summary.Tally.report`; empty until complete


def shard_name(index: int, count: int) -> str:
    return f"pairs-{index:05d}-of-{count:05d}.parquet"


def write_shard(storage: Storage, name: str, rows: list[dict[str, Any]]) -> tuple[Shard, pa.Table]:
    """Writes rows of `SCHEMA` atomically. The same rows give the same bytes. Returns the table as well.

    Raises:
        UserError: the folder is not writable.
    """
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    data = buffer.getvalue()
    storage.write(name, data)
    return Shard(name, table.num_rows, len(data), hashlib.sha256(data).hexdigest()), table


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Raises UserError if the folder is not writable."""
    Storage(folder).write(MANIFEST, (json.dumps(asdict(manifest), indent=2) + "\n").encode())


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a folder, local or at an fsspec URL. Raises UserError if it is missing or damaged."""
    storage = Storage(folder)
    try:
        values = json.loads(storage.read(MANIFEST))
        return Manifest(**values | {"shards": tuple(Shard(**shard) for shard in values.get("shards", ()))})
    except FileNotFoundError:
        raise UserError(
            f"{folder}: contains no {MANIFEST}. Choose a folder written by `python -m clvp_train.generate`."
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{storage.path(MANIFEST)}: damaged ({error}). Restore it or generate the pairs in another folder."
        ) from None


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The settings that differ, by the names that a user types. A digest is listed only if no setting explains it."""
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    digests = {"corpus": "the corpus", "tortoise": "Tortoise's weights"}
    digests |= {"codes.voices": "the clips of codes.voices", "codes.path": "the file of codes.path"}
    digests |= {"codes.judge.recordings": "the recordings of codes.judge"}
    differing = [
        f"{name} ({old.get(name)} in the folder, {new.get(name)} now)" for name in names if name not in digests
    ]
    differing += [
        words
        for name, words in digests.items()
        if name in names and not (name == "tortoise" and any(other.startswith("tortoise.") for other in names))
    ]
    return differing
