"""What a step asks of the device: every read makes the host wait."""

import lightning as L
import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from clvp_train.losses import SymmetricContrastiveLoss
from clvp_train.models import CLVPModel
from clvp_train.training import EMA, CLVPModule, TrainingConfig
from clvp_train.training.batch_encoder import compile_layers
from tests.unit.training.test_module import without_attention_dropout

READS = {"item", "tolist", "cpu", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__", "nonzero"}


def counted(batch):
    """A batch as `Collate` makes it: with lengths on the host."""
    counts = {name: batch[f"{name}_attention_mask"].sum(1).numpy() for name in ("text", "speech")}
    return batch | {f"{name}_lengths": count for name, count in counts.items()}


class Reads(L.Callback, TorchFunctionMode):
    """Counts the reads of values between the starts of two steps."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__name__ in READS:
            self.steps[-1] += 1
        return function(*args, **(kwargs or {}))

    def on_train_batch_start(self, *args):
        if not self.steps:
            self.__enter__()
        self.steps.append(0)

    def on_train_end(self, *args):
        self.__exit__(None, None, None)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_reads_at_most_twice_from_the_device_and_a_logging_step_once_more(
    model, batches, trainer_settings, precision
):
    reads, callbacks = Reads(), {"cached_gradients": True, "chunk_tokens": 16}
    module = CLVPModule(model, total_steps=12, training=TrainingConfig(**callbacks))
    settings = trainer_settings | {"precision": precision, "log_every_n_steps": 6, "max_epochs": 1}
    loader = DataLoader([counted(batch) for batch in batches * 3], batch_size=None, collate_fn=lambda batch: batch)
    L.Trainer(callbacks=[EMA(), reads], **settings).fit(module, loader)
    assert len(reads.steps) == 12 and reads.steps[5] > reads.steps[4], "the counter sees the reads of a logging step"
    assert max(reads.steps[step] for step in range(12) if (step + 1) % 6) <= 2


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("masked", [0.0, 0.3])
def test_forward_and_backward_pass_never_read(batches, model, masked, packed):
    """A fake tensor has no values: reading one raises."""
    arrays = {name: value for name, value in counted(batches[0]).items() if isinstance(value, np.ndarray)}
    without_attention_dropout(model)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = CLVPModel(model.config).train()
        module = CLVPModule(fake, training=TrainingConfig(16, packed=packed, text_mask_percentage=masked)).train()
        batch = {name: mode.from_tensor(value) for name, value in batches[0].items()} | arrays
        keys = mode.from_tensor(torch.arange(6))
        SymmetricContrastiveLoss()(*module.batch_encoder.embed(batch), fake.logit_scale, keys).loss.backward()
        with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
            fake.logit_scale.grad.item()


def test_one_graph_for_each_tower_serves_all_chunks(model, batches):
    """Chunks of one row, full chunks, equal numbers of rows and positions, and validation."""
    module = CLVPModule(model, training=TrainingConfig(compile=True, chunk_tokens=32))
    torch._dynamo.reset()
    counters.clear()
    compile_layers(model, backend="eager")
    for lengths_B in ([5, 3, 2, 8, 8, 8], [8] * 8, [17, 8, 8, 1], [30, 30, 30, 3, 3], [24] * 3):
        mask = torch.arange(32) < torch.tensor(lengths_B)[:, None]
        rows = {"input_ids": mask.long(), "text_attention_mask": mask}
        batch = counted(rows | {"speech_ids": mask.long(), "speech_attention_mask": mask})
        module.train()
        sum(embeds.sum() for embeds in module.batch_encoder.embed(batch)).backward()
        module.eval()
        with torch.no_grad(), module.full_precision():
            module.batch_encoder.embed(batch)
    assert 1 <= counters["stats"]["unique_graphs"] <= 2
