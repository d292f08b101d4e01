"""Reads a folder of pairs by memory map, so that pairs larger than memory can be trained on.

Parquet cannot be mapped, so each shard is copied once to an Arrow file. `datasets` would do that too, but it interprets folder
names as patterns, stores a remote shard twice, reuses stale copies on file systems without modification times, and does not say
which shard is damaged. Copies are named by the SHA-256 of the shard, so they are never stale, and are written atomically. Hence
ranks need no lock, which network file systems often lack: each rank copies what is missing, in a random order.

A process may have 65 530 memory maps on Linux, and training takes several of each file: many small shards share a copy.

A shard is hashed, and its rows are checked, when it is copied; a copy is hashed whenever it is opened.
"""

import errno
import hashlib
import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import constants
from transformers import PreTrainedTokenizerBase

from clvp_train.errors import UserError
from clvp_train.io import atomic_write, write_text
from clvp_train.io.digests import check_digests, file_digest, recording_digests
from clvp_train.pairs.schema import ADDED, SCHEMA, Manifest, Shard, check_rows, read_manifest, shard_index
from clvp_train.pairs.storage import Storage
from clvp_train.tortoise.tokenizer import read_saved_tokenizer

TOKENIZER = "tokenizer"  # subfolder with the tokenizer of the text tokens, for the model trained on the pairs
ROWS_AT_ONCE = 8192  # of a shard, while it is copied
MAX_COPIES = 1024  # more shards than that share copies
MERGED_BYTES = 2**30  # of the shards in a shared copy
REMEDY = "Delete it and run the same generate command again."
log = logging.getLogger(__name__)


def read_pairs(folder: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """All pairs of a folder, memory-mapped, in the order of the shards. The first call copies the shards, see `arrow_copies`.

    Args:
        folder: written by `generate`, a path or any fsspec URL.
        columns: of `SCHEMA`; all by default.

    Raises:
        UserError: see `arrow_copies`.
    """
    return open_copies(arrow_copies(folder), columns)


def open_copies(files: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """Maps the files that `arrow_copies` returned, without reading rows."""
    tables = [SCHEMA.empty_table()]
    for file in files:
        try:
            with pa.memory_map(str(file)) as source:
                tables.append(pa.ipc.open_file(source).read_all())
        except (OSError, pa.ArrowException) as error:
            if getattr(error, "errno", None) == errno.ENOMEM:
                raise UserError(
                    f"{file}: cannot be mapped into memory, as this process has too many memory maps or too little address "
                    "space. Raise vm.max_map_count with sysctl, and check ulimit -v."
                ) from None
            raise UserError(f"{file}: damaged ({error}). Delete it and run again.") from None
    # copies of an older version lack the columns in ADDED, which become null
    return pa.concat_tables(tables, promote_options="default").select(columns or SCHEMA.names)


def arrow_copies(folder: Path | str) -> list[Path]:
    """The Arrow copies of the shards, which are written now if they are missing.

    They are in FOLDER/.arrow and may be deleted when no training runs; those of a remote or read-only folder are in clvp_train/
    of the Hugging Face cache (HF_HOME).

    Raises:
        UserError: the folder is incomplete, a shard is missing, damaged or has rows that cannot be trained on, or a copy
            cannot be written.
    """
    storage, manifest = Storage(folder), read_manifest(folder)
    check_complete(storage, manifest)
    own = storage.local is not None and os.access(storage.local, os.W_OK)
    cache = storage.local / ".arrow" if own else Path(constants.HF_HOME) / "clvp_train"
    copies = {cache / copy_name(shards): shards for shards in grouped(manifest.shards, MERGED_BYTES)}
    with ThreadPoolExecutor() as threads:  # hashing does not hold the GIL
        missing = [copy for copy, intact in zip(copies, threads.map(is_intact, copies)) if not intact]
    if missing:
        log.info("copying %d shards to %s", sum(len(copies[copy]) for copy in missing), cache)
        _check_space(cache, sum(shard.bytes for copy in missing for shard in copies[copy]))
    random.Random().shuffle(missing)  # the global generator has the same seed on all ranks
    for copy in missing:
        if not is_intact(copy):  # another rank may have written it
            write_copy(copy, (table for shard in copies[copy] for table in shard_rows(storage, shard, manifest)))
    return list(copies)


def _check_space(cache: Path, num_bytes: int) -> None:
    """Raises UserError if even the shards, which are smaller than their copies, do not fit onto the disk."""
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if num_bytes > free:
        raise UserError(
            f"{cache}: copies of the pairs take more than {num_bytes / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free. Free "
            "disk space, set data.cache_gb to keep a part of them only, or set HF_HOME to another disk for remote pairs."
        )


def grouped(shards: Sequence[Shard], most_bytes: int) -> list[list[Shard]]:
    """The shards of each copy, in order: one, or if there are many, as many as `most_bytes` hold."""
    if len(shards) <= MAX_COPIES:
        return [[shard] for shard in shards]
    groups: list[list[Shard]] = []
    size = most_bytes
    for shard in shards:
        if size + shard.bytes > most_bytes:
            groups.append([])
            size = 0
        groups[-1].append(shard)
        size += shard.bytes
    return groups


def copy_name(shards: Sequence[Shard]) -> str:
    (first, *others), digest = shards, shards[0].sha256
    if others:
        digest = hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()
    return f"{Path(first.name).stem}{f'-and-{len(others)}-more' if others else ''}-{digest[:16]}.arrow"


def check_complete(storage: Storage, manifest: Manifest) -> None:
    """Raises UserError unless the folder is complete and all shards have their recorded size."""
    sizes = storage.sizes()
    if not manifest.complete:
        found = {index for name in sizes if (index := shard_index(name)) is not None}
        raise UserError(
            f"{storage.folder}: incomplete, {len(found)} of {manifest.num_shards} shards. "
            "Run the same generate command again."
        )
    for shard in manifest.shards:
        path, size = storage.path(shard.name), sizes.get(shard.name)
        if size is None:
            raise UserError(f"{path}: missing. Run the same generate command again.")
        if size != shard.bytes:
            raise UserError(f"{path}: damaged ({size} bytes instead of {shard.bytes}). {REMEDY}")


def read_shard(storage: Storage, shard: Shard) -> bytes:
    """The bytes of a shard. Raises UserError if they cannot be read or do not have the recorded digest."""
    try:
        data = storage.read(shard.name)
    except OSError as error:
        raise UserError(f"{storage.path(shard.name)}: cannot be read ({error}). {REMEDY}") from None
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise UserError(f"{storage.path(shard.name)}: damaged (its SHA-256 is not that of the manifest). {REMEDY}")
    return data


def shard_rows(storage: Storage, shard: Shard, manifest: Manifest) -> Iterator[pa.Table]:
    """The rows of a shard, checked, some at a time. Raises UserError as `arrow_copies` does."""
    path, first_row = storage.path(shard.name), 0
    try:
        for batch in pq.ParquetFile(pa.BufferReader(read_shard(storage, shard))).iter_batches(ROWS_AT_ONCE):
            table = pa.Table.from_batches([batch])
            for name in set(ADDED).difference(table.column_names):
                table = table.append_column(name, pa.nulls(len(table)))
            table = table.select(SCHEMA.names).cast(SCHEMA)
            check_rows(table, first_row, manifest, path)
            first_row += len(table)
            yield table
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}). {REMEDY}") from None


def _digest_file(copy: Path) -> Path:
    return copy.with_suffix(".sha256")


def is_intact(copy: Path) -> bool:
    """Whether a copy has the digest that was written after it; earlier versions wrote none."""
    try:
        return file_digest(copy) == _digest_file(copy).read_text()
    except (OSError, ValueError):
        return False


def write_copy(copy: Path, tables: Iterable[pa.Table], metadata: dict[str, str] | None = None) -> None:
    """Writes rows of `SCHEMA`, then their digest. Raises UserError if there is no space."""
    try:
        with (
            atomic_write(copy) as partial,
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_file(sink, SCHEMA.with_metadata(metadata)) as writer,
        ):
            for table in _joined(tables):
                writer.write_table(table)
        write_text(_digest_file(copy), file_digest(copy))
    except OSError as error:
        raise UserError(f"{copy}: cannot be written ({error}). Free some disk space and run again.") from None


def _joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of at least `ROWS_AT_ONCE`: a part of a copy costs time and memory whenever it is opened, which
    exceeds those of its rows if a shard has ten of them."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += len(table)
        if rows >= ROWS_AT_ONCE:
            yield pa.concat_tables(held).combine_chunks()
            held, rows = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, storage: Storage) -> None:
    """Writes the tokenizer into a folder of pairs. Raises UserError if the folder is not writable."""
    with tempfile.TemporaryDirectory() as folder:
        with recording_digests(Path(folder)):
            tokenizer.save_pretrained(folder)
        for file in sorted(Path(folder).iterdir()):
            storage.write(f"{TOKENIZER}/{file.name}", file.read_bytes())


def copy_tokenizer(folder: str | Path, target: Path) -> None:
    """Copies the tokenizer of a folder of pairs, local or at an fsspec URL, into a local folder.

    Raises:
        UserError: there is no tokenizer, it is damaged, or the target is not writable.
    """
    storage, copy = Storage(folder), Storage(target)
    names = storage.sizes(TOKENIZER)
    if not names:
        raise UserError(f"{storage.path(TOKENIZER)}: missing. Copy it from the Tortoise that made the pairs.")
    for name in names:
        copy.write(name, storage.read(f"{TOKENIZER}/{name}"))
    check_digests(target)


def open_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder of pairs. Raises UserError if it is missing or damaged."""
    with tempfile.TemporaryDirectory() as scratch:
        copy_tokenizer(folder, Path(scratch))
        return read_saved_tokenizer(Path(scratch))
