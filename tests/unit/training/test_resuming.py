"""A training that is stopped or killed after every single step equals an undisturbed one: weights, log, and files."""

import csv
import os
import signal
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import Stopped
from clvp_train.models import CLVPModel
from clvp_train.training import (
    EMA,
    AtomicCheckpointIO,
    BestCheckpoint,
    CLVPModule,
    CSVLog,
    LastCheckpoint,
    OptimConfig,
    RunState,
    StepMonitor,
    warmup_cosine,
)
from tests.unit.pairs_folder import pair, write_folder

STEPS = 7  # of three an epoch
# measured from the second batch of a process
SPEEDS = ("train/pairs_per_second", "train/tokens_per_second", "train/padding", "train/mfu", "train/data_seconds")


class Killed(Exception):
    pass


class Disturbance(L.Callback):
    """A signal after a step; or an exception once the best checkpoint of a step is written, as if the process were killed."""

    def __init__(self, how, step):
        self.how, self.step = how, step

    def on_train_batch_end(self, trainer, *_):
        if self.how == "signal" and trainer.global_step >= self.step:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_validation_end(self, trainer, *_):
        if self.how == "kill" and trainer.global_step >= self.step:
            raise Killed

    on_train_batch_start = on_validation_end


def fit(config, folder, pairs, settings, how="", step=0, scheduler=warmup_cosine, every=None, patience=99):
    """Trains in a folder; resumes if it holds a checkpoint. Returns the best score."""
    last = folder / "checkpoints/last.ckpt"
    best = {"monitor": "val/MRR", "mode": "max", "filename": "best-step={step}", "auto_insert_metric_name": False}
    best |= {"save_on_train_epoch_end": False, "enable_version_counter": False}
    stopping = EarlyStopping("val/MRR", mode="max", patience=patience, check_on_train_epoch_end=False)
    callbacks = [stopping, EMA(0.5), LastCheckpoint(last.parent, every), BestCheckpoint(last.parent, **best)]
    trainer = L.Trainer(
        accelerator="cpu",
        logger=CSVLog(folder),
        callbacks=[*callbacks, LearningRateMonitor(), StepMonitor()],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        **settings,
    )
    torch.manual_seed(0)
    data, state = CLVPDataModule(pairs, batch_size=3, num_hard_negatives=1), RunState({}, {}, [])
    trainer.callbacks += [state, Disturbance(how, step)]
    resume = str(last) if last.exists() else None
    if resume:
        (epoch, batches), _ = state.resume(resume, trainer, data.steps_per_epoch)
        data.resume_at(epoch, batches)
    optim = OptimConfig(lr=1e-2, scheduler=scheduler)
    module = CLVPModule(CLVPModel(config), optim=optim, total_steps=STEPS, val_names=["pairs"])
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return trainer.checkpoint_callbacks[-1].best_model_score


def contents(folder):
    """The log without speeds, the names of the checkpoints, and the last one."""
    with (folder / "logs/metrics.csv").open() as file:
        log = [{name: value for name, value in row.items() if name not in SPEEDS} for row in csv.DictReader(file)]
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    return log, names, torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"max_steps": STEPS}, {}),
        ({"max_steps": STEPS, "check_val_every_n_epoch": None, "val_check_interval": 2}, {"every": 2}),
        ({"max_epochs": 3, "val_check_interval": 2}, {"every": 1}),
        ({"max_epochs": 9, "accumulate_grad_batches": 2}, {"patience": 1}),
        ({"max_epochs": 3}, {"scheduler": partial(ReduceLROnPlateau, patience=0)}),
    ],
    ids=["steps", "validation across epochs", "validation in epochs", "early stopping", "plateau"],
)
def test_a_training_that_is_disturbed_after_every_step(model, tmp_path, settings, more):
    pairs = write_folder(tmp_path / "pairs", [[pair(number) for number in range(1, 32)]])
    score = fit(model.config, tmp_path / "undisturbed", pairs, settings, **more)
    num_stops = 0
    for step in range(1, STEPS + 4):
        for how in ("signal", "kill"):
            try:
                found = fit(model.config, tmp_path / "disturbed", pairs, settings, how, step + (how == "kill"), **more)
            except (Stopped, Killed):
                num_stops += 1
    assert num_stops > STEPS and found == score
    (log, names, stored), (expected_log, expected_names, expected) = map(
        contents, (tmp_path / "disturbed", tmp_path / "undisturbed")
    )
    assert log == expected_log and names == expected_names
    for name in ("state_dict", "current_model_state"):
        assert all(torch.equal(stored[name][key], tensor) for key, tensor in expected[name].items())
