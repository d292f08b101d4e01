"""Generates the pairs of a corpus. A second call with the same inputs reuses its pairs; an interrupted one resumes."""

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from clvp_train.corpus import Corpus, Split, split_of
from clvp_train.io.process_rank import rank_and_world_size, wait_for
from clvp_train.pairs.progress import Progress
from clvp_train.pairs.scan import scan
from clvp_train.pairs.schema import Manifest
from clvp_train.pairs.sources import BadRows, CodeSource, OnCandidate, Rows
from clvp_train.pairs.storage import Storage
from clvp_train.pairs.writer import PairFolder
from clvp_train.tortoise import FrozenTortoise

ALGORITHM = 2  # increment it when equal inputs give other pairs than before, so that older folders are not reused
Shards = Callable[[set[int], OnCandidate], Iterator[tuple[int, Rows]]]
SCANS = ".scans"  # subfolder of `cache_dir`
log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What `generate` will make."""

    manifest: Manifest  # without shards
    num_rows: list[int]  # planned rows of each shard
    texts: dict[Split, np.ndarray]  # of each split: a hash of each distinct text that has rows


def generate(
    corpus: Corpus,
    tortoise: FrozenTortoise,
    source: CodeSource,
    *,
    cache_dir: str | Path = "outputs/codes",
    folder: str | Path | None = None,
    test_percent: float = 5.0,
    val_percent: float = 3.0,
    plan: Plan | None = None,
) -> str:
    """Makes the pairs of a corpus, or finds those made before from the same corpus, weights and settings. Returns their folder.

    Under torchrun or srun each rank makes its share of the shards and waits for the others; ranks communicate through files
    only. The bytes of a shard depend on its rows alone, not on the number of ranks or on interruptions.

    Args:
        corpus: texts, with recordings if `source` needs them.
        tortoise: gives tokens and codes.
        source: `ARCodes`, `DVAECodes`, `StoredCodes`, or your own.
        cache_dir: the pairs are written to a subfolder named by their fingerprint.
        folder: the folder for the pairs instead. Both may be fsspec URLs.
        test_percent, val_percent: shares of texts in the test and validation splits, see `corpus.split_of`.
        plan: of `make_plan` with the same arguments, if it was made before.

    Raises:
        UserError: bad input, a `folder` with other contents, or a full disk. Finished shards are kept.
    """
    manifest, num_rows, _ = plan or make_plan(corpus, tortoise, source, test_percent, val_percent, cache_dir)
    pairs = open_folder(manifest, cache_dir, folder)
    if pairs.is_complete():
        log.info("pairs found in %s", pairs.storage.folder)
    else:
        bad = BadRows(source.bad_rows)

        def shards(indices: set[int], on_candidate: OnCandidate) -> Iterator[tuple[int, Rows]]:
            """All in one pass over the corpus."""
            numbered = corpus.stream(lambda number: number // source.shard_size in indices, source.needs_audio)
            for index, of_shard in groupby(numbered, lambda item: item[0] // source.shard_size):
                utterances = [(utterance, split_of(utterance.text, *percents)) for _, utterance in of_shard]
                yield index, source.encode(tortoise, utterances, bad, on_candidate)

        percents = [manifest.settings[f"split.{split}_percent"] for split in ("test", "val")]
        prepare = partial(source.prepare, tortoise, corpus, bad)
        complete(pairs, tortoise.tokenizer, num_rows, bad, shards, prepare)
    if rank_and_world_size()[0] == 0:
        pairs.remove_records()  # a process that was killed at the very end has left them
    return pairs.storage.folder


def make_plan(
    corpus: Corpus,
    tortoise: FrozenTortoise,
    source: CodeSource,
    test_percent: float,
    val_percent: float,
    cache_dir: str | Path | None = None,
) -> Plan:
    """Checks what can be checked before the work, and reads the corpus as a stream if necessary, see `scan`.

    Args:
        corpus, tortoise, source, test_percent, val_percent, cache_dir: as in `generate`.

    Raises:
        UserError: bad input.
    """
    source.check(tortoise)
    scans = None if cache_dir is None or "://" in str(cache_dir) else Path(cache_dir, SCANS)
    scanned = scan(corpus, tortoise, source, test_percent, val_percent, scans)
    # after the scan: settings of a user's own source may depend on what it has inspected
    settings = {"corpus": scanned.corpus} | _settings(tortoise, source, test_percent, val_percent)
    text = json.dumps(settings, sort_keys=True)
    manifest = Manifest(
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        corpus=corpus.name,
        source=source.name,
        num_shards=len(scanned.num_rows_S),
        text_vocab_size=tortoise.num_text_tokens,
        speech_vocab_size=tortoise.num_speech_tokens,
        tortoise=str(tortoise.source),
        settings=json.loads(text),
        versions=versions(),
        codebook="" if tortoise.dvae is None else tortoise.dvae.codebook.digest(),
    )
    return Plan(manifest, scanned.num_rows_S.tolist(), scanned.texts)


def _settings(tortoise: FrozenTortoise, source: CodeSource, test_percent: float, val_percent: float) -> dict[str, Any]:
    """What determines the pairs besides the corpus, by setting."""
    return {
        "algorithm": ALGORITHM,
        "tortoise": tortoise.fingerprint(),
        "tortoise.positions": tortoise.autoregressive.positions,
        "tortoise.dtype": str(tortoise.autoregressive.head.weight.dtype).removeprefix("torch."),
        **{f"tortoise.sampling.{name}": value for name, value in asdict(tortoise.sampling).items()},
        "codes": source.name,
        **source.settings(),
        "codes.shard_size": source.shard_size,
        "split.test_percent": float(test_percent),
        "split.val_percent": float(val_percent),
    }


def versions() -> dict[str, str]:
    """What a manifest states about this package and torch."""
    try:
        own = version("clvp-train")
    except PackageNotFoundError:  # a clone that is not installed
        own = "unknown"
    return {"clvp_train": own, "torch": torch.__version__}


def open_folder(manifest: Manifest, cache_dir: str | Path, folder: str | Path | None) -> PairFolder:
    """The folder for pairs, without what killed processes have left in it; other arguments as in `generate`.

    Raises:
        UserError: a `folder` with other contents.
    """
    slug = re.sub(r"\W+", "-", manifest.corpus).strip("-")
    name = f"{slug}-{manifest.source}-{manifest.fingerprint[:12]}"
    pairs = PairFolder(Storage(folder or f"{cache_dir}/{name}"), manifest)
    pairs.check_same_settings(is_cache=folder is None)
    pairs.sweep()
    return pairs


def complete(
    pairs: PairFolder,
    tokenizer: PreTrainedTokenizerBase,
    num_rows: Sequence[int],
    bad: BadRows,
    shards: Shards,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Makes this rank's share of the missing shards and waits for the others; rank 0 writes both manifests.

    Args:
        pairs: the folder.
        tokenizer: of the text tokens.
        num_rows: planned rows of each shard.
        bad: receives what is skipped.
        shards: yields (index, rows) of the given shards, in this order. It calls the given function after each row.
        prepare: is called first, if shards are missing.

    Raises:
        UserError: a bad row that must not be skipped, or the folder is not writable. Finished shards are kept.
    """
    rank, world_size = rank_and_world_size()
    if rank == 0:
        pairs.restore_records()
    else:
        wait_for(lambda: "" if pairs.is_ready() else "the manifest")
    indices = pairs.unfinished(range(rank, pairs.num_shards, world_size))
    if indices:
        prepare()
    if rank != 0:
        _make(pairs, indices, num_rows, bad, shards)
        wait_for(lambda: "" if pairs.is_complete() else "the final manifest")
        return

    pairs.start(tokenizer)
    before, started = pairs.tally().num_codes, time.monotonic()
    count, num_done = pairs.num_shards, pairs.num_shards - len(pairs.missing())
    log.info("generating %d shards in %s%s", count, pairs.storage.folder, f", {num_done} done" if num_done else "")
    _make(pairs, indices, num_rows, bad, shards)
    wait_for(lambda: "" if pairs.is_complete() else ", ".join(pairs.missing()[:3]))
    if not pairs.is_complete():  # a second run of the same command may have completed it
        num_codes = pairs.tally().num_codes - before
        pairs.close(num_codes / (time.monotonic() - started) if num_codes else None)


def _make(pairs: PairFolder, indices: set[int], num_rows: Sequence[int], bad: BadRows, shards: Shards) -> None:
    if not indices:
        return
    rate = pairs.manifest.code_rate
    with Progress(sum(num_rows[index] for index in indices), rank_and_world_size()[0] == 0, code_rate=rate) as progress:
        for index, rows in shards(indices, progress.candidate):
            skipped = bad.take()
            pairs.finish(index, rows, skipped)
            progress.finish_part(num_rows[index], len(skipped))
