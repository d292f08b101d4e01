"""Trains a CLVP: pairs, fit, evaluation of the best checkpoint, publishing."""

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from clvp_train import pairs
from clvp_train.corpus import Split
from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import Findings, UserError
from clvp_train.evaluation import EvaluationData, prepare
from clvp_train.io import MODEL, REPORT
from clvp_train.io.digests import recording_digests
from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.metrics import TokenPairs, count_token_pairs
from clvp_train.models import CLVPModel, load_clvp
from clvp_train.pipelines import build, interfaces
from clvp_train.pipelines.checks import check_pairs
from clvp_train.pipelines.config import without_secrets
from clvp_train.pipelines.data import code_sources, make_datamodule, tortoise_of
from clvp_train.pipelines.evaluate import check_settings, evaluate_checkpoints, make_reranking
from clvp_train.pipelines.evaluation_report import write_score_table
from clvp_train.pipelines.import_pairs import import_tables
from clvp_train.pipelines.push import check_hub, publish_run, write_training_config
from clvp_train.pipelines.resume import Start, open_run, reopen, report_finished, resolve_resume, write_mark
from clvp_train.tortoise import CLVPProcessor
from clvp_train.training import AtomicCheckpointIO, CLVPModule, RunState, WandbLog, log_report

log = logging.getLogger(__name__)
MAX_TEXTS = 100_000  # of a folder, whose pairs of tokens are counted
warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # true whenever a run resumes
warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # the metrics are those of all ranks already
warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")  # the DataModule starts where it should


def train(cfg: DictConfig) -> float | None:
    """Trains, saves the best model, evaluates it on the test split and publishes it if asked to. Of a run that resumes, it does
    what is missing.

    Returns:
        The best value of the primary metric in validation, for sweeps; None without a validation.
    """
    start = resolve_resume(cfg)
    if start.is_finished:
        return report_finished(start)
    with open_run(start):
        return _train(start)


def _train(start: Start) -> float | None:
    cfg = start.cfg
    # check: everything that can be known before any codes are drawn is reported together
    build.all_ranks(cfg)
    build.seed(cfg)
    found, tortoise, loaded = Findings(), tortoise_of(cfg), None
    with found.collecting():
        hub, repo_id = check_hub(cfg) if rank_and_world_size()[0] == 0 else (None, None)
    with found.collecting():
        perturbations, rerank = check_settings(cfg)
    with found.collecting():
        loss = interfaces.build_part("loss", cfg.loss, interfaces.Loss)
        optim, training = instantiate(cfg.optim), instantiate(cfg.training)
        _check_judged(cfg, loss)
    with found.collecting():
        interfaces.check_class("model", cfg.model, interfaces.Model)
        loaded = None if build.is_from_scratch(cfg) else instantiate(cfg.model, _convert_="all")
    evaluated: tuple[Split, ...] = ("val", "test") if cfg.test else ("val",)
    plan = check_pairs(cfg, tortoise, {"model.checkpoint": loaded} if loaded is not None else {}, found, evaluated)
    found.report()
    # build
    trainer = _trainer(cfg)
    import_tables(cfg)
    datamodule = make_datamodule(cfg, tortoise, plan)
    datamodule.check(trainer.world_size, evaluated)
    model = build.model(cfg, datamodule, tortoise, loaded)
    total_steps = _total_steps(trainer, datamodule)
    module = CLVPModule(model, loss, optim, total_steps, training, cfg.seed, datamodule.val_names)
    build.check_optim(module)
    limit, reranking = datamodule.served_codes, None
    if cfg.test:
        reranking = make_reranking(cfg, datamodule, perturbations, rerank, limit, tortoise)
    recordings = {} if cfg.pairs is not None else build.recording_parts(tortoise())
    del tortoise, plan  # frees their memory
    # run
    state = build.run_state(cfg, start.overrides, trainer, datamodule, model, total_steps)
    _fit(start, trainer, module, datamodule, state)
    # report
    output, best = Path(cfg.paths.output), _best_checkpoint(trainer)
    trained = load_clvp(best) if best else model
    if trainer.is_global_zero:
        _save_model(cfg, trained, datamodule, output / MODEL, recordings)
    if reranking is not None:
        # only now: the test split of a large corpus takes as much memory as all of training
        data = prepare(datamodule, perturbations, reranking, cfg.reference, limit)
        _evaluate(cfg, trainer, best, trained, datamodule, data)
    _end_wandb(trainer, output / MODEL)
    if hub is not None and hub.is_enabled:
        publish_run(output, hub, repo_id)
    score = _best_score(trainer)
    if trainer.is_global_zero:
        write_mark(cfg, score)
    return score


def _check_judged(cfg: DictConfig, loss: nn.Module) -> None:
    """Raises UserError if a loss needs qualities of candidates and the data or the codes to be drawn have none."""
    num_judged, positive_share = cfg.data.get("num_judged_negatives", 0), cfg.data.get("judged_positive_share", 1)
    if getattr(loss, "needs_qualities", False) and num_judged == 0:
        raise UserError(
            f"loss={type(loss).__name__}: needs candidates with a quality. Set data.num_judged_negatives to 1 or more."
        )
    needs_quality = num_judged > 0 or positive_share < 1
    if needs_quality and not cfg.pairs and not any(source.has_quality for source in code_sources(cfg).values()):
        setting = "num_judged_negatives" if num_judged else "judged_positive_share"
        raise UserError(
            f"data.{setting}: no source of codes has a judge. Add codes/judge=recordings, or set pairs to a folder of "
            "judged pairs."
        )


def _trainer(cfg: DictConfig) -> L.Trainer:
    return build.trainer(
        cfg,
        logger=build.named(cfg, "logger") or False,
        callbacks=build.named(cfg, "callbacks"),
        enable_model_summary=bool(cfg.trainer.get("enable_model_summary")),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=cfg.paths.output,
    )


def _total_steps(trainer: L.Trainer, datamodule: CLVPDataModule) -> int:
    """How many optimiser steps training takes: the first limit that it reaches. Raises UserError if no validation fits."""
    batches, limit = datamodule.steps_per_epoch, trainer.limit_train_batches
    batches = min(batches, limit if isinstance(limit, int) else int(batches * limit))
    interval = trainer.val_check_interval
    most = batches if trainer.check_val_every_n_epoch is not None else interval
    if interval == 0 or (isinstance(interval, int) and interval > most):
        raise UserError(
            f"trainer.val_check_interval={interval}: must be between 1 and the {batches} batches of an epoch. Change it, "
            "or set trainer.check_val_every_n_epoch=null to count batches over epochs."
        )
    steps_per_epoch = -(-batches // trainer.accumulate_grad_batches)
    limits = [trainer.max_steps, (trainer.max_epochs or 0) * steps_per_epoch]
    return min((limit for limit in limits if limit > 0), default=1)


def _fit(start: Start, trainer: L.Trainer, module: CLVPModule, datamodule: CLVPDataModule, state: RunState) -> None:
    """Trains, from the checkpoint of `cfg.resume` if there is one."""
    cfg = start.cfg
    trainer.callbacks.insert(0, state)  # type: ignore[attr-defined]
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad) / 1e6
    device, precision, steps = trainer.strategy.root_device.type, trainer.precision, module.total_steps
    log.info("training %.1f M parameters for %d steps on %s, %s", parameters, steps, device, precision)
    if cfg.resume:
        (epoch, batches), changes = state.resume(cfg.resume, trainer, datamodule.steps_per_epoch)
        datamodule.resume_at(epoch, batches)
        reopen(start)
        message = "".join(f"; {change}" for change in changes)
        log.info("resuming from %s at epoch %d, batch %d%s", cfg.resume, epoch, batches, message)
    for logger in trainer.loggers:
        logger.log_hyperparams(without_secrets(cfg))
    trainer.fit(module, datamodule, ckpt_path=cfg.resume, weights_only=True)


def _save_model(
    cfg: DictConfig, model: CLVPModel, datamodule: CLVPDataModule, folder: Path, recordings: dict[str, Any]
) -> None:
    """Writes the model with its processor, which has the tokenizer of its pairs, and the settings of its training."""
    tokenizer, max_codes = pairs.open_tokenizer(datamodule.folder), datamodule.collate.max_codes
    processor = CLVPProcessor.for_model(model.config, tokenizer, max_codes=max_codes, **recordings)
    with recording_digests(folder):
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_training_config(cfg, folder)
        if (token_pairs := _token_pairs(datamodule)) is not None:
            token_pairs.write(folder)
    log.info("model: %s", folder)


def _token_pairs(datamodule: CLVPDataModule) -> TokenPairs | None:
    """The token pairs of the training texts, by which unfamiliar texts are recognised; None for a model of voices."""

    def texts(split: Split) -> Iterator[list[int]]:
        for name, splits in datamodule.mixture.splits.items():
            if split != "train" or datamodule.mixture.weights[name] > 0:
                places = splits[split].text_index.first()[:MAX_TEXTS]
                yield from (splits[split][place]["input_ids"].tolist() for place in places.tolist())

    return None if datamodule.manifest.matches_voices else count_token_pairs(texts("train"), texts("val"))


def _evaluate(
    cfg: DictConfig,
    trainer: L.Trainer,
    checkpoint: str | None,
    model: CLVPModel,
    datamodule: CLVPDataModule,
    data: EvaluationData,
) -> None:
    """Writes the report of a model, and its score table next to its weights."""
    output = Path(cfg.paths.output)
    name = os.path.relpath(checkpoint, output) if checkpoint else "the weights at the end of training"
    (evaluation,) = evaluate_checkpoints(cfg, {name: lambda: model}, datamodule, data, output / REPORT, output)
    if trainer.is_global_zero:
        write_score_table(evaluation.metrics, output / MODEL)
        log_report(trainer.loggers, evaluation.metrics, evaluation.figure_data, trainer.global_step)


def _end_wandb(trainer: L.Trainer, model: Path) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, WandbLog):
            logger.end(model)


def _best_checkpoint(trainer: L.Trainer) -> str | None:
    """The best checkpoint by the primary metric, else the last one."""
    paths = [getattr(callback, "best_model_path", "") for callback in trainer.checkpoint_callbacks]
    paths += [getattr(callback, "last_model_path", "") for callback in trainer.checkpoint_callbacks]
    return next((path for path in paths if path), None)


def _best_score(trainer: L.Trainer) -> float | None:
    scores = [getattr(callback, "best_model_score", None) for callback in trainer.checkpoint_callbacks]
    return next((score.item() for score in scores if score is not None), None)
