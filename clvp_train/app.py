"""From a config to a run: pairs, training, report. The only file that imports hydra."""

import difflib
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import hydra
import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clvp_train import codes
from clvp_train.data import CLVPDataModule
from clvp_train.errors import UserError, check_number
from clvp_train.metrics import MODE, PRIMARY, print_report, write_report
from clvp_train.models import CLVPModel, load_clvp
from clvp_train.tortoise import FrozenTortoise
from clvp_train.training import CLVPModule

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
# the wheel carries both folders inside the package
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else ROOT / "conf"
DATA = PACKAGE / "bundled" if (PACKAGE / "bundled").is_dir() else ROOT / "data"
log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of a deprecated torch name

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


def make_pairs(cfg: DictConfig) -> Path:
    """The folder of pairs that the config describes, made if it is not there yet."""
    if cfg.get("pairs"):
        return Path(cfg.pairs)
    return codes.generate(
        instantiate(cfg.corpus),
        instantiate(cfg.tortoise),
        instantiate(cfg.codes),
        Path(cfg.output_dir if "output_dir" in cfg else cfg.paths.codes),
        cfg.split.test_percent,
        cfg.split.val_percent,
    )


def run_generate(cfg: DictConfig) -> None:
    print(f"pairs: {make_pairs(cfg)}")


def run_train(cfg: DictConfig) -> float | None:
    """Trains, saves the best model, tests it. Returns the primary metric on the test split, for sweeps."""
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
        FrozenTortoise.load_tokenizer(datamodule.folder / codes.TOKENIZER).save_pretrained(output / "model")
        log.info("model: %s", output / "model")
    if not cfg.test:
        return None
    trainer.test(module, datamodule, ckpt_path=best, weights_only=True, verbose=False)
    if trainer.is_global_zero:
        _report(module, datamodule, str(best or "the weights at the end of training"), output)
    return trainer.callback_metrics["test/R@1"].item()


def run_evaluate(cfg: DictConfig) -> None:
    """Embeds the test split with a checkpoint and writes the report."""
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
    if HydraConfig.get().mode == hydra.types.RunMode.MULTIRUN and "ddp" in str(cfg.trainer.strategy):
        raise UserError(
            "--multirun cannot start several processes itself: use trainer=cpu or trainer=gpu, or one run per process "
            "with torchrun"
        )
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


def _guarded(run: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    """Runs a command; what a user can mend ends in one line on stderr and exit status 2."""
    try:
        missing = OmegaConf.missing_keys(cfg)
        if missing:
            raise UserError(f"{', '.join(sorted(missing))} must be set: add {sorted(missing)[0]}=… to the command")
        return run(cfg)
    except UserError as error:
        message = str(error)
    except (InstantiationException, OmegaConfBaseException) as error:
        cause = error.__cause__
        expected = (UserError, TypeError, ValueError, RuntimeError)
        if isinstance(error, InstantiationException) and not isinstance(cause, expected):
            raise
        message = str(cause if isinstance(cause, UserError) else error)
    _fail(message)


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _command(config_name: str, run: Callable[[DictConfig], Any]) -> Callable[[], Any]:
    def main(cfg: DictConfig) -> Any:
        return _guarded(run, cfg)

    main.__name__ = config_name
    hydra_main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(main)

    def command() -> Any:
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands over what it would print
        try:
            return hydra_main()
        except CompactHydraException as error:
            message = str(error).split("Config search path:")[0]
        _fail(message + _close_matches(message, config_name))

    return command


def _close_matches(message: str, config_name: str) -> str:
    """What a misspelt setting, which Hydra's message quotes, may stand for."""

    def names(node: Any, prefix: str = "") -> list[str]:
        children = node.items() if isinstance(node, dict) else ()
        return [name for key, child in children for name in (f"{prefix}{key}", *names(child, f"{prefix}{key}."))]

    quoted = re.match(r"Could not override '([^']+)'", message)
    if quoted is None:
        return ""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        known = names(OmegaConf.to_container(hydra.compose(config_name)))
    close = difflib.get_close_matches(quoted[1], [name for name in known if name != quoted[1]], n=1)
    return f"; did you mean {close[0]}?" if close else "; --help lists the settings"


train = _command("train", run_train)
evaluate = _command("evaluate", run_evaluate)
generate = _command("generate", run_generate)
