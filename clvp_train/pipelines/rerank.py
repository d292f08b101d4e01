"""Re-ranks candidates in Parquet files: adds scores, percentiles and ranks."""

import hashlib
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train.errors import UserError
from clvp_train.inference.candidate_parquet import CandidateFile, ranks_in_text, read_source
from clvp_train.inference.reranker import Reranker
from clvp_train.io.digests import file_digest
from clvp_train.models import resolve_checkpoint
from clvp_train.models.weight_files import weight_files
from clvp_train.pairs import MANIFEST, Progress, Storage, read_manifest, read_recordings, recordings_digest
from clvp_train.pairs.reader import REMEDY

SOURCES = {  # what determines the contents of a written file: display name
    "checkpoint": "the checkpoint",
    "tokenizer": "reranker.tokenizer",
    "max_codes": "reranker.max_codes",
    "log_probability_weight": "reranker.log_probability_weight",
    "voice": "reranker.voice",
    "voice_weight": "reranker.voice_weight",
    "references": "references",
    "candidates": "the candidates",
}
CLIPS_PER_VOICE = 16  # references that a candidate is compared with
MAX_PRINTED, MAX_CANDIDATES = 20, 1000  # texts whose picks are printed, and candidates of each
log = logging.getLogger(__name__)


def rerank(cfg: DictConfig) -> None:
    """Scores the candidates of each file, writes the file with its scores, and prints a summary."""
    # check
    paths, storage = candidate_files(Path(cfg.candidates)), _output(str(cfg.output_dir))
    folder = Path(storage.folder)
    if folder.resolve() == paths[0].parent.resolve():
        raise UserError(f"output_dir={cfg.output_dir}: the folder of the candidates. Set it to another folder.")
    # build
    checkpoint = resolve_checkpoint(cfg.checkpoint)
    reranker: Reranker = instantiate(cfg.reranker, checkpoint=str(checkpoint))
    references = _references(cfg.references, reranker)
    files = [CandidateFile(path, reranker, references) for path in paths]
    # run: files of an interrupted run are kept
    storage.sweep()
    source = _source(checkpoint, cfg, reranker.log_probability_weight)
    digests = _digests(paths)
    finished = _finished_files(folder, digests, source)
    remaining = [file for file in files if file.path.name not in finished]
    if finished:
        log.info("resuming: %d of %d files are finished", len(finished), len(files))
    with Progress(sum(file.num_rows for file in remaining), shown=True) as progress:
        for file in remaining:
            _rerank_file(file, reranker, storage, source | {"candidates": digests[file.path.name]}, progress)
    # report
    written = [folder / path.name for path in paths]
    summary = [*_picks(written), *_summary(written), *_unfamiliar(files), f"reranked: {cfg.output_dir}"]
    print("\n".join(summary))


def candidate_files(candidates: Path) -> list[Path]:
    """A Parquet file, or those of a folder. Raises UserError if there are none."""
    if candidates.is_file():
        return [candidates]
    paths = sorted(candidates.glob("*.parquet"))
    if not paths:
        problem = "no Parquet file in this folder" if candidates.is_dir() else "no such file or folder"
        raise UserError(
            f"candidates={candidates}: {problem}. Set it to a Parquet file, or to a folder of them as written by `python -m "
            "clvp_train.generate … num_candidates=16 output_dir=FOLDER`."
        )
    return paths


def _digests(paths: list[Path]) -> dict[str, str]:
    """The SHA-256 of each file, by its name. Raises UserError if it is a shard of pairs with another recorded digest."""
    folder, digests = paths[0].parent, {path.name: file_digest(path) for path in paths}
    shards = read_manifest(folder).shards if (folder / MANIFEST).exists() else ()
    for shard in shards:
        if digests.get(shard.name, shard.sha256) != shard.sha256:
            raise UserError(f"{folder / shard.name}: damaged. {REMEDY}")
    return digests


def _output(folder: str) -> Storage:
    storage = Storage(folder)
    if storage.local is None:
        raise UserError(f"output_dir={folder}: not a local folder. Set it to one.")
    return storage


def _references(path: str | None, reranker: Reranker) -> dict[str, torch.Tensor] | None:
    """The embedding of up to `CLIPS_PER_VOICE` clips of each voice; None without a model of voices."""
    if path is None and reranker.voice is None:
        return None
    if path is None:
        raise UserError(
            "references=null: reranker.voice needs clips to compare with. Set references to a Parquet file or a folder of "
            "pairs with the codes of some."
        )
    if reranker.voice is None:
        raise UserError(f"references={path}: there is no model of voices to compare with. Set reranker.voice to one.")
    table, clips = read_recordings(path, "references"), defaultdict[str, list[torch.Tensor]](list)
    for voice, codes in zip(table["voice"].to_pylist(), table["speech_ids"]):
        if len(clips[voice]) < CLIPS_PER_VOICE and len(codes):
            clips[voice].append(reranker.speech_ids(codes.values.to_numpy(), f"references={path}: a clip of {voice}"))
    given = {voice: of_voice for voice, of_voice in clips.items() if of_voice}
    if not given:
        raise UserError(f"references={path}: no codes of clips. Set it to a file or folder with some.")
    return dict(zip(given, reranker.voice_embeddings(list(given.values()))))


def _source(checkpoint: Path, cfg: DictConfig, weight: float) -> dict[str, Any]:
    """Identifies what determines the scores, apart from the candidates. Files of earlier versions lack what is null."""
    settings, has_voice = cfg.reranker, cfg.reranker.voice is not None
    tokenizer = settings.tokenizer
    return {
        "checkpoint": _digest(checkpoint),
        "tokenizer": None if tokenizer is None else _digest(Path(tokenizer)),
        "max_codes": settings.max_codes,
        "log_probability_weight": weight or None,
        "voice": _digest(resolve_checkpoint(settings.voice)) if has_voice else None,
        "voice_weight": settings.voice_weight if has_voice else None,
        "references": None if cfg.references is None else recordings_digest(cfg.references),
    }


def _digest(path: Path) -> str:
    """Of a file, or of the weights, settings and tokenizer in a folder."""
    if path.is_file():
        return file_digest(path)
    weights = weight_files(path) if (path / "config.json").exists() else ()
    files = sorted({*path.glob("*.json"), *path.glob("*.txt"), *weights})
    return hashlib.sha256("\n".join(f"{file.name} {file_digest(file)}" for file in files).encode()).hexdigest()


def _finished_files(folder: Path, digests: dict[str, str], source: dict[str, Any]) -> set[str]:
    """The names of the files that an earlier run of the same command has written, given the digests of the candidates.

    Raises:
        UserError: the folder holds other Parquet files.
    """
    finished = set()
    for file in sorted(folder.glob("*.parquet")):
        previous = read_source(file)
        if previous is None or file.name not in digests:
            raise UserError(f"{file}: not written by this command. Set output_dir to another folder.")
        current = source | {"candidates": digests[file.name]}
        changed = [words for name, words in SOURCES.items() if previous.get(name) != current[name]]
        if changed:
            raise UserError(
                f"{file}: made from a different source ({', '.join(changed)}). Set output_dir to another folder, or "
                "restore the source."
            )
        finished.add(file.name)
    return finished


def _rerank_file(
    file: CandidateFile, reranker: Reranker, storage: Storage, source: dict[str, Any], progress: Progress
) -> None:
    scores_N, per_code_N, voice_N, texts_N = file.scores(progress.candidate)
    percentiles, combined_N = reranker.percentiles(scores_N), reranker.combined(scores_N, per_code_N, voice_N, texts_N)
    missing, is_bad_N = pa.nulls(len(scores_N), pa.float64()), np.isnan(scores_N)
    columns = {
        "score": pa.array(scores_N, mask=is_bad_N),
        "percentile": missing if percentiles is None else pa.array(np.array(percentiles), pa.float64(), mask=is_bad_N),
        **({"voice_score": pa.array(voice_N, mask=np.isnan(voice_N) | is_bad_N)} if reranker.voice else {}),
        **({"combined_score": pa.array(combined_N, mask=is_bad_N)} if reranker.combines else {}),
        "rank": pa.array(ranks_in_text(combined_N, texts_N), pa.int32(), mask=is_bad_N),
    }
    file.write(storage, columns, source)
    progress.finish_part(file.num_rows)


def _picks(files: list[Path]) -> list[str]:
    """The pick of each text, for a few texts; nothing for many."""
    if sum(pq.read_metadata(file).num_rows for file in files) > MAX_PRINTED * MAX_CANDIDATES:
        return []
    picks = [row for file in files for row in pq.read_table(file, filters=[("rank", "=", 1)]).to_pylist()]
    return [] if len(picks) > MAX_PRINTED else [_pick(row) for row in picks]


def _pick(row: dict[str, Any]) -> str:
    text = row.get("text") or str(list(row["input_ids"]))
    candidate = f"  candidate {row['candidate']}" if row.get("candidate") is not None else ""
    above = "" if row["percentile"] is None else f"  above {row['percentile']:.0f}% of matched pairs"
    by = "" if row.get("combined_score") is None else f"  combined {row['combined_score']:.3f}"
    return f"pick{candidate}  score {row['score']:.3f}{by}{above}  {text if len(text) <= 60 else text[:60] + '…'}"


def _summary(files: list[Path]) -> list[str]:
    tables = [_read_scores(file) for file in files]
    table = pa.concat_tables(tables)
    scores_N, ranks_N = (table[name].drop_null().to_numpy() for name in ("score", "rank"))
    picks = scores_N[ranks_N == 1]
    if not len(picks):
        return ["candidates         none"]
    rows = {
        "texts": len(picks),
        "candidates": f"{len(scores_N)} ({len(scores_N) / len(picks):.1f} per text)",
        "mean score": f"{np.mean(picks):.3f} of the picks, {np.mean(scores_N):.3f} of all",
    }
    if num_skipped := table.num_rows - len(scores_N):
        rows["skipped"] = f"{num_skipped} bad rows, whose scores are null"
    return [f"{name:<19}{value}" for name, value in rows.items()]


def _unfamiliar(files: list[CandidateFile]) -> list[str]:
    """A line on texts that are unlike those of the training, if there are any."""
    texts = [text for file in files if file.reranker.token_pairs is not None for text in file.unfamiliar()]
    if not texts:
        return []
    return [f"{'unfamiliar':<19}{len(texts)} texts, unlike those of the training, such as {str(texts[0])[:60]!r}"]


def _read_scores(file: Path) -> pa.Table:
    try:
        return pq.read_table(file, columns=["score", "rank"], page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: damaged ({reason}). Delete it, and run the same command again.") from None
