"""Transcripts of candidates, stored so that each candidate is transcribed once for all evaluations."""

import hashlib
from collections.abc import Sequence

import numpy as np

from clvp_train.errors import UserError
from clvp_train.evaluation.asr import Recognizer, Transcribe
from clvp_train.io.digests import read_sealed_json, sealed_json
from clvp_train.io.process_rank import rank_and_world_size, wait_for
from clvp_train.pairs import Progress, Storage
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.vocoder import synthesize

BLOCK = 32  # candidates whose audio is in memory; a kill loses at most one block of work per process


def transcripts(
    codes: Sequence[np.ndarray], tortoise: FrozenTortoise, recognizer: Recognizer, cache_dir: str
) -> list[str]:
    """Decodes candidates to audio and transcribes them, except those that an earlier call with the same Tortoise and
    recognizer has stored. Ranks share the work, and communicate through files only.

    Args:
        codes: (S,) ids of each candidate, of `tortoise`.
        tortoise: with a DVAE, see `vocoder.synthesize`.
        recognizer: opened only if a transcript is missing.
        cache_dir: transcripts are stored in a subfolder of it; a path or an fsspec URL.

    Returns:
        One transcript per candidate.

    Raises:
        UserError: the recognizer cannot be opened, or the folder cannot be written to.
    """
    rank, world_size = rank_and_world_size()
    source = f"{tortoise.fingerprint()}\n{recognizer.fingerprint()}"
    storage = Storage(f"{cache_dir}/transcripts-{hashlib.sha256(source.encode()).hexdigest()[:12]}")
    if rank == 0:
        storage.sweep()
    keys = [hashlib.sha256(np.asarray(ids, dtype=np.int64).tobytes()).hexdigest() for ids in codes]
    distinct, stored = dict(zip(keys, codes)), _read(storage)
    own = [key for key in list(distinct)[rank::world_size] if key not in stored]
    own.sort(key=lambda key: len(distinct[key]))  # equal lengths are decoded together
    if own:
        transcribe = recognizer.open(tortoise.device)
        with Progress(len(own), rank == 0, "transcripts") as progress:
            _transcribe({key: distinct[key] for key in own}, tortoise, transcribe, storage, progress)
    wait_for(lambda: "" if distinct.keys() <= _read(storage).keys() else f"transcripts to {storage.folder}")
    stored = _read(storage)
    return [stored[key] for key in keys]


def _transcribe(
    codes: dict[str, np.ndarray], tortoise: FrozenTortoise, transcribe: Transcribe, storage: Storage, progress: Progress
) -> None:
    """Transcribes candidates, and stores each block of them in a file."""
    keys = list(codes)
    for start in range(0, len(keys), BLOCK):
        block = keys[start : start + BLOCK]
        texts = transcribe(synthesize(tortoise, [codes[key].tolist() for key in block]))
        rows = [{"codes": key, "transcript": text} for key, text in zip(block, texts)]
        lines = [sealed_json(row, ensure_ascii=False) for row in rows]
        storage.write(f"{block[0]}.jsonl", "".join(f"{line}\n" for line in lines).encode())
        progress.candidate(sum(len(codes[key]) for key in block), len(block))


def _read(storage: Storage) -> dict[str, str]:
    """The transcripts in a folder, by the digest of the codes."""
    stored: dict[str, str] = {}
    for name in sorted(storage.sizes()):
        if name.endswith(".jsonl") and not name.startswith("."):
            try:
                rows = [read_sealed_json(line) for line in storage.read(name).splitlines()]
                stored |= {row["codes"]: row["transcript"] for row in rows}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"{storage.path(name)}: corrupt ({error}). Delete it and run again.") from None
    return stored
