"""A resumable folder of shards.

A shard has a file for each split, so that other programs do not train on held-out texts by accident.

The manifest is written first, then each shard and, after it, a small record of the shard in `.progress`. Resumed runs and other
ranks go by the records, because a shard without one may be of any state. At the end the records are joined into the final
manifest and removed.
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from clvp_train.errors import UserError
from clvp_train.io import README
from clvp_train.io.digests import read_sealed_json, sealed_json
from clvp_train.pairs.reader import TOKENIZER, save_tokenizer
from clvp_train.pairs.schema import (
    MANIFEST,
    MIXED,
    SCHEMA,
    Manifest,
    Shard,
    differences,
    read_manifest,
    shard_index,
    shard_name,
    write_manifest,
    write_shard,
)
from clvp_train.pairs.storage import Storage
from clvp_train.pairs.summary import Tally, card

RECORDS = ".progress"  # subfolder
SKIPPED = "skipped.jsonl"
log = logging.getLogger(__name__)


class PairFolder:
    """The folder for the pairs of one manifest.

    Args:
        storage: the folder.
        manifest: what belongs there, without shards.
    """

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self.storage, self.manifest = storage, manifest
        self._records: dict[int, tuple[list[Shard], Tally]] = {}

    @property
    def num_shards(self) -> int:
        return self.manifest.num_shards

    @cached_property
    def _is_mixed(self) -> bool:
        """Whether the folder was begun by an earlier version, which wrote all splits of a shard to one file."""
        return any(shard_index(name) is not None and name.startswith(MIXED) for name in self.storage.sizes())

    def check_same_settings(self, is_cache: bool) -> None:
        """Raises UserError if the folder contains anything but pairs of this manifest.

        Args:
            is_cache: whether the folder's name contains the fingerprint, so that shards without a manifest must be ours.
        """
        # list the shards first: other ranks write theirs only after the manifest
        shards = [name for name in self.storage.sizes() if name.endswith(".parquet")]
        manifest, folder = self._read_manifest(), self.storage.folder
        if manifest is None and shards and not is_cache:
            raise UserError(f"{folder}: contains {shards[0]} but no {MANIFEST}. Set output_dir to another folder.")
        if manifest is not None and manifest.fingerprint != self.manifest.fingerprint:
            differing = ", ".join(differences(manifest.settings, self.manifest.settings)) or "unknown settings"
            raise UserError(
                f"{folder}: contains pairs made with other settings: {differing}. Set output_dir to another folder or "
                "restore the settings."
            )

    def sweep(self) -> None:
        """Removes partial files of killed processes."""
        for subfolder in ("", TOKENIZER, RECORDS):
            self.storage.sweep(subfolder)

    def is_complete(self) -> bool:
        """Whether all pairs are made and all shards are present with their recorded size."""
        manifest = self._read_manifest()
        if manifest is None or not manifest.complete:
            return False
        sizes = self.storage.sizes()
        return all(sizes.get(shard.name) == shard.bytes for shard in manifest.shards)

    def is_ready(self) -> bool:
        """Whether rank 0 has written the manifest without shards, so that other ranks may start, or all is complete."""
        manifest = self._read_manifest()
        return manifest is not None and (not manifest.complete or self.is_complete())

    def restore_records(self) -> None:
        """Writes the records of intact shards if a complete folder has lost others."""
        manifest = self._read_manifest()
        if manifest is None or not manifest.complete:
            return
        skipped, sizes = self._read_skipped(), self.storage.sizes()
        files: dict[int, list[Shard]] = {index: [] for index in range(self.num_shards)}
        for number, shard in enumerate(manifest.shards):
            index = shard_index(shard.name)
            files.setdefault(number if index is None else index, []).append(shard)
        for index, shards in files.items():
            if all(self._is_intact(shard, sizes) for shard in shards):
                tables = [pq.read_table(pa.BufferReader(self.storage.read(shard.name))) for shard in shards]
                self._write_record(index, shards, tables, skipped.get(index, []))

    def start(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Writes tokenizer and manifest, for which other ranks wait."""
        save_tokenizer(tokenizer, self.storage)
        write_manifest(self.storage.folder, self.manifest)

    def unfinished(self, indices: Iterable[int]) -> set[int]:
        """Which of these shards are missing or differ from their recorded digest."""
        records, sizes = self._read_records(), self.storage.sizes()
        if self.is_complete():  # another rank has just written the last shard
            return set()
        return {
            index
            for index in indices
            if index not in records or not all(self._is_intact(shard, sizes) for shard in records[index][0])
        }

    def finish(self, index: int, rows: list[dict[str, Any]], skipped: list[dict[str, Any]]) -> None:
        """Writes the files of a shard, then its record."""
        by_split: dict[str, list[dict[str, Any]]] = {MIXED: []} if self._is_mixed else {}
        for row in rows:
            by_split.setdefault(MIXED if self._is_mixed else row["split"], []).append(row)
        names = {split: shard_name(index, self.num_shards, split) for split in by_split}
        written = [write_shard(self.storage, names[split], of_split) for split, of_split in sorted(by_split.items())]
        shards, tables = [shard for shard, _ in written], [table for _, table in written]
        self._write_record(index, shards, tables, [entry | {"shard": index} for entry in skipped])

    def missing(self) -> list[str]:
        """The names of unfinished shards, by size only."""
        records, sizes = self._read_records(), self.storage.sizes()
        return [
            shard_name(index, self.num_shards, "*")
            for index in range(self.num_shards)
            if index not in records or any(sizes.get(shard.name) != shard.bytes for shard in records[index][0])
        ]

    def tally(self) -> Tally:
        """The counts of all shards finished so far."""
        return sum((tally for _, tally in self._read_records().values()), Tally())

    def close(self, codes_per_second: float | None) -> None:
        """Joins the records of all shards into the final manifest.

        Raises:
            UserError: no pair was made, or the folder is not writable.
        """
        records = [read_sealed_json(self.storage.read(_record(index))) for index in range(self.num_shards)]
        skipped = [entry for record in records for entry in record["skipped"]]
        total = self.tally()
        if not total.pairs:
            first = f", the first: utterance {skipped[0]['id']}: {skipped[0]['reason']}" if skipped else ""
            raise UserError(f"{self.manifest.corpus}: no pairs, all rows were skipped{first}")
        if skipped:
            lines = [sealed_json(entry, ensure_ascii=False) + "\n" for entry in skipped]
            self.storage.write(SKIPPED, "".join(lines).encode())
        shards = tuple(shard for record in records for shard in _shards(record))
        manifest = replace(
            self.manifest, complete=True, shards=shards, report=total.report(codes_per_second, self.manifest.code_rate)
        )
        if not self.storage.exists(README):  # keep a card that the user has written
            self.storage.write(README, card(manifest).encode())
        write_manifest(self.storage.folder, manifest)
        self.remove_records()

    def remove_records(self) -> None:
        self.storage.remove(RECORDS)

    def _read_manifest(self) -> Manifest | None:
        return read_manifest(self.storage.folder) if self.storage.exists(MANIFEST) else None

    def _read_skipped(self) -> dict[int, list[dict[str, Any]]]:
        """The skipped rows of each shard. Raises UserError if the list is damaged."""
        skipped: dict[int, list[dict[str, Any]]] = {}
        try:
            for line in self.storage.read(SKIPPED).splitlines():
                entry = read_sealed_json(line)
                skipped.setdefault(entry["shard"], []).append(entry)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            path = self.storage.path(SKIPPED)
            raise UserError(f"{path}: damaged ({error}). Restore it, or delete it to do without this list.") from None
        return skipped

    def _is_intact(self, shard: Shard, sizes: dict[str, int]) -> bool:
        same_size = sizes.get(shard.name) == shard.bytes
        is_intact = same_size and hashlib.sha256(self.storage.read(shard.name)).hexdigest() == shard.sha256
        if not is_intact:
            log.warning("%s: missing or damaged, will be made again", self.storage.path(shard.name))
        return is_intact

    def _write_record(
        self, index: int, shards: list[Shard], tables: list[pa.Table], skipped: list[dict[str, Any]]
    ) -> None:
        tally = Tally.of(pa.concat_tables([SCHEMA.empty_table(), *tables], promote_options="default"), skipped)
        record = {"shards": [asdict(shard) for shard in shards], "tally": vars(tally), "skipped": skipped}
        self.storage.write(_record(index), sealed_json(record).encode())

    def _read_records(self) -> dict[int, tuple[list[Shard], Tally]]:
        """Files and counts of each finished shard, whichever process wrote it. Each record is read once."""
        indices = {int(name.removesuffix(".json")) for name in self.storage.sizes(RECORDS) if name.endswith(".json")}
        for index in indices - set(self._records):
            try:
                record = read_sealed_json(self.storage.read(_record(index)))
                self._records[index] = _shards(record), Tally.from_json(record["tally"])
            except FileNotFoundError:
                pass  # rank 0 has joined and removed them meanwhile
            except (ValueError, KeyError, TypeError):
                log.warning("%s: damaged, its shard will be made again", self.storage.path(_record(index)))
        self._records = {index: record for index, record in self._records.items() if index in indices}
        return self._records


def _record(index: int) -> str:
    return f"{RECORDS}/{index:05d}.json"


def _shards(record: dict[str, Any]) -> list[Shard]:
    """The files in a record; those of earlier versions have one."""
    return [Shard(**shard) for shard in (record["shards"] if "shards" in record else [record["shard"]])]
