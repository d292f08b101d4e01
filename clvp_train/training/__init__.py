"""The training loop's parts."""

from clvp_train.training.average import EMA
from clvp_train.training.checkpoints import LastCheckpoint, WholeFiles
from clvp_train.training.config import TrainingConfig
from clvp_train.training.csv_log import CSVLog
from clvp_train.training.going_on import RunState
from clvp_train.training.module import CLVPModule
from clvp_train.training.optim import OptimConfig
from clvp_train.training.pictures import ValidationPictures, log_report
from clvp_train.training.wandb_log import WandbLog

__all__ = [
    "EMA",
    "CLVPModule",
    "CSVLog",
    "LastCheckpoint",
    "OptimConfig",
    "RunState",
    "TrainingConfig",
    "ValidationPictures",
    "WandbLog",
    "WholeFiles",
    "log_report",
]
