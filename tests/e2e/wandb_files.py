"""Reads what W&B's client writes: a `.wandb` file is a log of LevelDB's kind, whose records are its protobuf messages."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

MAGIC, BLOCK, HEADER = b":W&B\xe1\xbe\x00", 32_768, 7  # a header is checksum, length and kind
FULL, LAST = 1, 4  # kinds of fragments that end a record


def records(folder: Path) -> Iterator[Record]:
    """Those of a `run-…` or `offline-run-…` folder, in order."""
    (file,) = folder.glob("*.wandb")
    data, place, record = file.read_bytes(), HEADER, b""
    assert data.startswith(MAGIC)
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (FULL, LAST):
            yield Record.FromString(record)
            record = b""


def rows(folder: Path) -> list[dict[str, Any]]:
    """The history."""
    histories = [record.history for record in records(folder) if record.WhichOneof("record_type") == "history"]
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in history.item}
        for history in histories
    ]


def of_kind(folder: Path, kind: str) -> list[Any]:
    """All records of one kind, such as "run" or "artifact"."""
    return [getattr(record, kind) for record in records(folder) if record.WhichOneof("record_type") == kind]
