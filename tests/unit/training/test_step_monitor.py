import csv
import time

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from clvp_train.data.loader import TimedLoader
from clvp_train.training import CLVPModule, CSVLog, LastCheckpoint, OptimConfig, StepMonitor
from tests.unit.training.test_module import GradientNorms


class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.02)
        return super().__getitem__(index)


def logged(module, batches, folder, settings, max_steps, **more):
    """The rows of the log, a row every second step."""
    norms, log = GradientNorms(), CSVLog(folder)
    log.keep(99)
    callbacks = [StepMonitor(), norms, LastCheckpoint(folder / "checkpoints")]
    settings = settings | {"logger": log, "enable_checkpointing": True, "log_every_n_steps": 2, **more}
    trainer = L.Trainer(max_steps=max_steps, callbacks=callbacks, **settings)
    last = folder / "checkpoints/last.ckpt"
    loader = TimedLoader(Slow(batches), batch_size=None)
    trainer.fit(module, loader, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    with (folder / "logs/metrics.csv").open() as file:
        return list(csv.DictReader(file)), norms.found


@pytest.mark.parametrize("accumulate", [1, 2])
def test_norm_and_waiting_of_each_logged_step(model, batches, trainer_settings, tmp_path, accumulate):
    module = CLVPModule(model, optim=OptimConfig(gradient_clip_norm=0.0), total_steps=4)
    rows, norms = logged(module, batches, tmp_path, trainer_settings, 4, accumulate_grad_batches=accumulate)
    found = [float(row["train/grad_norm"]) for row in rows]
    # the callback of this test sees a norm when the next step zeroes the gradients
    assert len(found) == 2 and found[0] == pytest.approx(norms[1], rel=1e-5)
    assert all(0.02 < float(row["train/data_seconds"]) < 0.04 for row in rows)
    assert [row["train/skipped_steps"] for row in rows] == ["0.0", "0.0"]
    assert "train/loss_scale" not in rows[0] and "train/memory_gib" not in rows[0]


def test_skipped_steps_are_counted_across_a_resume(model, batches, trainer_settings, tmp_path):
    """With a loss scale that is too large for float16 until it has been halved several times."""

    def steps(count):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
        plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
        return logged(CLVPModule(model, total_steps=8), batches, tmp_path, trainer_settings, count, plugins=plugins)[0]

    before, after = steps(2), steps(8)
    scales = [float(row["train/loss_scale"]) for row in after]
    skipped = [float(row["train/skipped_steps"]) for row in after]
    assert before == after[:1] and skipped[0] == 2 and skipped[-1] > 2
    assert [2.0 ** (24 - count) for count in skipped] == scales
