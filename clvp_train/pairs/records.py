"""What is known of each finished shard while others are still being made: a small file a shard, written after it."""

import contextlib
import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from clvp_train.pairs.shards import Shard
from clvp_train.pairs.storage import Storage
from clvp_train.pairs.tally import Tally

RECORDS = ".progress"  # subfolder; gone when all shards are finished
Skipped = list[dict[str, Any]]  # {id, kind, reason, shard} each


class Records:
    """The records of a folder, by the shards' numbers. They are what resumed runs and other ranks go by.

    Args:
        storage: the folder of pairs.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._read: dict[int, tuple[Shard, Tally]] = {}

    def write(self, index: int, shard: Shard, tally: Tally, skipped: Skipped) -> None:
        """Says that a shard is finished. Raises UserError if the folder cannot be written to."""
        record = {"shard": asdict(shard), "tally": vars(tally), "skipped": skipped}
        self.storage.write(_name(index), json.dumps(record).encode())

    def refresh(self) -> dict[int, tuple[Shard, Tally]]:
        """The shards finished so far, by this process or another, and what they hold."""
        there = {int(name.removesuffix(".json")) for name in self.storage.sizes(RECORDS) if name.endswith(".json")}
        for index in there - set(self._read):
            with contextlib.suppress(FileNotFoundError):  # the first rank has joined and removed them meanwhile
                record = json.loads(self.storage.read(_name(index)))
                self._read[index] = Shard(**record["shard"]), _tally(record["tally"])
        self._read = {index: record for index, record in self._read.items() if index in there}
        return self._read

    def skipped(self, index: int) -> Skipped:
        """What was left out of a finished shard."""
        return json.loads(self.storage.read(_name(index)))["skipped"]

    def remove(self) -> None:
        self.storage.remove(RECORDS)


def _tally(values: dict[str, Any]) -> Tally:
    counts = {name: Counter(values[name]) for name in ("utterances", "pairs", "skipped")}
    lengths = Counter({int(length): count for length, count in values["lengths"].items()})
    return Tally(lengths=lengths, unfinished=values["unfinished"], **counts)


def _name(index: int) -> str:
    return f"{RECORDS}/{index:05d}.json"
