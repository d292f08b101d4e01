"""Moving average of the weights, and tables and figures for TensorBoard and W&B."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL.Image import Image
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clvp_train.metrics import mean_of_directions
from clvp_train.report import FigureData, draw, png, table_lines, tables
from clvp_train.training.module import CLVPModule


class EMA(WeightAveraging):
    """Validates, saves and returns an exponential moving average of the weights. Training continues with the weights
    themselves.

    Args:
        decay: share of the average that is kept in a step. In step n it is at most (1 + n) / (10 + n), so that a short run does
            not average its random initialisation.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(use_buffers=False)
        self.decay = decay

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._average_model = _Average(module, self.decay)

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.module.to(module.device)  # the module is there now; the counter stays on the host


class _Average(AveragedModel):
    """Updated in place on the device of the weights, without a read from it."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    def update_parameters(self, model: nn.Module) -> None:
        n = int(self.n_averaged)
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        get_ema_multi_avg_fn(decay)(list(self.module.parameters()), list(model.parameters()), n)
        self.n_averaged += 1


class ValidationPictures(L.Callback):
    """Logs figures of every validation: recall, retrieval ranks, scores and similarities."""

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, CLVPModule)
        if module.validated is None or trainer.sanity_checking:
            return
        if trainer.is_global_zero and _shows_pictures(trainer.loggers):
            step = trainer.global_step - 1  # that of the metrics of this validation
            _log_figures(trainer.loggers, draw(FigureData.from_retrieval(*module.validated)), "val", step)


def log_report(loggers: Sequence[Logger], metrics: dict[str, Any], pictures: FigureData, step: int) -> None:
    """Logs the tables and figures of the test report, and its numbers as `test/…`. For rank 0."""
    means = {f"test/{name}": value for name, value in mean_of_directions(metrics).items()}
    for logger in loggers:
        logger.log_metrics(means, step)
        logger.save()
    if not _shows_pictures(loggers):
        return
    _log_figures(loggers, draw(pictures), "test", step)
    for table in tables(metrics):
        key = f"test/{table.title.partition(' (')[0]}"
        for logger in loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(key, "\n".join(table_lines(table)), step)
            elif isinstance(logger, WandbLogger) and table.rows:
                columns = [word or "quantity" for word in table.header]
                logger.log_table(key, columns=columns, data=[list(row) for row in table.rows], step=step)
    for logger in loggers:
        logger.save()


def _shows_pictures(loggers: Sequence[Logger]) -> bool:
    return any(isinstance(logger, (TensorBoardLogger, WandbLogger)) for logger in loggers)


def _log_figures(loggers: Sequence[Logger], figures: dict[str, tuple[str, Figure]], prefix: str, step: int) -> None:
    for name, (title, figure) in figures.items():
        image: Image = png(figure)
        for logger in loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"{prefix}/{name}", np.asarray(image), step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image(f"{prefix}/{name}", [image], step=step, caption=[title])
