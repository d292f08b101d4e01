"""Imports texts and codes of any codec as a folder of pairs. A second call with the same input resumes an interrupted one."""

import hashlib
import json
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from clvp_train.corpus import Split, text_key
from clvp_train.errors import UserError
from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.pairs.code_tables import CodeTable
from clvp_train.pairs.generate import complete, open_folder, versions
from clvp_train.pairs.importer import BadCell, Importer, Numbered
from clvp_train.pairs.schema import IMPORTED, Manifest
from clvp_train.pairs.sources import BadRows, OnCandidate, Rows
from clvp_train.tortoise.tokenizer import load_tokenizer

HEAD = 100  # rows that are converted before any work


def import_pairs(
    table: CodeTable,
    importer: Importer,
    *,
    name: str | None = None,
    cache_dir: str | Path = "outputs/codes",
    folder: str | Path | None = None,
) -> str:
    """Writes the pairs of a table, or finishes those written before. Returns their folder, which training, evaluation and
    re-ranking open as those of `generate`.

    Args:
        table: texts and codes.
        importer: how its rows are read.
        name: of the corpus in reports; None: that of the table.
        cache_dir: the pairs are written to a subfolder named by their fingerprint.
        folder: the folder for the pairs instead. Both may be fsspec URLs.

    Raises:
        UserError: a column is missing, most of the first rows cannot be read, a text is in two splits, a `folder` has other
            contents, or the disk is full. Finished shards are kept.
    """
    columns = importer.wanted()
    num_rows = table.num_rows(columns)
    _check_head(list(islice(enumerate(table.rows(columns)), HEAD)), importer)
    if importer.columns.split is not None:
        _check_splits(table, importer)
    manifest = _manifest(name or table.short_name, table.digest(columns), num_rows, importer)
    pairs = open_folder(manifest, cache_dir, folder)
    if not pairs.is_complete():
        size, bad = importer.shard_size, BadRows(importer.bad_rows, "Or set bad_rows=skip to skip such rows.")

        def shards(indices: set[int], on_candidate: OnCandidate) -> Iterator[tuple[int, Rows]]:
            for index, of_shard in groupby(enumerate(table.rows(columns)), lambda row: row[0] // size):
                if index in indices:
                    rows = importer.convert(list(of_shard), bad)
                    for row in rows:
                        on_candidate(len(row["speech_ids"]))
                    yield index, rows

        sizes = [min(size, num_rows - start) for start in range(0, num_rows, size)]
        complete(pairs, importer.tokenizer, sizes, bad, shards)
    if rank_and_world_size()[0] == 0:
        pairs.remove_records()
    return pairs.storage.folder


def _manifest(name: str, digest: str, num_rows: int, importer: Importer) -> Manifest:
    settings = {"source": digest} | importer.settings()
    return Manifest(
        fingerprint=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        corpus=name,
        source=IMPORTED,
        num_shards=-(-num_rows // importer.shard_size),
        text_vocab_size=len(importer.tokenizer),
        speech_vocab_size=importer.codec.num_ids,
        tortoise="",
        settings=settings,
        versions=versions(),
        code_rate=float(importer.codec.ids_per_second),
    )


def _check_head(rows: list[Numbered], importer: Importer) -> None:
    """Raises UserError if most rows cannot be read: then the settings are wrong, not the rows; or if the tokenizer does not
    survive being saved."""
    if not rows:
        raise UserError("source.name: no rows. Choose another source.")
    good, errors = [], []
    read = importer.read if importer.match == "voice" else importer.convert  # a single row has no reference
    for row in rows:
        try:
            good += read([row], BadRows("error", "Check columns.…, codec.… and tokenizer."))
        except UserError as error:
            errors.append(error)
    if 2 * len(errors) > len(rows):
        raise UserError(
            f"source.name: {len(errors)} of the first {len(rows)} rows cannot be read. The first: {errors[0]}"
        )
    texts = [row["text"] for row in good]
    with TemporaryDirectory() as folder:
        importer.tokenizer.save_pretrained(folder)
        saved = load_tokenizer(folder)
    if saved(texts)["input_ids"] != importer.tokenizer(texts)["input_ids"] or len(saved) != len(importer.tokenizer):
        raise UserError("tokenizer: gives different tokens after it is saved and opened again. Choose another one.")


def _check_splits(table: CodeTable, importer: Importer) -> None:
    """Raises UserError if a text is in two splits."""
    splits: dict[int, Split] = {}
    for where, cells in table.rows(importer.wanted()):
        try:
            text, split = importer.text_and_split(cells)
        except BadCell:
            continue
        if splits.setdefault(hash(text_key(text)), split) != split:
            raise UserError(
                f"{where}: the text {text[:40]!r} is in split {split}, but in another split in an earlier row. Correct the "
                "column, or set columns.split=null to split by text."
            )
