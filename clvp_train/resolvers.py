"""What configs may ask for as `${name:}`. Importing this makes it known."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from clvp_train.metrics import MODE, PRIMARY
from clvp_train.native import native_bfloat16
from clvp_train.places import DATA


def _sweep_name() -> str | None:
    """The name of the folder of a sweep, None if there is none."""
    config = HydraConfig.get()
    return Path(config.sweep.dir).name if config.mode == RunMode.MULTIRUN else None


OmegaConf.register_new_resolver("clvp_train_data", lambda: str(DATA), replace=True)
OmegaConf.register_new_resolver("native_dtype", lambda: "bfloat16" if native_bfloat16() else "float32", replace=True)
OmegaConf.register_new_resolver(
    "native_precision", lambda: "bf16-mixed" if native_bfloat16() else "32-true", replace=True
)
OmegaConf.register_new_resolver("primary_metric", lambda: PRIMARY, replace=True)
OmegaConf.register_new_resolver("primary_mode", lambda: MODE, replace=True)
OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
