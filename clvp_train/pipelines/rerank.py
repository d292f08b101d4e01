"""Candidates of many texts, in Parquet files, to the same files with scores, percentiles and ranks."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train.errors import UserError
from clvp_train.inference.candidate_parquet import CandidateFile, made_from, ranks
from clvp_train.inference.reranker import Reranker
from clvp_train.io import file_digest
from clvp_train.models import resolve_checkpoint
from clvp_train.models.weight_files import weight_files
from clvp_train.pairs import Progress, Storage
from clvp_train.pipelines.config import validate

SHAPES = {  # what shapes a written file, as a user would name it
    "checkpoint": "the checkpoint",
    "tokenizer": "reranker.tokenizer",
    "max_codes": "reranker.max_codes",
    "candidates": "the candidates",
}
log = logging.getLogger(__name__)


def rerank(cfg: DictConfig) -> None:
    """Scores the candidates of each file, writes the file with its scores, and prints what picking by them is worth."""
    validate(cfg)
    paths, storage = _files(Path(str(cfg.candidates)).expanduser()), _output(str(cfg.output_dir))
    folder = Path(storage.folder).expanduser()
    if folder.resolve() == paths[0].parent.resolve():
        raise UserError(f"output_dir={cfg.output_dir} is the folder of the candidates: name another one")
    checkpoint = resolve_checkpoint(cfg.checkpoint)
    reranker: Reranker = instantiate(cfg.reranker, checkpoint=str(checkpoint))
    files = [CandidateFile(path, reranker) for path in paths]
    storage.sweep()
    shape = _shape(checkpoint, cfg.reranker)
    done = _done(folder, paths, shape)
    left = [file for file in files if file.path.name not in done]
    if done:
        log.info("%d of %d files are there already", len(done), len(files))
    with Progress(sum(file.num_rows for file in left), shown=True) as progress:
        for file in left:
            _rerank(file, reranker, storage, shape | {"candidates": file_digest(file.path)}, progress)
    print("\n".join([*_summary([folder / path.name for path in paths]), f"reranked: {cfg.output_dir}"]))


def _rerank(
    file: CandidateFile, reranker: Reranker, storage: Storage, shape: dict[str, Any], progress: Progress
) -> None:
    scores_N, texts_N = file.scores(progress.candidate)
    percentiles = reranker.percentiles(scores_N)
    added = {
        "score": pa.array(scores_N),
        "percentile": pa.nulls(len(scores_N), pa.float64())
        if percentiles is None
        else pa.array(percentiles, pa.float64()),
        "rank": pa.array(ranks(scores_N, texts_N), pa.int32()),
    }
    file.write(storage, added, shape)
    progress.finish_part(file.num_rows)


def _files(candidates: Path) -> list[Path]:
    """A Parquet file, or those of a folder."""
    if candidates.is_file():
        return [candidates]
    found = sorted(candidates.glob("*.parquet"))
    if not found:
        lack = "holds no Parquet file" if candidates.is_dir() else "is missing"
        raise UserError(
            f"candidates={candidates} {lack}: give a Parquet file, or a folder of them such as `python -m "
            "clvp_train.generate … num_candidates=16 output_dir=FOLDER` writes"
        )
    return found


def _output(folder: str) -> Storage:
    storage = Storage(folder)
    if storage.local is None:
        raise UserError(f"output_dir={folder}: give a local folder")
    return storage


def _shape(checkpoint: Path, settings: DictConfig) -> dict[str, Any]:
    tokenizer = settings.tokenizer
    return {
        "checkpoint": _digest(checkpoint),
        "tokenizer": None if tokenizer is None else _digest(Path(tokenizer).expanduser()),
        "max_codes": settings.max_codes,
    }


def _digest(path: Path) -> str:
    """Of a file, or of a folder's weights, settings and tokenizer."""
    if path.is_file():
        return file_digest(path)
    files = {
        *path.glob("*.json"),
        *path.glob("*.txt"),
        *(weight_files(path) if (path / "config.json").exists() else ()),
    }
    lines = [f"{file.name} {file_digest(file)}" for file in sorted(files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _done(folder: Path, paths: list[Path], shape: dict[str, Any]) -> set[str]:
    """The names of the files that this command has written before.

    Raises:
        UserError: the folder holds other Parquet files.
    """
    sources, done = {path.name: path for path in paths}, set()
    for file in sorted(folder.glob("*.parquet")):
        there = made_from(file)
        if there is None or file.name not in sources:
            raise UserError(f"{file} is none of what this command writes: set output_dir to another folder")
        here = shape | {"candidates": file_digest(sources[file.name])}
        told = [words for name, words in SHAPES.items() if there.get(name) != here[name]]
        if told:
            raise UserError(
                f"{file} was made from something else: {', '.join(told)}; set output_dir to another folder, or go back to "
                "what it was made with"
            )
        done.add(file.name)
    return done


def _summary(files: list[Path]) -> list[str]:
    """What the written files hold, to be printed."""
    columns = [pq.read_table(file, columns=["score", "rank"]) for file in files]
    scores_N, ranks_N = (pa.concat_tables(columns)[name].to_numpy() for name in ("score", "rank"))
    picks = scores_N[ranks_N == 1]
    if not len(picks):
        return ["candidates         none"]
    rows = {
        "texts": len(picks),
        "candidates": f"{len(scores_N)} ({len(scores_N) / len(picks):.1f} a text)",
        "mean score": f"{np.mean(picks):.3f} of the picks, {np.mean(scores_N):.3f} of all",
    }
    return [f"{name:<19}{value}" for name, value in rows.items()]
