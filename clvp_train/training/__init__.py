"""The training loop's parts."""

from clvp_train.training.average import EMA
from clvp_train.training.callbacks import LastCheckpoint
from clvp_train.training.config import TrainingConfig
from clvp_train.training.loggers import wandb_logger
from clvp_train.training.module import CLVPModule
from clvp_train.training.optim import OptimConfig

__all__ = ["EMA", "CLVPModule", "LastCheckpoint", "OptimConfig", "TrainingConfig", "wandb_logger"]
