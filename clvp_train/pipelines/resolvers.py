"""Resolvers that the configs use as `${name:}`, registered on import. torch is imported only when one is resolved."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from clvp_train.io import DATA


def _bfloat16(yes: str, no: str) -> str:
    from clvp_train.pipelines.cpu_features import native_bfloat16

    return yes if native_bfloat16() else no


def _sweep_name() -> str | None:
    """The name of the folder of a sweep; None outside of --multirun."""
    config = HydraConfig.get()
    return Path(config.sweep.dir).name if config.mode == RunMode.MULTIRUN else None


OmegaConf.register_new_resolver("clvp_train_data", lambda: str(DATA), replace=True)
OmegaConf.register_new_resolver("native_dtype", lambda: _bfloat16("bfloat16", "float32"), replace=True)
OmegaConf.register_new_resolver("native_precision", lambda: _bfloat16("bf16-mixed", "32-true"), replace=True)
OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
