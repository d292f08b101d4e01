"""What a checkpoint stores about its run beyond Lightning's own state, and how a run resumes from it.

Lightning restores weights, optimiser, schedule and callbacks. Stored here: epoch and batch, the number of rows in each log, and
the settings that must not change.
"""

import logging
import math
from typing import Any

import lightning as L
from torch.optim.lr_scheduler import LambdaLR

from clvp_train.errors import UserError
from clvp_train.training.checkpointing import RUN_KEY, read_checkpoint
from clvp_train.training.loggers import CSVLog, WandbLog

log = logging.getLogger(__name__)
STEPS = "number of steps"  # a setting that extends a run


class RunState(L.Callback):
    """Stores the settings of the run and its position in every checkpoint, and resumes at this position.

    Args:
        fixed: settings that must not change when the run resumes, by the names that a user types; plain values.
        free: settings that may change.
        overrides: the overrides that the run was started with, from which `resume=` composes its config.
    """

    def __init__(self, fixed: dict[str, Any], free: dict[str, Any], overrides: list[str]) -> None:
        self.fixed, self.free, self.overrides = fixed, free, overrides
        self._position = (0, 0)  # epoch and number of its batches that are done
        self._has_ended = False  # before the last step, as by early stopping
        self._log: dict[str, Any] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        epoch, batches = trainer.current_epoch, batch_index + 1
        self._position = (epoch, batches) if batches < trainer.num_training_batches else (epoch + 1, 0)

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            logger.save()  # what is not on the disk yet would be lost if the process is killed
        rows = {type(log).__name__: log.rows for log in trainer.loggers if isinstance(log, (CSVLog, WandbLog))}
        state = {"fixed": self.fixed, "free": self.free, "overrides": self.overrides, "log": {"rows": rows}}
        checkpoint[RUN_KEY] = state | {
            "position": list(self._position),
            "has_ended": trainer.should_stop,
            "has_mark": True,  # see `pipelines.resume`
        }

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._log = checkpoint[RUN_KEY]["log"]
        trainer.should_stop = self._has_ended
        _set_position(checkpoint, *self._position)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if "waiting" in self._log:  # a row that earlier versions had not logged yet when they saved
            for logger in trainer.loggers:
                logger.log_metrics(self._log["waiting"], self._log["step"])
        self._log = {}
        _warn_of_other_rates(trainer)
        if trainer.ckpt_path is not None:
            # with max_steps Lightning would skip the first validation, and otherwise the epoch's step of ReduceLROnPlateau; the
            # setter of `restarting` always sets it with max_steps
            loop = trainer.fit_loop
            loop._restarting = False
            loop.epoch_loop.restarting = self._position[1] > 0

    def resume(self, path: str, trainer: L.Trainer, steps_per_epoch: int) -> tuple[tuple[int, int], list[str]]:
        """Prepares this callback and the loggers to resume, before training starts.

        Args:
            path: a complete checkpoint.
            trainer: of the run that resumes.
            steps_per_epoch: batches in an epoch.

        Returns:
            The epoch and the number of its batches that are done; and what has changed since, in words.

        Raises:
            UserError: not a checkpoint of a run, or of one with other settings.
        """
        checkpoint = read_checkpoint(path)
        stored = checkpoint[RUN_KEY]
        changed = _differences(stored["fixed"], self.fixed)
        if changed:
            raise UserError(
                f"resume={path}: these settings cannot change in a run: {'; '.join(changed)}. Restore them, or start a new run "
                f"from the weights with model=pretrained model.checkpoint={path}."
            )
        rows = stored["log"]["rows"]
        for logger in trainer.loggers:
            if isinstance(logger, (CSVLog, WandbLog)) and trainer.is_global_zero:
                # checkpoints of earlier versions, which had a single logger, store one number
                logger.keep(rows if isinstance(rows, int) else rows.get(type(logger).__name__, 0))
        if "position" in stored:
            self._position = tuple(stored["position"])
        else:
            self._position = _lightning_position(checkpoint["loops"]["fit_loop"], steps_per_epoch)
        is_longer = stored["free"].get(STEPS) != self.free.get(STEPS)
        self._has_ended = stored.get("has_ended", False) and not is_longer
        return self._position, _differences(stored["free"], self.free)


def _set_position(checkpoint: dict[str, Any], epoch: int, batches: int) -> None:
    """Sets Lightning's progress counters to `batches` done in `epoch`.

    Lightning counts how many epochs and batches are ready, started, processed, and completed. From the differences it infers
    in which hook a checkpoint was saved, and which hooks of that batch and epoch are left. It is wrong after a second resume
    and at the end of an epoch. Here nothing is ever left, see `LastCheckpoint`: between two epochs all counters are equal;
    between two batches they are those that Lightning itself saves after a batch, which it then completes.
    """
    loop = checkpoint["loops"]["fit_loop"]
    unfinished = 1 if batches > 0 else 0  # epochs that have started, and batches that Lightning will complete
    batches_of_run = loop["epoch_loop.batch_progress"]["total"]["processed"]
    for scope, count in (("total", batches_of_run), ("current", batches)):  # of the run, and of the epoch
        loop["epoch_progress"][scope] = _counters(epoch + unfinished, epoch + unfinished, epoch, epoch)
        loop["epoch_loop.batch_progress"][scope] = _counters(count, count, count, count - unfinished)
        loop["epoch_loop.val_loop.batch_progress"][scope] = _counters(0, 0, 0, 0)
    loop["epoch_loop.batch_progress"]["is_last_batch"] = False
    # the step of the next log row; completing the batch increases it
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"] - unfinished


def _counters(ready: int, started: int, processed: int, completed: int) -> dict[str, int]:
    return {"ready": ready, "started": started, "processed": processed, "completed": completed}


def _warn_of_other_rates(trainer: L.Trainer) -> None:
    """Warns if the learning rate of the checkpoint is not that of the schedule, whose length may have changed since."""
    if trainer.ckpt_path is None:
        return
    for schedule in (config.scheduler for config in trainer.lr_scheduler_configs):
        if not isinstance(schedule, LambdaLR):  # others continue by what the checkpoint stores
            continue
        stored, groups = map(float, schedule.get_last_lr()), zip(schedule.base_lrs, schedule.lr_lambdas)
        planned = [float(lr) * factor(schedule.last_epoch) for lr, factor in groups]
        then, now = max(zip(stored, planned), key=lambda rates: abs(rates[1] - rates[0]))
        if not math.isclose(then, now, rel_tol=0.01):
            log.warning(
                "the learning rate changes from %.3g to %.3g, because its schedule depends on the number of steps. To continue "
                "at a low learning rate, start a new run from the weights with model=pretrained and optim=finetune.",
                then,
                now,
            )


def _lightning_position(loop: dict[str, Any], steps_per_epoch: int) -> tuple[int, int]:
    """The position in a checkpoint of an earlier version, from Lightning's progress counters."""
    epoch, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]["current"]["ready"]
    if epoch["processed"] == epoch["started"]:  # saved after the end of the epoch
        return epoch["processed"], 0
    return (epoch["processed"], batches) if batches < steps_per_epoch else (epoch["processed"] + 1, 0)


def _differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, in words. Settings that only one of two versions of this package has do not count."""
    names = [name for name in then if name in now and then[name] != now[name]]
    return [f"{name} ({then[name]} then, {now[name]} now)" for name in names]
