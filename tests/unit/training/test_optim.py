import math
from functools import partial

import hydra
import lightning as L
import pytest
import torch
import transformers
from hydra.utils import instantiate
from torch import nn
from torch.optim import lr_scheduler

from clvp_train.io import CONF
from clvp_train.training import CLVPModule, OptimConfig, warmup_cosine
from clvp_train.training.optim import build_optimizer, build_scheduler, freeze, parameter_groups
from tests.unit.training.test_module import loader


def groups_by_parameter(module, config):
    """The parameter group of each parameter by its name."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    optimizer = build_optimizer(module, config)
    return {names[id(parameter)]: group for group in optimizer.param_groups for parameter in group["params"]}


OPTIMIZERS = {
    "default": None,
    "sgd": partial(torch.optim.SGD, lr=3.0, momentum=0.9, weight_decay=0.3),
    "adafactor": partial(torch.optim.Adafactor, lr=3.0, weight_decay=0.3),
    "transformers": partial(transformers.Adafactor, lr=3.0, relative_step=False, weight_decay=0.3),
}


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_group_has_its_learning_rate_and_weight_decay(model, name, prefix):
    module = nn.ModuleDict({"model": model}) if prefix else model
    config = OptimConfig(lr=3.0, weight_decay=0.3, text_lr=1.0, speech_lr=0.0, optimizer=OPTIMIZERS[name])
    groups = groups_by_parameter(module, config)
    expected = {"text_model": 1.0, "text_projection": 1.0, "speech_model": 0.0, "speech_projection": 0.0}
    linear = {f"{name}.weight" for name, child in module.named_modules() if isinstance(child, nn.Linear)}
    assert groups.keys() == {name for name, _ in module.named_parameters()}
    for name, group in groups.items():
        assert group["lr"] == expected.get(name.removeprefix(prefix).split(".")[0], 3.0), name
        assert group["weight_decay"] == (0.3 if name in linear else 0.0), name
    assert {group["lr"] for group in groups_by_parameter(module, OptimConfig(lr=3.0)).values()} == {3.0}


def test_a_frozen_tower_is_not_trained_and_has_no_dropout(model):
    model.train()
    freeze(model, ["text"])
    kept = groups_by_parameter(model, OptimConfig()).keys()
    assert kept == {name for name, _ in model.named_parameters() if not name.startswith("text_")}
    assert not model.text_model.training and model.speech_model.training


def test_only_adam_is_fused_by_default_and_settings_are_passed():
    module, config = nn.Linear(2, 2), OptimConfig(lr=0.5, betas=(0.7, 0.8), eps=1e-3)
    for group in build_optimizer(module, config).param_groups:
        assert (group["lr"], group["betas"], group["eps"], group["fused"]) == (0.5, (0.7, 0.8), 1e-3, True)
    assert not build_optimizer(module, config, fused=False).defaults["fused"]
    unfused = partial(torch.optim.AdamW, fused=False)
    assert not build_optimizer(module, OptimConfig(optimizer=unfused)).defaults["fused"]
    assert not build_optimizer(module, OptimConfig(optimizer=torch.optim.SGD)).defaults["fused"]


def rates(config, total_steps, steps):
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    schedule, values = build_scheduler(optimizer, config, total_steps), []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return values


def test_warm_up_is_linear_and_the_decay_half_a_cosine():
    values = rates(OptimConfig(lr=2.0, min_lr_ratio=0.1, warmup_ratio=0.1), total_steps=100, steps=130)
    assert values[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(values) == values[9] == pytest.approx(2.0)
    assert all(later < earlier for earlier, later in zip(values[10:100], values[11:101]))
    assert values[30] == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * 20 / 90)) / 2))
    assert values[100:] == pytest.approx([0.2] * 30)


def test_the_schedules_of_conf_warm_up_and_differ_afterwards():
    settings = ["lr=2", "warmup_ratio=0.1", "min_lr_ratio=0.1", "decay_ratio=0.3"]
    found = {}
    for name in ("cosine", "constant", "wsd"):
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose(
                "optim/adamw", [f"optim/scheduler={name}", *(f"optim.{setting}" for setting in settings)]
            )
        found[name] = rates(instantiate(cfg.optim), total_steps=100, steps=101)
        assert found[name][0] < found[name][5] < found[name][10] == pytest.approx(2.0, abs=0.01)
    assert set(found["constant"][10:]) == set(found["wsd"][10:71]) == {2.0}
    assert found["wsd"][100] == pytest.approx(0.2) == found["cosine"][100]
    assert found["wsd"][80] == pytest.approx(2 * (0.1 + 0.9 * (1 - (10 / 30) ** 0.5)))


@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_the_shortest_runs_have_a_schedule(total_steps):
    values = rates(OptimConfig(lr=1.0), total_steps, total_steps)
    assert values[0] == pytest.approx(1.0) and all(rate > 0 for rate in values)


@pytest.mark.parametrize(
    ("scheduler", "end"),
    [
        (None, 2.0),
        (partial(warmup_cosine, min_lr_ratio=0.5), 1.0),
        (transformers.get_cosine_schedule_with_warmup, 0.0),
        (transformers.get_constant_schedule_with_warmup, 2.0),
        (transformers.get_wsd_schedule, 0.0),
        (partial(transformers.get_linear_schedule_with_warmup, num_warmup_steps=3), 0.0),
        (lr_scheduler.CosineAnnealingLR, 0.0),
        (partial(lr_scheduler.OneCycleLR, pct_start=0.3), 0.0),
        (partial(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.25, total_iters=10), 0.5),
    ],
)
def test_any_schedule_gets_the_length_of_training(scheduler, end):
    values = rates(OptimConfig(lr=2.0, scheduler=scheduler, warmup_ratio=0.2), total_steps=50, steps=50)
    assert max(values) == pytest.approx(2.0, abs=1e-3) and values[-1] == pytest.approx(end, abs=0.1)


@pytest.mark.parametrize("scheduler", [None, lr_scheduler.OneCycleLR, partial(lr_scheduler.ReduceLROnPlateau)])
@pytest.mark.parametrize("name", ["sgd", "adafactor"])
def test_a_run_trains_with_any_optimiser_and_schedule(model, batches, trainer_settings, name, scheduler):
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9) if name == "sgd" else torch.optim.Adafactor
    config = OptimConfig(optimizer=optimizer, scheduler=scheduler, text_lr=1e-2, freeze=["speech"])
    if name == "adafactor" and scheduler is lr_scheduler.OneCycleLR:
        config = OptimConfig(optimizer=optimizer, scheduler=partial(scheduler, cycle_momentum=False), freeze=["speech"])
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer = L.Trainer(max_steps=4, **trainer_settings)
    trainer.fit(CLVPModule(model, optim=config, total_steps=4), loader(batches), loader(batches[:1]))
    changed = {
        name.split("_")[0] for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])
    }
    assert changed == {"text", "logit"}


def test_groups_say_only_what_differs_from_the_optimiser(model):
    groups = parameter_groups(model, OptimConfig(text_lr=1.0))
    assert {key for group in groups for key in group} == {"params", "name", "lr", "weight_decay"}
    assert all(("lr" in group) == group["name"].startswith("text") for group in groups)
