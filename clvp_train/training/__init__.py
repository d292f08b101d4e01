"""The training loop's parts."""

from clvp_train.training.checkpointing import AtomicCheckpointIO, LastCheckpoint
from clvp_train.training.config import TrainingConfig
from clvp_train.training.csv_log import CSVLog
from clvp_train.training.ema import EMA
from clvp_train.training.figures import ValidationPictures, log_report
from clvp_train.training.module import CLVPModule
from clvp_train.training.optim import OptimConfig
from clvp_train.training.run_state import RunState
from clvp_train.training.wandb_log import WandbLog

__all__ = [
    "EMA",
    "AtomicCheckpointIO",
    "CLVPModule",
    "CSVLog",
    "LastCheckpoint",
    "OptimConfig",
    "RunState",
    "TrainingConfig",
    "ValidationPictures",
    "WandbLog",
    "log_report",
]
