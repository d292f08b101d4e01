"""What a run trains with: LightningModule, optimiser and schedule, checkpoints, callbacks and loggers."""

from clvp_train.training.batch_encoder import TrainingConfig
from clvp_train.training.callbacks import EMA, ValidationPictures, log_report
from clvp_train.training.checkpointing import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from clvp_train.training.loggers import CSVLog, TensorBoardLog, WandbLog
from clvp_train.training.module import CLVPModule
from clvp_train.training.optim import OptimConfig, warmup_cosine
from clvp_train.training.progress import TrainingProgress
from clvp_train.training.run_state import RunState
from clvp_train.training.step_monitor import StepMonitor

__all__ = [
    "EMA",
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "CLVPModule",
    "CSVLog",
    "LastCheckpoint",
    "OptimConfig",
    "RunState",
    "StepMonitor",
    "TensorBoardLog",
    "TrainingConfig",
    "TrainingProgress",
    "ValidationPictures",
    "WandbLog",
    "log_report",
    "warmup_cosine",
]
