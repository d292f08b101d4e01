import math

import pytest
import torch
from torch import nn

from clvp_train.errors import UserError
from clvp_train.training.optim import OptimConfig, adamw, freeze, parameter_groups, warmup_cosine


def names_of(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {group["name"]: {names[id(parameter)] for parameter in group["params"]} for group in groups}


def test_decay_falls_on_the_matrices_of_linear_layers_and_on_nothing_else(model):
    groups = parameter_groups(model, OptimConfig(weight_decay=0.3))
    decayed = {name for key, names in names_of(model, groups).items() if "no decay" not in key for name in names}
    spared = {name for key, names in names_of(model, groups).items() if "no decay" in key for name in names}
    assert {group["weight_decay"] for group in groups if "no decay" in group["name"]} == {0.0}
    assert {group["weight_decay"] for group in groups if "no decay" not in group["name"]} == {0.3}
    assert decayed == {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert decayed | spared == {name for name, _ in model.named_parameters()} and not decayed & spared
    assert {"logit_scale", "text_model.token_embedding.weight", "text_model.final_layer_norm.weight"} <= spared


@pytest.mark.parametrize("prefix", ["", "model."])
def test_each_half_has_its_own_learning_rate(model, prefix):
    module = nn.ModuleDict({"model": model}) if prefix else model
    groups = parameter_groups(module, OptimConfig(lr=3.0, text_lr=1.0, speech_lr=0.0))
    rates = {name: group["lr"] for group, names in zip(groups, names_of(module, groups).values()) for name in names}
    expected = {"text_model": 1.0, "text_projection": 1.0, "speech_model": 0.0, "speech_projection": 0.0}
    for name, rate in rates.items():
        assert rate == expected.get(name.removeprefix(prefix).split(".")[0], 3.0), name
    assert prefix + "logit_scale" in rates
    assert {group["lr"] for group in parameter_groups(model, OptimConfig(lr=3.0))} == {3.0}


def test_a_frozen_half_learns_nothing_and_drops_nothing_out(model):
    model.train()
    freeze(model, ["text"])
    kept = {name for names in names_of(model, parameter_groups(model, OptimConfig())).values() for name in names}
    assert kept == {name for name, _ in model.named_parameters() if not name.startswith("text_")}
    assert not model.text_model.training and model.speech_model.training


def rates(config, total_steps, steps):
    optimizer = adamw(nn.Linear(2, 2), config)
    schedule, found = warmup_cosine(optimizer, config, total_steps), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_rate_rises_evenly_then_falls_by_half_a_cosine_to_its_floor():
    config = OptimConfig(lr=2.0, min_lr_ratio=0.1, warmup_ratio=0.1)
    found = rates(config, total_steps=100, steps=130)
    assert found[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(found) == found[9] == pytest.approx(2.0)
    assert all(later < earlier for earlier, later in zip(found[10:100], found[11:101]))
    assert found[55] == pytest.approx(2.0 * (0.1 + 0.9 / 2))  # the middle of the fall
    assert found[30] == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * 20 / 90)) / 2))
    assert found[100:] == pytest.approx([0.2] * 30)


@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_the_shortest_runs_have_a_schedule_too(total_steps):
    found = rates(OptimConfig(lr=1.0), total_steps, total_steps)
    assert found[0] == pytest.approx(1.0) and all(rate > 0 for rate in found)


def test_the_optimiser_has_the_settings_asked_for():
    optimizer = adamw(nn.Linear(2, 2), OptimConfig(lr=0.5, betas=(0.7, 0.8), eps=1e-3))
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.7, 0.8), 1e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "abc"),
        ("lr", -1),
        ("warmup_ratio", None),
        ("gradient_clip_norm", -0.5),
        ("betas", 3),
        ("betas", (0.9, 1)),
        ("text_lr", -1),
        ("freeze", "text"),
        ("freeze", ("text", "speech")),
        ("freeze", ("mouth",)),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(name, value):
    with pytest.raises(UserError, match=f"optim.{name}="):
        OptimConfig(**{name: value})
