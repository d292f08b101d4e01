"""Corpus × Tortoise to pairs on disk. A second call with the same inputs finds its pairs, and a broken one goes on."""

import hashlib
import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from clvp_train.codes.shards import (
    MANIFEST,
    TOKENIZER,
    Manifest,
    shard_path,
    write_manifest,
    write_shard,
)
from clvp_train.codes.sources import CodeSource
from clvp_train.corpus import Corpus, Split, Utterance, fingerprint, split_of
from clvp_train.errors import UserError, check_number
from clvp_train.tortoise import FrozenTortoise

SHARD_SIZE = 1024  # utterances; a kill loses at most one shard's work a rank
CODES_PER_SECOND = 22_050 / 1024
log = logging.getLogger(__name__)


def generate(
    corpus: Corpus,
    tortoise: FrozenTortoise,
    source: CodeSource,
    cache_dir: Path,
    test_percent: float = 5.0,
    val_percent: float = 5.0,
) -> Path:
    """Makes the pairs of a corpus, or finds those made before from the same corpus, weights and settings.

    With torchrun or SLURM every rank makes its share of the shards and waits for the others.

    Args:
        corpus: texts, with recordings where `source` needs them.
        tortoise: gives tokens and codes.
        source: `ARCodes` or `DVAECodes`.
        cache_dir: pairs lie in a folder below it that is named by their fingerprint.
        test_percent: share of texts for the test split, see `corpus.split_of`.
        val_percent: share for the validation split.

    Returns:
        The folder of pairs.

    Raises:
        UserError: bad input. Shards finished before are kept.
    """
    check_number("split.test_percent", test_percent, 0, whole=False)
    check_number("split.val_percent", val_percent, 0, whole=False)
    utterances = list(corpus)
    splits = [split_of(utterance.text, test_percent, val_percent) for utterance in utterances]
    shaping = source.prepare(tortoise, utterances)
    parts = [fingerprint(utterances), tortoise.fingerprint(), source.name, shaping, f"{test_percent} {val_percent}"]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    slug = re.sub(r"\W+", "-", corpus.name).strip("-")
    folder = cache_dir / f"{slug}-{source.name}-{digest[:12]}"
    num_shards = -(-len(utterances) // SHARD_SIZE)
    paths = [shard_path(folder, index, num_shards) for index in range(num_shards)]
    if all(path.exists() for path in (folder / MANIFEST, *paths)):
        log.info("pairs found in %s", folder)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rank, world_size = _rank_and_world_size()
    _make_shards(tortoise, source, list(zip(utterances, splits)), folder, range(rank, num_shards, world_size))
    _wait_for(paths)
    if rank != 0:
        _wait_for([folder / MANIFEST])
        return folder
    tortoise.tokenizer.save_pretrained(folder / TOKENIZER)
    manifest = Manifest(
        fingerprint=digest,
        corpus=corpus.name,
        source=source.name,
        num_shards=num_shards,
        text_vocab_size=tortoise.autoregressive.text_embedding.num_embeddings,
        speech_vocab_size=tortoise.num_speech_tokens,
        tortoise=str(tortoise.source),
    )
    write_manifest(folder, manifest)
    return folder


def _make_shards(
    tortoise: FrozenTortoise,
    source: CodeSource,
    utterances: Sequence[tuple[Utterance, Split]],
    folder: Path,
    mine: range,
) -> None:
    num_shards, num_codes, started = -(-len(utterances) // SHARD_SIZE), 0, time.monotonic()
    left = [index for index in mine if not shard_path(folder, index, num_shards).exists()]
    if len(left) < len(mine):
        log.info("%d of %d shards are there already", len(mine) - len(left), len(mine))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(f"speech codes ({source.name})", total=None, speed="")

        def on_codes(count: int) -> None:
            nonlocal num_codes
            num_codes += count
            speed = num_codes / max(time.monotonic() - started, 1e-3)
            progress.update(task, speed=f"{speed:.0f} codes/s, {speed / CODES_PER_SECOND:.0f} × real time")

        progress.update(task, total=len(left))
        for index in left:
            chunk = utterances[index * SHARD_SIZE : (index + 1) * SHARD_SIZE]
            rows = source.encode(tortoise, chunk, on_codes)
            write_shard(shard_path(folder, index, num_shards), rows)
            progress.advance(task)
    if left:
        seconds = time.monotonic() - started
        log.info("%d codes in %.0f s (%.0f a second) -> %s", num_codes, seconds, num_codes / max(seconds, 1e-3), folder)


def _wait_for(paths: Sequence[Path]) -> None:
    """Waits for the shards of other ranks. A rank that died is noticed by its launcher, which then ends this one too."""
    while not all(path.exists() for path in paths):
        time.sleep(1.0)


def _rank_and_world_size() -> tuple[int, int]:
    """From torchrun or SLURM; Lightning's own launcher starts its children after the first process has made all pairs."""
    for rank, world_size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in os.environ and world_size in os.environ:
            try:
                return int(os.environ[rank]), int(os.environ[world_size])
            except ValueError:
                raise UserError(f"{rank} and {world_size} must be whole numbers: check the launcher") from None
    return 0, 1
