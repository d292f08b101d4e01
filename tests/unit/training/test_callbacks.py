import logging
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from clvp_train.models import load_clvp
from clvp_train.training import EMA, CLVPModule, LastCheckpoint, OptimConfig, TrainingProgress
from clvp_train.training import progress as progress_module
from tests.unit.training.test_module import loader


class Weights(L.Callback):
    """The weights after each step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, *args):
        self.steps.append(module.model.text_projection.weight.detach().clone())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_saved_weights_are_the_moving_average_of_all_steps(model, batches, trainer_settings, tmp_path, precision):
    weights = Weights()
    settings = trainer_settings | {"enable_checkpointing": True, "precision": precision}
    callbacks = [EMA(decay=0.4), weights, LastCheckpoint(tmp_path)]
    module = CLVPModule(model, optim=OptimConfig(lr=1e-2), total_steps=8)
    L.Trainer(max_steps=8, callbacks=callbacks, **settings).fit(module, loader(batches))
    expected = weights.steps[0]
    for n, weight in enumerate(weights.steps[1:], start=1):
        decay = min(0.4, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(load_clvp(tmp_path / "last.ckpt").text_projection.weight, expected)
    torch.testing.assert_close(model.text_projection.weight, expected)
    assert not torch.allclose(weights.steps[-1], expected, rtol=1e-3)


def test_a_log_file_gets_one_line_per_validation(model, batches, trainer_settings, caplog):
    caplog.set_level(logging.INFO, logger=progress_module.__name__)
    settings = trainer_settings | {"enable_progress_bar": True}
    trainer = L.Trainer(max_epochs=2, callbacks=[TrainingProgress()], **settings)
    trainer.fit(CLVPModule(model, total_steps=8), loader(batches), loader(batches[:1]))
    lines = [record.getMessage() for record in caplog.records if record.name == progress_module.__name__]
    assert len(lines) == 2 and "step 4/8" in lines[0] and "step 8/8" in lines[1]
    for line in lines:
        assert all(word in line for word in ("epoch", "loss", "R@1", "pairs/s", "left"))


def test_all_columns_of_the_bar_fit_on_a_terminal_of_80_characters(monkeypatch, capsys):
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    metrics = {"train/loss": 2.3, "val/R@1": 0.78, "train/pairs_per_second": 18432.1}
    trainer = SimpleNamespace(global_step=0, current_epoch=11, max_epochs=100, callback_metrics=metrics)
    progress = TrainingProgress()
    progress.on_train_start(trainer, SimpleNamespace(total_steps=100_000))
    for step in range(1, 4):
        trainer.global_step = 10_000 * step
        progress.on_train_batch_end(trainer, None)
    progress.on_train_end(trainer, None)
    last = capsys.readouterr().err.split("\r")[-1].rstrip()
    assert "R@1 0.780" in last and "18432 pairs/s" in last and len(last.partition(" left")[0]) + len(" left") <= 80
