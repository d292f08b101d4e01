"""From a config to a run: pairs, training, report."""

import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from clvp_train import build, codes
from clvp_train.command import command
from clvp_train.data import CLVPDataModule
from clvp_train.errors import UserError, check_number
from clvp_train.judge import check_settings, evaluation_data, judge, write_score_table
from clvp_train.models import CLVPModel, load_clvp
from clvp_train.places import MODEL, REPORT
from clvp_train.publish import check_hub, publish_run, write_training_config
from clvp_train.tortoise.basic_tokenizer import train_basic_tokenizer
from clvp_train.training import CLVPModule, WandbLog, WholeFiles, log_report

log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of a deprecated torch name
warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # the metrics are those of all ranks already
warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")  # the DataModule begins where it shall


def run_generate(cfg: DictConfig) -> None:
    """Makes pairs and prints what they are."""
    build.all_ranks(cfg)
    if cfg.num_candidates is not None:
        if "num_candidates" not in cfg.codes:
            raise UserError("num_candidates=… is for codes=ar: a recording has one sequence of codes")
        cfg.codes.num_candidates = cfg.codes.num_eval_candidates = cfg.num_candidates
    folder = build.pairs(cfg)
    if codes.rank_and_world_size()[0] == 0:
        print("\n".join([*codes.report_lines(codes.read_manifest(folder).report), f"pairs: {folder}"]))


def run_train(cfg: DictConfig) -> float | None:
    """Trains, saves the best model, tests it. Returns the best value of the primary metric in validation, for sweeps."""
    build.all_ranks(cfg)
    build.seed(cfg)
    is_first = codes.rank_and_world_size()[0] == 0
    hub, repo_id = check_hub(cfg) if is_first else (None, None)
    # before the pairs, so that a bad setting shows before the work
    loss, optim, training = instantiate(cfg.loss), instantiate(cfg.optim), instantiate(cfg.training)
    faults, rerank = check_settings(cfg)
    logger, output = instantiate(cfg.logger), Path(cfg.paths.output)
    callbacks = build.callbacks(cfg)
    settings = {"logger": logger, "default_root_dir": cfg.paths.output, "plugins": [WholeFiles()]}
    trainer = build.trainer(cfg, callbacks=callbacks, **settings)
    datamodule: CLVPDataModule = instantiate(cfg.data, pairs=build.pairs(cfg))
    datamodule.check(trainer.world_size, ("val", "test") if cfg.test else ("val",))
    model = build.model(cfg, datamodule)
    total_steps = _total_steps(trainer, datamodule)
    module = CLVPModule(model, loss, optim, total_steps, training, cfg.seed)
    judged_by = evaluation_data(cfg, datamodule, faults, rerank, datamodule.served_codes) if cfg.test else None
    state = build.run_state(cfg, trainer, datamodule, model, total_steps)
    trainer.callbacks.append(state)  # type: ignore[attr-defined]
    if cfg.resume:
        (epoch, batches), changed = state.go_on(cfg.resume, trainer, datamodule.steps_per_epoch)
        datamodule.go_on_at(epoch, batches)
        log.info(
            "going on from %s at epoch %d, batch %d%s", cfg.resume, epoch, batches, "".join(f"; {c}" for c in changed)
        )
    if trainer.is_global_zero and trainer.logger is not None:
        trainer.logger.log_hyperparams(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)))
    trainer.fit(module, datamodule, ckpt_path=cfg.resume, weights_only=True)

    best = _best_checkpoint(trainer)
    if trainer.is_global_zero:
        trained = load_clvp(best) if best else model
        trained.save_pretrained(output / MODEL)
        codes.copy_tokenizer(datamodule.folder, output / MODEL)
        write_training_config(cfg, output / MODEL)
        log.info("model: %s", output / MODEL)
    scores = [getattr(callback, "best_model_score", None) for callback in trainer.checkpoint_callbacks]
    score = next((score.item() for score in scores if score is not None), None)
    if judged_by is not None:
        name, load = "the weights at the end of training", lambda: model
        if best:
            name, load = os.path.relpath(best, output), lambda: load_clvp(best)
        (found,) = judge(cfg, {name: load}, datamodule, judged_by, output / REPORT)
        if trainer.is_global_zero:
            write_score_table(found.metrics, output / MODEL)
            log_report(trainer.loggers, found.metrics, found.pictures, trainer.global_step)
    for one in trainer.loggers:
        if isinstance(one, WandbLog):
            one.end(output / MODEL)
    if hub is not None and hub.wanted:
        publish_run(output, hub, repo_id)
    return score


def run_evaluate(cfg: DictConfig) -> None:
    """Judges one checkpoint or several by the test split and writes the report."""
    build.all_ranks(cfg)
    build.seed(cfg)
    faults, rerank = check_settings(cfg)
    checkpoints = _named(cfg.checkpoint)
    loaded = {name: load_clvp(name) for name in checkpoints}  # so that a bad one shows before the work
    datamodule: CLVPDataModule = instantiate(cfg.data, pairs=build.pairs(cfg))
    limits: list[int | None] = []
    for name, model in loaded.items():
        build.fit_together(model, datamodule, f"checkpoint={name}")
        build.check_tokenizer(name, datamodule)
        limits.append(datamodule.served_codes)
    models: dict[str, Callable[[], CLVPModel]] = {name: partial(loaded.pop, name) for name in checkpoints}
    # what one of them cannot see, none is asked about
    limit = min((limit for limit in limits if limit is not None), default=None)
    data = evaluation_data(cfg, datamodule, faults, rerank, limit)
    judge(cfg, models, datamodule, data, Path(cfg.paths.output) / REPORT)


def run_train_tokenizer(cfg: DictConfig) -> None:
    """Learns a tokenizer from a corpus's texts and writes it into a folder."""
    output = Path(cfg.output_dir)
    if output.exists() and any(output.iterdir()):
        raise UserError(f"output_dir={output} is not empty: name a new folder")
    check_number("vocab_size", cfg.vocab_size, 1)
    corpus = instantiate(cfg.corpus)
    tokenizer = train_basic_tokenizer((utterance.text for _, utterance in corpus.stream(audio=False)), cfg.vocab_size)
    tokenizer.save_pretrained(output)
    print(f"{len(tokenizer)} tokens: {output}")


def _named(checkpoint: Any) -> list[str]:
    """One checkpoint or several, each once."""
    named = [checkpoint] if isinstance(checkpoint, (str, int)) else list(checkpoint or ())
    if not named or not all(isinstance(name, (str, int)) for name in named):
        raise UserError(f"checkpoint={checkpoint}: name one, or several as in checkpoint=[A,B]")
    return list(dict.fromkeys(map(str, named)))


def _total_steps(trainer: L.Trainer, datamodule: CLVPDataModule) -> int:
    """How many optimiser steps training takes: the first limit that it meets."""
    steps_per_epoch = -(-datamodule.steps_per_epoch // trainer.accumulate_grad_batches)
    limits = [trainer.max_steps, (trainer.max_epochs or 0) * steps_per_epoch]
    return min((limit for limit in limits if limit > 0), default=1)


def _best_checkpoint(trainer: L.Trainer) -> str | None:
    """The best checkpoint by the primary metric, else the last one."""
    paths = [getattr(callback, "best_model_path", "") for callback in trainer.checkpoint_callbacks]
    paths += [getattr(callback, "last_model_path", "") for callback in trainer.checkpoint_callbacks]
    return next((path for path in paths if path), None)


train = command("train", run_train)
evaluate = command("evaluate", run_evaluate)
generate = command("generate", run_generate)
train_tokenizer = command("train_tokenizer", run_train_tokenizer)
