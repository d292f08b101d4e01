"""Copies of shards of which only some are on the disk at a time, for pairs that are larger than it.

A file for each copy stays on the disk, with everything except the text tokens and codes of training pairs.
The copies themselves are made of the shards again when they are needed.

Shapes: P parts, which are the shards that share a copy.
"""

import logging
import os
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import constants

from clvp_train.errors import UserError
from clvp_train.io import in_turn, is_abandoned
from clvp_train.pairs.reader import (
    MAX_COPIES,
    check_complete,
    copy_name,
    grouped,
    is_intact,
    open_copies,
    shard_rows,
    write_copy,
)
from clvp_train.pairs.schema import SCHEMA, read_manifest
from clvp_train.pairs.storage import Storage

IDS = ("input_ids", "speech_ids")
TRIES = 3
SIZE = "bytes of the copy"  # in the metadata of a file that is kept
log = logging.getLogger(__name__)


class CopyCache:
    """The Arrow copies of the shards of a folder, as many of them as `max_bytes` allow. They are in clvp_train/cache of the
    Hugging Face cache (HF_HOME), and all processes of a machine share them and the limit.

    All shards are read once to make the files that are kept. Processes fetch and delete in turn, so a shard is fetched once for
    all of them. A copy that is deleted while a process maps it takes space until that process has opened others.

    Args:
        folder: of pairs, a path or any fsspec URL.
        max_bytes: of the copies, without the files that are kept.

    Attributes:
        files: the files that are kept, for `open_copies`. The ids of training pairs are null.
        starts_P: the number of the first row of each part, and of all rows at the end.
        window: how many parts fit into half of the limit, so that the next ones can be fetched before these are deleted.

    Raises:
        UserError: as `arrow_copies`, or two copies do not fit.
    """

    def __init__(self, folder: Path | str, max_bytes: float) -> None:
        self.source, self.manifest, self.max_bytes = folder, read_manifest(folder), max_bytes
        check_complete(Storage(folder), self.manifest)
        shards = self.manifest.shards
        self.shards = grouped(shards, max(1, sum(shard.bytes for shard in shards) // MAX_COPIES))
        self.folder = Path(constants.HF_HOME) / "clvp_train" / "cache"
        self.copies = [self.folder / copy_name(part) for part in self.shards]
        self.files = [self.folder / "kept" / copy.name for copy in self.copies]
        missing = [part for part, file in enumerate(self.files) if not is_intact(file)]
        if missing:
            num_shards = sum(len(self.shards[part]) for part in missing)
            log.info("%s: reading %d shards, which every epoch reads again", folder, num_shards)
        random.Random().shuffle(missing)  # the global generator has the same seed on all ranks
        for part in missing:
            with in_turn(self.folder):
                if not is_intact(self.files[part]):
                    self._fetch(part)
        self.starts_P = np.cumsum([0, *(len(open_copies([file])) for file in self.files)])
        largest = max([1, *map(_size_of_copy, self.files)])
        self.window = int(max_bytes / 2 // largest)
        if not self.window:
            raise UserError(
                f"data.cache_gb={max_bytes / 1e9:g}: less than two copies of {folder}, the largest of which takes "
                f"{largest / 1e9:.3g} GB. Set at least {2.01 * largest / 1e9:.3g}."
            )
        log.info(
            "%s: training draws from %d of %d copies at a time",
            folder,
            min(self.window, len(self.copies)),
            len(self.copies),
        )

    def open(self, part: int) -> pa.Table:
        """The ids of a part, memory-mapped, after its copy is made if necessary. Raises UserError as `arrow_copies` does."""
        copy = self.copies[part]
        for _ in range(TRIES):
            with in_turn(self.folder):
                if not is_intact(copy):
                    self._fetch(part)
                with suppress(FileNotFoundError):  # deleted by another machine that shares the folder
                    os.utime(copy)
                    return open_copies([copy], IDS)
        raise UserError(
            f"{copy}: deleted again and again. Set HF_HOME to a folder of this machine, or raise data.cache_gb."
        )

    def _fetch(self, part: int) -> None:
        storage = Storage(self.source)  # opened in this process: connections do not survive a fork
        tables = [table for shard in self.shards[part] for table in shard_rows(storage, shard, self.manifest)]
        num_bytes = sum(table.nbytes for table in tables)
        if not is_intact(self.files[part]):
            write_copy(self.files[part], map(_without_training_ids, tables), {SIZE: str(num_bytes)})
        self._make_room(num_bytes)
        write_copy(self.copies[part], tables)

    def _make_room(self, num_bytes: int) -> None:
        """Deletes the copies that were opened longest ago, whichever folder they belong to, and what killed processes left."""
        for partial in self.folder.rglob(".*.partial"):
            if is_abandoned(partial.name):
                partial.unlink(missing_ok=True)
        found = []
        for copy in self.folder.glob("*.arrow"):
            with suppress(FileNotFoundError):
                found.append((copy.stat().st_mtime_ns, copy.stat().st_size, copy))
        free = self.max_bytes - sum(size for _, size, _ in found)
        for _, size, copy in sorted(found):
            if free >= num_bytes:
                return
            copy.unlink(missing_ok=True)
            copy.with_suffix(".sha256").unlink(missing_ok=True)
            free += size


def _without_training_ids(table: pa.Table) -> pa.Table:
    is_train = pc.equal(table["split"], "train")
    for name in IDS:
        ids = pc.if_else(is_train, pa.scalar(None, SCHEMA.field(name).type), table[name])
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), ids)
    return table


def _size_of_copy(file: Path) -> int:
    with pa.memory_map(str(file)) as source:
        return int(pa.ipc.open_file(source).schema.metadata[SIZE.encode()])
