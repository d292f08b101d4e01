"""Every kind of file that the package writes and reads, written by its own functions and opened by those of the commands."""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from clvp_train import CLVPConfig, CLVPModel, Reranker, hub
from clvp_train.errors import UserError
from clvp_train.evaluation.transcripts import transcripts
from clvp_train.inference.candidate_parquet import CandidateFile
from clvp_train.io import CHECKPOINTS, FINISHED, MODEL, REPORT, write_text
from clvp_train.io.digests import recording_digests
from clvp_train.metrics import SCORE_TABLE_FILE, read_score_table
from clvp_train.models import load_clvp, weights_digest
from clvp_train.models.loading import CONFIG_KEY, MODEL_PREFIX
from clvp_train.pairs import MANIFEST, TOKENIZER, Manifest, Progress, Storage, open_tokenizer, read_manifest, read_pairs
from clvp_train.pairs.writer import RECORDS, SKIPPED, PairFolder
from clvp_train.pipelines import evaluation_report, rerank, resume
from clvp_train.report import METRICS_FILE, read_metrics, write_metrics
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.tokenizer import read_custom_tokenizer, read_saved_tokenizer, train_custom_tokenizer
from clvp_train.training import AtomicCheckpointIO
from clvp_train.training.checkpointing import RUN_KEY, newest_complete, read_checkpoint
from tests.e2e.commands import ROOT
from tests.original_tortoise import write_original
from tests.unit.pairs_folder import pair

NANO = ROOT / "data/nano/tortoise"
TEXTS = ["It is.", "The light was divided from the darkness.", "Twelve men sat down."]


@dataclass(frozen=True)
class Kind:
    """Files, and a function that opens them and returns what was read, as values with an exact `repr`.

    It raises UserError if a file is refused, and also if it is made again or an earlier one is taken."""

    name: str
    files: Sequence[Path]
    read: Callable[[], Any]


def make_kinds(folder: Path) -> list[Kind]:
    """Writes all kinds of files by the package's own functions."""
    tokenizer = read_saved_tokenizer(NANO)
    run = folder / "run"
    model = _write_run(run, tokenizer)
    return [*_pairs(folder, tokenizer, run / MODEL), *_run(run), *_tortoises(folder), *_exports(folder, model)]


def _pairs(folder: Path, tokenizer: Any, model: Path) -> list[Kind]:
    complete, unfinished, lost, output = (folder / name for name in ("pairs", "unfinished", "lost", "reranked"))
    manifest = Manifest("f", "corpus", "ar", 2, 32, 32, "none")
    for target in (complete, unfinished):
        writer = PairFolder(Storage(target), manifest)
        writer.start(tokenizer)
        for index in range(2):
            skipped = [{"id": "a", "kind": "text too long", "reason": "Grüße"}]
            writer.finish(index, [pair(15 * index + row) for row in range(15)], skipped)
    PairFolder(Storage(complete), manifest).close(None)
    shutil.copytree(complete, lost)
    sorted(lost.glob("*.parquet"))[1].unlink()
    shards, source = sorted(complete.glob("*.parquet")), {"checkpoint": "c", "tokenizer": None, "max_codes": 1}
    digests, reranker = rerank._digests(shards), Reranker.from_pretrained(model)
    source |= dict.fromkeys(("log_probability_weight", "voice", "voice_weight", "references"))
    with Progress(30, shown=False) as progress:
        for shard in shards:
            made_of = source | {"candidates": digests[shard.name]}
            rerank._rerank_file(CandidateFile(shard, reranker), reranker, Storage(output), made_of, progress)

    def read_shards() -> Any:
        shutil.rmtree(complete / ".arrow", ignore_errors=True)
        return read_pairs(complete).to_pylist()

    def read_records() -> Any:
        started = PairFolder(Storage(unfinished), manifest)
        if started.unfinished(range(2)):
            raise UserError("shards are made again")
        return started.tally()

    def read_skipped() -> Any:
        restored = PairFolder(Storage(lost), manifest)
        restored.restore_records()
        records = [json.loads(file.read_bytes())["skipped"] for file in sorted((lost / RECORDS).glob("*"))]
        restored.remove_records()
        return [_known(entry, ("id", "kind", "reason", "shard")) for record in records for entry in record]

    def read_candidates() -> Any:
        return [CandidateFile(shard, reranker).num_rows for shard in shards], rerank._digests(shards)

    def read_reranked() -> Any:
        finished = rerank._finished_files(output, digests, source)
        return sorted(finished), [rerank._read_scores(output / name).to_pylist() for name in sorted(finished)]

    read_shards()
    return [
        Kind("pairs: shards", shards, read_shards),
        Kind("pairs: Arrow copies", sorted((complete / ".arrow").iterdir()), lambda: read_pairs(complete).to_pylist()),
        Kind("pairs: manifest.json", [complete / MANIFEST], lambda: read_manifest(complete)),
        Kind("pairs: tokenizer", _all(complete / TOKENIZER), lambda: _tokens(open_tokenizer(complete))),
        Kind(
            "pairs: records and shards of an unfinished folder",
            _all(unfinished / RECORDS, "*", "../*.parquet"),
            read_records,
        ),
        Kind("pairs: skipped.jsonl", [lost / SKIPPED], read_skipped),
        Kind("pairs: shards given to rerank", shards, read_candidates),
        Kind("re-ranked Parquet: score and rank", sorted(output.iterdir()), read_reranked),
    ]


def _write_run(run: Path, tokenizer: Any) -> CLVPModel:
    """A finished run, with two checkpoints, a model, and a report."""
    torch.manual_seed(0)
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLVPConfig(text_config=tower, speech_config=tower | {"vocab_size": 2048}, projection_dim=64)
    model = CLVPModel(config).eval()
    metrics = read_metrics(ROOT / "docs/example_report") | {"weights": weights_digest(model)}
    with recording_digests(run / MODEL):
        model.save_pretrained(run / MODEL)
        tokenizer.save_pretrained(run / MODEL)
        write_text(run / MODEL / hub.TRAINING_CONFIG, "optim:\n  lr: 0.001\nloss:\n  _target_: a.Loss\n")
    shutil.copytree(ROOT / "docs/example_report", run / REPORT)
    with recording_digests(run / REPORT):
        write_metrics(metrics, run / REPORT)
    for folder in (MODEL, REPORT):
        evaluation_report.write_score_table(metrics, run / folder)
    state = {f"{MODEL_PREFIX}{name}": tensor for name, tensor in model.state_dict().items()}
    stored = {CONFIG_KEY: config.to_dict(), "state_dict": state, "global_step": 3, "epoch": 1}
    for name in ("last.ckpt", "best-step=3.ckpt"):
        AtomicCheckpointIO().save_checkpoint(stored | {RUN_KEY: {"fixed": {"seed": 0}}}, run / CHECKPOINTS / name)
    resume.write_mark(_settings(run), 0.25)
    return model


def _run(run: Path) -> list[Kind]:
    last, model = run / CHECKPOINTS / "last.ckpt", run / MODEL

    def read_last() -> Any:
        path, _ = newest_complete(run / CHECKPOINTS)
        if path != last:
            raise UserError("an earlier checkpoint is taken")
        stored = read_checkpoint(last)
        return _plain(stored)

    def read_mark() -> Any:
        mark = resume._read_mark(run)
        if not mark:
            raise UserError("a run is complete without its length")
        return _known(mark, ("length", "score"))

    def rerank_with() -> Any:
        opened = Reranker.from_pretrained(model)
        return _model(opened.model), _tokens(opened.tokenizer), opened.score_table

    def publish() -> Any:
        trained = hub.find_trained(run)
        return _model(trained.model), _known(trained.metrics, metrics), trained.settings

    def read_report() -> Any:
        try:
            return _known(read_metrics(run / REPORT), metrics)
        except (OSError, ValueError) as error:  # documented
            raise UserError(str(error)) from None

    metrics, table = read_metrics(run / REPORT), read_score_table(model) or {}
    by_rerank = [path for path in _all(model) if path.name not in (hub.TRAINING_CONFIG, SCORE_TABLE_FILE)]
    return [
        Kind("checkpoints, to resume", [last], read_last),
        Kind("checkpoints, as a model", [last], lambda: _model(load_clvp(last))),
        Kind("finished.json", [run / FINISHED], read_mark),
        Kind("model folder", by_rerank, rerank_with),
        Kind("model/training_config.yaml", [model / hub.TRAINING_CONFIG], publish),
        Kind("score_table.json", [model / SCORE_TABLE_FILE], lambda: _known(read_score_table(model), table)),
        Kind("report/metrics.json", [run / REPORT / METRICS_FILE], read_report),
        Kind("report, to publish", [path for path in _all(run / REPORT) if path.name != SCORE_TABLE_FILE], publish),
    ]


def _tortoises(folder: Path) -> list[Kind]:
    composite, original, custom = (folder / name for name in ("tortoise", "original", "custom"))
    shutil.copytree(NANO, composite)
    write_original(original, codes=96)
    (folder / "custom").mkdir()
    with recording_digests(custom):
        train_custom_tokenizer(TEXTS, 40).save_pretrained(custom)
    tortoise = FrozenTortoise.from_pretrained(composite)
    recognizer: Any = SimpleNamespace(fingerprint=lambda: "r", open=lambda device: lambda clips: ["Grüße"] * len(clips))
    codes = [np.array([1, 2, 3]), np.array([4, 5])]
    hear = lambda: transcripts(codes, tortoise, recognizer, str(folder / "cache"))  # noqa: E731
    hear()
    return [
        Kind("Tortoise folder", _all(composite), lambda: _tortoise(FrozenTortoise.from_pretrained(composite))),
        Kind(
            "original Tortoise (.pth)",
            _all(original, "*.pth"),
            lambda: _tortoise(FrozenTortoise.from_pretrained(original)),
        ),
        Kind("custom tokenizer", _all(custom), lambda: _tokens(read_custom_tokenizer(custom))),
        Kind("transcripts (jsonl)", _all(folder / "cache"), hear),
    ]


def _exports(folder: Path, model: CLVPModel) -> list[Kind]:
    file, composite = folder / "clvp2.pth", folder / "export"
    model.save_tortoise(file)
    model.save_transformers(composite, base=NANO)
    encoders = _all(composite, "config.json", "*.safetensors", "SHA256SUMS")
    return [
        Kind("clvp2.pth", [file], lambda: _model(load_clvp(file))),
        Kind("composite Clvp", encoders, lambda: _model(load_clvp(composite))),
    ]


def _all(folder: Path, *patterns: str) -> list[Path]:
    """The files that are read; README.md is not."""
    found = [path for pattern in patterns or ("**/*",) for path in sorted(folder.glob(pattern))]
    return [path for path in found if path.is_file() and path.name != "README.md"]


def _settings(run: Path) -> Any:
    return OmegaConf.create({"paths": {"output": str(run)}, "trainer": {"max_epochs": 2, "max_steps": -1}})


def _known(values: Any, keys: Iterable[str]) -> Any:
    """Only these: a flip in the name "sha256" leaves the values as they are, with one more."""
    return None if values is None else {key: values.get(key) for key in keys}


def _model(model: CLVPModel) -> Any:
    return weights_digest(model), model.config.to_dict()


def _tokens(tokenizer: Any) -> Any:
    return sorted(tokenizer.get_vocab().items()), [tokenizer(text)["input_ids"] for text in TEXTS]


def _tortoise(tortoise: Any) -> Any:
    weights = [weights_digest(part) for part in (tortoise.autoregressive, tortoise.dvae) if part is not None]
    return weights, tortoise.sampling, tortoise.feature_extractor.to_dict(), _tokens(tortoise.tokenizer)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.shape, value.numpy().tobytes()
    return {key: _plain(child) for key, child in value.items()} if isinstance(value, dict) else value
