"""A callback of Lightning: stops when the model is good enough.

PYTHONPATH=examples python train.py --config-dir examples/conf "callbacks=[default,good_enough]"
"""

import lightning as L


class StopWhenGoodEnough(L.Callback):
    """Ends training after the validation in which a metric has reached a value."""

    def __init__(self, monitor: str, value: float) -> None:
        self.monitor, self.value = monitor, value

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        reached = trainer.callback_metrics[self.monitor] >= self.value
        if reached and not trainer.sanity_checking:
            trainer.should_stop = True
            print(f"{self.monitor} has reached {self.value}")
