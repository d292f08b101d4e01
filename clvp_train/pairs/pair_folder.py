"""The folder that shards are gathered in: which are finished, what another command left there, and the closing."""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from clvp_train.errors import UserError
from clvp_train.pairs.card import CARD, card
from clvp_train.pairs.manifest import MANIFEST, Manifest, differences, read_manifest, write_manifest
from clvp_train.pairs.plan import Plan
from clvp_train.pairs.records import RECORDS, Records, Skipped
from clvp_train.pairs.shards import Shard, write_shard
from clvp_train.pairs.sources import Row
from clvp_train.pairs.storage import Storage
from clvp_train.pairs.tally import Tally
from clvp_train.pairs.tokenizer import TOKENIZER, save_tokenizer

SKIPPED = "skipped.jsonl"
log = logging.getLogger(__name__)


class PairFolder:
    """A folder for the pairs of one plan.

    Args:
        storage: the folder.
        plan: what belongs there.
    """

    def __init__(self, storage: Storage, plan: Plan) -> None:
        self.storage, self.plan, self.records = storage, plan, Records(storage)

    def refuse_others(self, named: bool) -> None:
        """Raises UserError if the folder holds anything but pairs of this plan.

        Args:
            named: whether the folder's name is made of the plan's fingerprint, so that its shards can be no others.
        """
        # the shards first: other ranks write theirs only after the manifest
        shards = [name for name in self.storage.sizes() if name.endswith(".parquet")]
        manifest = self._manifest()
        if manifest is None and shards and not named:
            raise UserError(
                f"{self.storage.folder} holds {shards[0]} but no {MANIFEST}, so that nothing says what made it: set "
                "output_dir to another folder"
            )
        if manifest is not None and manifest.fingerprint != self.plan.manifest.fingerprint:
            told = ", ".join(differences(manifest.settings, self.plan.manifest.settings))
            raise UserError(
                f"{self.storage.folder} holds pairs made from something else: {told or 'unknown settings'}; set output_dir "
                "to another folder, or go back to what it was made with"
            )

    def sweep(self) -> None:
        """Removes half-written files of processes that live no more."""
        for subfolder in ("", TOKENIZER, RECORDS):
            self.storage.sweep(subfolder)

    def is_complete(self) -> bool:
        """Whether all is made, and all shards are there in the size that they were written in."""
        manifest = self._manifest()
        if manifest is None or not manifest.complete:
            return False
        sizes = self.storage.sizes()
        return all(sizes.get(shard.name) == shard.bytes for shard in manifest.shards)

    def is_begun(self) -> bool:
        """Whether shards may be written."""
        manifest = self._manifest()
        return manifest is not None and not manifest.complete

    def recover(self) -> None:
        """Writes the records of the shards that are left of a complete folder which has lost some since."""
        manifest = self._manifest()
        if manifest is None or not manifest.complete:
            return
        lines = self.storage.read(SKIPPED).decode().splitlines() if self.storage.exists(SKIPPED) else []
        skipped = [json.loads(line) for line in lines]
        sizes = self.storage.sizes()
        for index, shard in enumerate(manifest.shards):
            if self._is_intact(shard, sizes):
                table = pq.read_table(pa.BufferReader(self.storage.read(shard.name)))
                of_shard = [entry for entry in skipped if entry["shard"] == index]
                self.records.write(index, shard, Tally.of(table, of_shard), of_shard)

    def begin(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Writes tokenizer and manifest, which lets other ranks begin too."""
        save_tokenizer(tokenizer, self.storage)
        write_manifest(self.storage.folder, self.plan.manifest)

    def unfinished(self, indices: Iterable[int]) -> set[int]:
        """Which of these shards are not there, byte for byte as they were written."""
        records, sizes = self.records.refresh(), self.storage.sizes()
        if self.is_complete():  # another rank needed nothing but what has just been written
            return set()
        return {index for index in indices if index not in records or not self._is_intact(records[index][0], sizes)}

    def finish(self, index: int, rows: list[Row], skipped: Skipped) -> None:
        """Writes a shard, then its record."""
        skipped = [entry | {"shard": index} for entry in skipped]
        shard, table = write_shard(self.storage, self.plan.names[index], rows)
        self.records.write(index, shard, Tally.of(table, skipped), skipped)

    def missing(self) -> list[str]:
        """The names of unfinished shards."""
        records = self.records.refresh()
        sizes = self.storage.sizes()
        return [
            name
            for index, name in enumerate(self.plan.names)
            if index not in records or sizes.get(name) != records[index][0].bytes
        ]

    def tally(self) -> Tally:
        """Of the shards finished so far."""
        total = Tally()
        for _, tally in self.records.refresh().values():
            total.add(tally)
        return total

    def close(self, codes_per_second: float | None) -> Manifest:
        """Joins the records of all shards into the final manifest.

        Raises:
            UserError: no pair was made, or the folder cannot be written to.
        """
        skipped = [entry for index in range(len(self.plan.names)) for entry in self.records.skipped(index)]
        total = self.tally()
        if not total.pairs:
            first = f"; the first: utterance {skipped[0]['id']}: {skipped[0]['reason']}" if skipped else ""
            raise UserError(f"no pair could be made of {self.plan.manifest.corpus}, all its rows were skipped{first}")
        if skipped:
            lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in skipped]
            self.storage.write(SKIPPED, "".join(lines).encode())
        shards = tuple(shard for _, (shard, _) in sorted(self.records.refresh().items()))
        manifest = replace(self.plan.manifest, complete=True, shards=shards, report=total.report(codes_per_second))
        if not self.storage.exists(CARD):  # a user may have written a better one
            self.storage.write(CARD, card(manifest).encode())
        write_manifest(self.storage.folder, manifest)
        self.records.remove()
        return manifest

    def _manifest(self) -> Manifest | None:
        return read_manifest(self.storage.folder) if self.storage.exists(MANIFEST) else None

    def _is_intact(self, shard: Shard, sizes: dict[str, int]) -> bool:
        same_size = sizes.get(shard.name) == shard.bytes
        intact = same_size and hashlib.sha256(self.storage.read(shard.name)).hexdigest() == shard.sha256
        if not intact:
            log.warning("%s is missing or damaged: made again", self.storage.path(shard.name))
        return intact
