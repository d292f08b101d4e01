import lightning as L
import pytest
import torch

from clvp_train.errors import UserError
from clvp_train.models import load_clvp
from clvp_train.training import EMA, CLVPModule, LastCheckpoint, OptimConfig
from tests.unit.training.test_module import loader


class Weights(L.Callback):
    """The weights after each step."""

    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, module, *args):
        self.found.append(module.model.text_projection.weight.detach().clone())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_is_kept_is_the_moving_average_of_all_steps(model, batches, trainer_settings, tmp_path, precision):
    weights = Weights()
    settings = trainer_settings | {"enable_checkpointing": True, "precision": precision}
    callbacks = [EMA(decay=0.4), weights, LastCheckpoint(tmp_path)]
    module = CLVPModule(model, optim=OptimConfig(lr=1e-2), total_steps=8)
    L.Trainer(max_steps=8, callbacks=callbacks, **settings).fit(module, loader(batches))
    expected = weights.found[0]
    for n, weight in enumerate(weights.found[1:], start=1):
        decay = min(0.4, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(load_clvp(tmp_path / "last.ckpt").text_projection.weight, expected)
    torch.testing.assert_close(model.text_projection.weight, expected)
    assert not torch.allclose(weights.found[-1], expected, rtol=1e-3)


@pytest.mark.parametrize("decay", [-0.1, 1.0, "abc"])
def test_a_decay_that_makes_no_sense_is_refused(decay):
    with pytest.raises(UserError, match=f"callbacks.ema.decay={decay}"):
        EMA(decay)
