"""The training loop's parts."""

from clvp_train.training.callbacks import LastCheckpoint
from clvp_train.training.loggers import wandb_logger
from clvp_train.training.module import CLVPModule
from clvp_train.training.optim import OptimConfig

__all__ = ["CLVPModule", "LastCheckpoint", "OptimConfig", "wandb_logger"]
