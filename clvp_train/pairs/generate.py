"""Corpus × Tortoise to pairs on disk. A second call with the same inputs finds its pairs, and a broken one goes on."""

import logging
import re
import time
from itertools import groupby
from pathlib import Path

from clvp_train.corpus import Corpus
from clvp_train.pairs.bad_rows import BadRows
from clvp_train.pairs.pair_folder import PairFolder
from clvp_train.pairs.plan import make_plan
from clvp_train.pairs.progress import Progress
from clvp_train.pairs.ranks import rank_and_world_size, wait_for
from clvp_train.pairs.sources import CodeSource
from clvp_train.pairs.storage import Storage
from clvp_train.tortoise import FrozenTortoise

log = logging.getLogger(__name__)


def generate(
    corpus: Corpus,
    tortoise: FrozenTortoise,
    source: CodeSource,
    *,
    cache_dir: str | Path = "outputs/codes",
    folder: str | Path | None = None,
    test_percent: float = 5.0,
    val_percent: float = 5.0,
) -> str:
    """Makes the pairs of a corpus, or finds those made before from the same corpus, weights and settings.

    With torchrun or srun every rank makes its share of the shards and waits for the others. A shard's bytes depend on its own
    rows alone: not on the number of ranks, nor on what was killed and went on.

    Args:
        corpus: texts, with recordings where `source` needs them.
        tortoise: gives tokens and codes.
        source: `ARCodes` or `DVAECodes`.
        cache_dir: pairs lie in a folder below it that is named by their fingerprint.
        folder: the very folder for the pairs instead. Both may be fsspec URLs.
        test_percent: share of texts for the test split, see `corpus.split_of`.
        val_percent: share for the validation split.

    Returns:
        The folder of pairs.

    Raises:
        UserError: bad input, a `folder` that holds something else, or a full disk. Shards finished before are kept.
    """
    rank, world_size = rank_and_world_size()
    plan = make_plan(corpus, tortoise, source, test_percent, val_percent)
    slug = re.sub(r"\W+", "-", corpus.name).strip("-")
    storage = Storage(folder or f"{cache_dir}/{slug}-{source.name}-{plan.manifest.fingerprint[:12]}")
    pairs = PairFolder(storage, plan)
    pairs.refuse_others(named=folder is None)
    pairs.sweep()
    if pairs.is_complete():
        if rank == 0:
            pairs.records.remove()  # a kill at the very end leaves them
        log.info("pairs found in %s", storage.folder)
        return storage.folder

    if rank == 0:
        pairs.recover()
    else:
        wait_for(lambda: "" if pairs.is_begun() or pairs.is_complete() else "the manifest")
    left, bad = pairs.unfinished(range(rank, len(plan.names), world_size)), BadRows(source.bad_rows)
    if left:
        source.begin(tortoise, corpus, bad)
    if rank != 0:
        _make(pairs, corpus, tortoise, source, left, bad, shown=False)
        wait_for(lambda: "" if pairs.is_complete() else "the final manifest")
        return storage.folder

    pairs.begin(tortoise.tokenizer)
    before, started = pairs.tally().num_codes, time.monotonic()
    if done := len(plan.names) - len(pairs.missing()):
        log.info("%d of %d shards are there already", done, len(plan.names))
    _make(pairs, corpus, tortoise, source, left, bad, shown=True)
    wait_for(lambda: "" if pairs.is_complete() else ", ".join(pairs.missing()[:3]))
    if not pairs.is_complete():  # another run of the same command may have been faster
        made = pairs.tally().num_codes - before
        pairs.close(made / (time.monotonic() - started) if made else None)
    return storage.folder


def _make(
    pairs: PairFolder,
    corpus: Corpus,
    tortoise: FrozenTortoise,
    source: CodeSource,
    left: set[int],
    bad: BadRows,
    shown: bool,
) -> None:
    """Makes the shards that are left to this rank in one pass over the corpus."""
    if not left:
        return
    plan, size = pairs.plan, source.shard_size
    with Progress(sum(plan.num_rows[index] for index in left), shown) as progress:
        ours = corpus.stream(lambda number: number // size in left, source.needs_audio)
        for index, numbered in groupby(ours, lambda item: item[0] // size):
            utterances = [(utterance, plan.split_of(utterance.text)) for _, utterance in numbered]
            rows, skipped = source.encode(tortoise, utterances, bad, progress.candidate), bad.take()
            pairs.finish(index, rows, skipped)
            progress.finish_part(plan.num_rows[index], len(skipped))
