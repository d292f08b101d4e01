"""Evaluates checkpoints on the test split and writes their reports."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import Findings, UserError
from clvp_train.evaluation import (
    Embedder,
    Evaluation,
    EvaluationData,
    PerturbationSuite,
    RerankConfig,
    Reranking,
    add_judges,
    check_inputs,
    evaluate_model,
    find_recognizer,
    prepare,
    read_candidates,
)
from clvp_train.evaluation.evaluation_data import RERANKING
from clvp_train.hub import run_of
from clvp_train.io import REPORT
from clvp_train.models import CLVPModel, load_clvp
from clvp_train.pairs import read_manifest
from clvp_train.pipelines import build
from clvp_train.pipelines.checks import check_pairs
from clvp_train.pipelines.data import OpenTortoise, make_datamodule, tortoise_of
from clvp_train.pipelines.evaluation_report import origin, report_page, write_comparison, write_evaluation
from clvp_train.pipelines.import_pairs import import_tables
from clvp_train.pipelines.run_settings import with_run_settings
from clvp_train.report import read_history
from clvp_train.training import CLVPModule, TrainingConfig

LOG = "logs/metrics.csv"  # of a training, in its run folder


def evaluate(cfg: DictConfig) -> None:
    """Evaluates one or several checkpoints on the test split, writes the report and prints a summary."""
    # check: checkpoints are loaded first, so that bad ones are reported before any work
    build.all_ranks(cfg)
    build.seed(cfg)
    names = _checkpoint_names(cfg.checkpoint)
    cfg = with_run_settings(cfg, names[0])
    found, tortoise, models = Findings(), tortoise_of(cfg), {}
    with found.collecting():
        suite, rerank = check_settings(cfg)
    for name in names:
        with found.collecting():
            models[name] = load_clvp(name)
    named = {f"checkpoint={name}": model for name, model in models.items()}
    plan = check_pairs(cfg, tortoise, named, found, ("test",), trains=False)
    del named  # a model is dropped after its evaluation
    found.report()
    # build
    import_tables(cfg)
    datamodule = make_datamodule(cfg, tortoise, plan)
    limit = _shortest_limit(models, datamodule)
    reranking = make_reranking(cfg, datamodule, suite, rerank, limit, tortoise)
    data = prepare(datamodule, suite, reranking, cfg.reference, limit)
    del tortoise, plan  # frees their memory
    # run and report: a model is dropped after its evaluation
    load: dict[str, Callable[[], CLVPModel]] = {name: partial(models.pop, name) for name in names}
    evaluate_checkpoints(cfg, load, datamodule, data, Path(cfg.paths.output) / REPORT)


def check_settings(cfg: DictConfig) -> tuple[PerturbationSuite, RerankConfig]:
    """Returns the settings of the evaluation.

    Raises:
        UserError: a folder of pairs, an ASR model or a file of recordings is missing.
    """
    suite, rerank, found = instantiate(cfg.perturbations), instantiate(cfg.rerank), Findings()
    for folder in (rerank.pairs, cfg.reference):
        with found.collecting():
            if folder is not None:
                read_manifest(folder)
    with found.collecting():
        if rerank.asr is not None:
            find_recognizer(rerank.asr)
    if rerank.recordings is not None and not Path(rerank.recordings).exists():
        found.append(f"rerank.recordings={rerank.recordings}: no such file or folder. Set it to one, or to null.")
    found.report()
    return suite, rerank


def _checkpoint_names(checkpoint: Any) -> list[str]:
    """One checkpoint or several, without repetitions."""
    names = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint or ())
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"checkpoint={checkpoint}: no checkpoint. Set one, or several as in checkpoint=[A,B].")
    return list(dict.fromkeys(names))


def _shortest_limit(models: dict[str, CLVPModel], datamodule: CLVPDataModule) -> int | None:
    """The number of codes that all models see, so that no perturbation is invisible to one of them; None: all codes.

    Raises:
        UserError: a model or its tokenizer does not fit the pairs.
    """
    limits = []
    for name, model in models.items():
        build.match_padding_and_vocabulary(model, datamodule, f"checkpoint={name}")
        build.check_tokenizer(name, datamodule)
        limits.append(datamodule.served_codes)
    return min((limit for limit in limits if limit is not None), default=None)


def make_reranking(
    cfg: DictConfig,
    datamodule: CLVPDataModule,
    suite: PerturbationSuite,
    rerank: RerankConfig,
    limit: int | None,
    tortoise: OpenTortoise,
) -> Reranking:
    """Returns the candidates of the evaluation, drawn now if there are none yet, and checks its other data.

    Args:
        cfg: the composed config.
        datamodule: of the pairs.
        suite, rerank: of `check_settings`.
        limit: number of codes that the model sees at most; None: all.
        tortoise: of `tortoise_of`; draws and decodes candidates.
    """
    check_inputs(datamodule, suite, cfg.reference)
    folder, reason = build.candidates(cfg, datamodule, rerank, tortoise)
    if folder is None:
        return Reranking(left_out={RERANKING: reason})
    data = Reranking(read_candidates(datamodule, folder, rerank.num_texts, limit))
    recognizer = None if rerank.asr is None else find_recognizer(rerank.asr)
    recordings = build.recordings(cfg, datamodule, rerank, data)
    return add_judges(data, folder, tortoise, recognizer, recordings, cfg.paths.codes)


def evaluate_checkpoints(
    cfg: DictConfig,
    models: dict[str, Callable[[], CLVPModel]],
    datamodule: CLVPDataModule,
    data: EvaluationData,
    folder: Path,
    run: Path | None = None,
) -> list[Evaluation]:
    """Evaluates models one after the other; rank 0 then writes their reports and prints a summary.

    Args:
        cfg: the composed config.
        models: by name, a function that loads it.
        datamodule: of the pairs.
        data: of `prepare`.
        folder: of the report. Several models have their reports in subfolders, next to their comparison.
        run: of the training that this evaluation belongs to; None: found by the names.
    """
    trainer = build.evaluation_trainer(cfg)
    chunk_tokens = cfg.training.chunk_tokens if "training" in cfg else cfg.chunk_tokens
    evaluations = []
    for name, load in models.items():
        model = load()
        build.match_padding_and_vocabulary(model, datamodule, f"checkpoint={name}")
        module = CLVPModule(model, training=TrainingConfig(chunk_tokens=chunk_tokens)).eval()
        embedder = Embedder(module, trainer, datamodule.collate, datamodule.eval_batch_size)
        evaluations.append(evaluate_model(data, embedder))
        if trainer.is_global_zero:
            evaluations[-1].metrics.update(origin(name, model, datamodule))
            evaluations[-1].figure_data.history = read_history((run or run_of(name)) / LOG)
    if trainer.is_global_zero:
        pages = [report_page(cfg, name, each, data) for name, each in zip(models, evaluations)]
        if len(pages) == 1:
            write_evaluation(evaluations[0], pages[0], folder)
        else:
            write_comparison(list(models), evaluations, pages, folder)
    return evaluations
