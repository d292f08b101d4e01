"""From a config to a run: pairs, training, report."""

import logging
import warnings
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.plugins.environments import LightningEnvironment
from omegaconf import DictConfig, OmegaConf

from clvp_train import codes
from clvp_train.command import command
from clvp_train.data import CLVPDataModule
from clvp_train.errors import UserError, check_number
from clvp_train.launch import on_all_ranks
from clvp_train.metrics import MODE, PRIMARY, print_report, write_report
from clvp_train.models import CLVPModel, load_clvp
from clvp_train.training import CLVPModule

PACKAGE = Path(__file__).resolve().parent
# the wheel carries the folder inside the package
DATA = PACKAGE / "bundled" if (PACKAGE / "bundled").is_dir() else PACKAGE.parent / "data"
log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of a deprecated torch name
warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # the metrics are those of all ranks already

OmegaConf.register_new_resolver("clvp_train_data", lambda: str(DATA), replace=True)
OmegaConf.register_new_resolver("native_dtype", lambda: "bfloat16" if _native_bfloat16() else "float32", replace=True)
OmegaConf.register_new_resolver(
    "native_precision", lambda: "bf16-mixed" if _native_bfloat16() else "32-true", replace=True
)
OmegaConf.register_new_resolver("primary_metric", lambda: PRIMARY, replace=True)
OmegaConf.register_new_resolver("primary_mode", lambda: MODE, replace=True)


def _native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware; emulated, they are slower than float32."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def make_pairs(cfg: DictConfig) -> str:
    """The folder of pairs that the config describes, made if it is not there yet."""
    if cfg.get("pairs"):
        return str(cfg.pairs)
    return codes.generate(
        instantiate(cfg.corpus),
        instantiate(cfg.tortoise),
        instantiate(cfg.codes),
        cache_dir=cfg.paths.codes,
        folder=cfg.get("output_dir"),
        test_percent=cfg.split.test_percent,
        val_percent=cfg.split.val_percent,
    )


def run_generate(cfg: DictConfig) -> None:
    """Makes pairs and prints what they are."""
    _on_all_ranks(cfg)
    if cfg.num_candidates is not None:
        if "num_candidates" not in cfg.codes:
            raise UserError("num_candidates=… is for codes=ar: a recording has one sequence of codes")
        cfg.codes.num_candidates = cfg.codes.num_eval_candidates = cfg.num_candidates
    folder = make_pairs(cfg)
    if codes.rank_and_world_size()[0] == 0:
        print("\n".join([*codes.report_lines(codes.read_manifest(folder).report), f"pairs: {folder}"]))


def run_train(cfg: DictConfig) -> float | None:
    """Trains, saves the best model, tests it. Returns the primary metric on the test split, for sweeps."""
    _on_all_ranks(cfg)
    _seed(cfg)
    # before the pairs, so that a bad setting shows before the work
    loss, optim, trainer = instantiate(cfg.loss), instantiate(cfg.optim), _trainer(cfg)
    datamodule: CLVPDataModule = instantiate(cfg.data, pairs=make_pairs(cfg))
    datamodule.check(trainer.world_size, ("val", "test") if cfg.test else ("val",))
    manifest = datamodule.manifest
    vocabularies = {
        "text_config.vocab_size": manifest.text_vocab_size,
        "speech_config.vocab_size": manifest.speech_vocab_size,
    }
    model = _build_model(cfg.model, vocabularies)
    _check_vocabularies(model, datamodule, "model")
    if trainer.is_global_zero and trainer.logger is not None:
        trainer.logger.log_hyperparams(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)))
    module = CLVPModule(model, loss, optim, _total_steps(trainer, datamodule), cfg.chunk_size)
    trainer.fit(module, datamodule)

    output, best = Path(cfg.paths.output), _best_checkpoint(trainer)
    if trainer.is_global_zero:
        trained = load_clvp(best) if best else model
        trained.save_pretrained(output / "model")
        codes.copy_tokenizer(datamodule.folder, output / "model")
        log.info("model: %s", output / "model")
    if not cfg.test:
        return None
    trainer.test(module, datamodule, ckpt_path=best, weights_only=True, verbose=False)
    if trainer.is_global_zero:
        _report(module, datamodule, str(best or "the weights at the end of training"), output)
    return trainer.callback_metrics["test/R@1"].item()


def run_evaluate(cfg: DictConfig) -> None:
    """Embeds the test split with a checkpoint and writes the report."""
    _on_all_ranks(cfg)
    _seed(cfg)
    model = load_clvp(cfg.checkpoint)
    datamodule: CLVPDataModule = instantiate(cfg.data, pairs=make_pairs(cfg))
    _check_vocabularies(model, datamodule, f"checkpoint={cfg.checkpoint}")
    datamodule.check_not_empty("test")
    trainer = _instantiate_trainer(cfg, logger=False, enable_checkpointing=False)
    module = CLVPModule(model, chunk_size=cfg.chunk_size)
    trainer.test(module, datamodule, verbose=False)
    if trainer.is_global_zero:
        _report(module, datamodule, str(cfg.checkpoint), Path(cfg.paths.output))


def _build_model(cfg: DictConfig, vocabularies: dict[str, int]) -> CLVPModel:
    if "config" in cfg:  # a model from scratch, whose vocabularies are those of the pairs unless it names others
        cfg = cfg.copy()
        for name, size in vocabularies.items():
            if OmegaConf.select(cfg.config, name) is None:
                OmegaConf.update(cfg.config, name, size, force_add=True)
    return instantiate(cfg, _convert_="all")


def _trainer(cfg: DictConfig) -> L.Trainer:
    callbacks = [instantiate(callback) for callback in cfg.callbacks.values() if callback is not None]
    logger = instantiate(cfg.logger)
    return _instantiate_trainer(cfg, callbacks=callbacks, logger=logger, default_root_dir=cfg.paths.output)


def _instantiate_trainer(cfg: DictConfig, **settings: Any) -> L.Trainer:
    # Lightning itself takes any value for these and fails later
    for name in ("max_epochs", "max_steps", "num_nodes", "log_every_n_steps"):
        if cfg.trainer.get(name) is not None:
            check_number(f"trainer.{name}", cfg.trainer[name], -1 if name.startswith("max") else 1)
    try:
        return instantiate(cfg.trainer, **settings)
    except InstantiationException as error:
        raise UserError(f"trainer: {error.__cause__ or error}: check the settings of trainer=…") from None


def _on_all_ranks(cfg: DictConfig) -> None:
    logging.disable(logging.INFO)  # the trainer that runs says it again
    try:
        wanted = _instantiate_trainer(cfg, logger=False, enable_checkpointing=False, plugins=LightningEnvironment())
    finally:
        logging.disable(logging.NOTSET)
    on_all_ranks(wanted)


def _seed(cfg: DictConfig) -> None:
    check_number("seed", cfg.seed, 0)
    L.seed_everything(cfg.seed, workers=True)


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


def _check_vocabularies(model: CLVPModel, datamodule: CLVPDataModule, name: str) -> None:
    manifest, config = datamodule.manifest, model.config
    for kind, needed, has in (
        ("text", manifest.text_vocab_size, config.text_config.vocab_size),
        ("speech", manifest.speech_vocab_size, config.speech_config.vocab_size),
    ):
        if needed != has:
            raise UserError(
                f"{name} has {has} {kind} tokens, but the pairs in {datamodule.folder} have {needed}: they come from "
                "another Tortoise; set tortoise=… to the one that the model was trained with"
            )


def _report(module: CLVPModule, datamodule: CLVPDataModule, checkpoint: str, output: Path) -> None:
    manifest = datamodule.manifest
    metrics: dict[str, Any] = {
        **module.metrics,
        "split": "test",
        "checkpoint": checkpoint,
        "data": {"corpus": manifest.corpus, "codes": manifest.source, "fingerprint": manifest.fingerprint},
    }
    path = write_report(metrics, output / "report")
    print_report(metrics)
    print(f"report: {path}")


train = command("train", run_train)
evaluate = command("evaluate", run_evaluate)
generate = command("generate", run_generate)
