"""What a plan needs to know about a corpus, which is read once: by the first rank of a node for its other ranks, and for later
runs until one of its files changes."""

import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, get_args

import numpy as np

from clvp_train.corpus import Corpus, Split, Utterance, fingerprint, split_of_hash, text_hash
from clvp_train.errors import UserError
from clvp_train.io import atomic_write
from clvp_train.io.process_rank import from_first_of_node
from clvp_train.pairs.sources import CodeSource
from clvp_train.tortoise import FrozenTortoise

VERSION = 1  # of stored scans
_number = count()  # of the scan: all ranks make the same ones in the same order


@dataclass(frozen=True)
class Scan:
    """A corpus as a source of codes sees it. Shapes: S shards, U distinct texts of a split."""

    corpus: str  # its `corpus.fingerprint`
    num_rows_S: np.ndarray  # int64, planned rows of each shard
    texts: dict[Split, np.ndarray]  # (U,) uint64, ascending: the `corpus.text_hash` of the texts that have rows
    noted: Any  # `CodeSource.noted`

    def save(self, path: Path, signature: str | None = None) -> None:
        facts = json.dumps({"corpus": self.corpus, "noted": self.noted, "signature": signature})
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(file, facts=np.array(facts), num_rows=self.num_rows_S, **self.texts)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path, signature: str | None = None) -> "Scan | None":
        """A stored scan; None if there is none, it is damaged, or it has another signature."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                facts = json.loads(str(stored["facts"]))
                texts = {split: stored[split] for split in get_args(Split)}
                found = cls(facts["corpus"], stored["num_rows"], texts, facts["noted"])
        except Exception:  # what is raised depends on the bytes
            return None
        return found if facts["signature"] == signature else None


def scan(
    corpus: Corpus,
    tortoise: FrozenTortoise,
    source: CodeSource,
    test_percent: float,
    val_percent: float,
    cache_dir: Path | None = None,
) -> Scan:
    """Reads the corpus, or what was read of it before. Afterwards the source has inspected the corpus.

    Args:
        corpus, tortoise, source, test_percent, val_percent: as in `generate`.
        cache_dir: where scans are stored for later runs; None: nowhere.

    Raises:
        UserError: bad input, on all ranks of the node.
    """
    percents = (test_percent, val_percent)
    if not _same_class_defines(source, "inspect", "noted"):  # what a user's own `inspect` keeps is not known
        return _read(corpus, tortoise, source, percents)

    def make(path: Path | None) -> Scan:
        found = _stored_or_read(corpus, tortoise, source, percents, cache_dir)
        if path is not None:
            found.save(path)
        return found

    found, is_own = from_first_of_node(f"scan-{next(_number)}.npz", make, Scan.load)
    if not is_own:
        corpus.skip_check()
        source.note(found.noted)
    return found


def _stored_or_read(
    corpus: Corpus, tortoise: FrozenTortoise, source: CodeSource, percents: tuple[float, float], cache_dir: Path | None
) -> Scan:
    # with bad_rows=error the source inspects texts to raise errors
    signature = _signature(corpus) if cache_dir is not None and source.bad_rows == "skip" else None
    if cache_dir is None or signature is None:
        return _read(corpus, tortoise, source, percents)
    settings = [VERSION, repr(corpus), type(source).__name__, source.settings(), source.shard_size, *percents]
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    found = Scan.load(cache_dir / f"{name}.npz", signature)
    if found is None:
        found = _read(corpus, tortoise, source, percents)
        with suppress(OSError):  # such as a folder of finished pairs that cannot be written to
            found.save(cache_dir / f"{name}.npz", signature)
    else:
        corpus.skip_check()
        source.note(found.noted)
    return found


def _read(corpus: Corpus, tortoise: FrozenTortoise, source: CodeSource, percents: tuple[float, float]) -> Scan:
    num_rows, texts = array("q"), {split: array("Q") for split in get_args(Split)}

    def inspected() -> Iterator[Utterance]:
        for number, utterance in corpus.stream(audio=source.needs_audio):
            source.inspect(tortoise, number, utterance)
            if number % source.shard_size == 0:
                num_rows.append(0)
            hash_ = text_hash(utterance.text)
            split = split_of_hash(hash_, *percents)
            rows = source.num_rows(utterance, split)
            num_rows[-1] += rows
            if rows:
                texts[split].append(hash_)
            yield utterance

    digest = fingerprint(inspected())
    distinct = {split: np.unique(np.array(hashes, dtype=np.uint64)) for split, hashes in texts.items()}
    return Scan(digest, np.array(num_rows), distinct, source.noted())


def _signature(corpus: Corpus) -> str | None:
    """A digest of name, size and modification time of the corpus's files; None if these are not known or cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        if not _same_class_defines(corpus, "_rows", "source_files") or (files := corpus.source_files()) is None:
            return None
        for file in files:
            state = os.stat(file)
            digest.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape"))
    except (OSError, UserError):  # reading the corpus reports it
        return None
    return digest.hexdigest()


def _same_class_defines(instance: object, first: str, second: str) -> bool:
    """Whether two methods that describe each other are of the same class. In a subclass that overrides only one of them, as in
    a user's own package, the other one may no longer be right."""

    def definer(method: str) -> type:
        return next(cls for cls in type(instance).__mro__ if method in vars(cls))

    return definer(first) is definer(second)
