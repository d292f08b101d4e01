"""Pairs read by memory map, so that those larger than memory train.

Parquet cannot be mapped, so each shard is copied once to Arrow's own file format. `datasets` would do so too, but takes
folder names for patterns, keeps a remote shard twice, goes stale where a file system tells no time of change, and does not say
which shard is damaged. Copies are named by the shard's SHA-256, hence never stale, and moved into place whole. So ranks need no
lock, which network file systems often lack: each copies what is missing in a random order of its own.
"""

import fnmatch
import logging
import os
import random
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import constants

from clvp_train.errors import UserError
from clvp_train.pairs.manifest import Manifest, read_manifest
from clvp_train.pairs.shards import PATTERN, SCHEMA
from clvp_train.pairs.storage import Storage

ROWS_AT_ONCE = 8192  # of a shard, while it is copied
MEND = "delete it and run the same generate command again"
log = logging.getLogger(__name__)


def read_pairs(folder: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """All pairs of a folder, memory-mapped, in the order of the shards. The first call copies the shards, see `arrow_copies`.

    Args:
        folder: that `codes.generate` wrote, a path or any fsspec URL.
        columns: of `SCHEMA`; all of them by default.

    Raises:
        UserError: see `arrow_copies`.
    """
    return open_copies(arrow_copies(folder), columns)


def open_copies(files: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """Maps what `arrow_copies` returned; quick, for it reads no row."""
    tables = [SCHEMA.empty_table()]
    for file in files:
        try:
            with pa.memory_map(str(file)) as source:
                tables.append(pa.ipc.open_file(source).read_all())
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file} is damaged ({error}): delete it and run again") from None
    return pa.concat_tables(tables).select(columns or SCHEMA.names)


def arrow_copies(folder: Path | str) -> list[Path]:
    """The shards as files that can be mapped, copied now if they have not been. They lie in FOLDER/.arrow and may be deleted
    whenever nobody trains; those of a remote or read-only folder lie in clvp_train/ of the Hugging Face cache (HF_HOME).

    Raises:
        UserError: the folder is unfinished, a shard is missing or damaged, or a copy cannot be written.
    """
    storage, manifest = Storage(folder), read_manifest(folder)
    check_complete(storage, manifest)
    own = storage.local is not None and os.access(storage.local, os.W_OK)
    cache = storage.local / ".arrow" if own else Path(constants.HF_HOME) / "clvp_train"
    copies = {cache / f"{Path(shard.name).stem}-{shard.sha256[:16]}.arrow": shard for shard in manifest.shards}
    missing = [copy for copy in copies if not copy.exists()]
    if missing:
        log.info("copying %d shards to %s, once", len(missing), cache)
    random.Random().shuffle(missing)  # not the global generator, which is seeded the same on all ranks
    for copy in missing:
        if not copy.exists():  # another rank was quicker
            _write(copy, _rows(storage, copies[copy].name))
    return list(copies)


def check_complete(storage: Storage, manifest: Manifest) -> None:
    """Raises UserError unless all shards of a finished folder are there in their size."""
    sizes = storage.sizes()
    if not manifest.complete:
        raise UserError(
            f"{storage.folder} is not finished, {len(fnmatch.filter(sizes, PATTERN))} of {manifest.num_shards} shards are "
            "there: run the same generate command again"
        )
    for shard in manifest.shards:
        path, size = storage.path(shard.name), sizes.get(shard.name)
        if size is None:
            raise UserError(f"{path} is missing: run the same generate command again")
        if size != shard.bytes:
            raise UserError(f"{path} is damaged ({size} bytes, not {shard.bytes}): {MEND}")


def _rows(storage: Storage, name: str) -> Iterator[pa.Table]:
    try:
        shard = pq.ParquetFile(pa.BufferReader(storage.read(name)))
        for batch in shard.iter_batches(ROWS_AT_ONCE):
            yield pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{storage.path(name)} is damaged ({' '.join(str(error).split())}): {MEND}") from None


def _write(copy: Path, tables: Iterator[pa.Table]) -> None:
    partial = copy.with_name(f".{copy.name}.{uuid.uuid4().hex}.partial")
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
                for table in tables:
                    writer.write_table(table)
            partial.replace(copy)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{copy} cannot be written ({error}): make room for it there, and run again") from None
