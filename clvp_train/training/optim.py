"""Optimiser, schedule, learning rates and weight decay by parameter group."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from clvp_train.models import CLVPModel
from clvp_train.models.convert_tortoise import TOWERS

FUSED_BY_DEFAULT = (torch.optim.Adam, torch.optim.AdamW)


def warmup_cosine(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup_ratio: float = 0.05, min_lr_ratio: float = 0.01
) -> LambdaLR:
    """Linear warm-up from 0, then half a cosine down to `min_lr_ratio` times the learning rate at `total_steps`."""
    warmup = max(1, round(warmup_ratio * total_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return min_lr_ratio + (1 - min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


@dataclass(frozen=True)
class OptimConfig:
    """Which optimiser and schedule train which parameters.

    In YAML `optimizer` and `scheduler` are partial objects that refer to the fields above them, such as `lr: ${..lr}`.
    """

    lr: float = 5e-4  # of the default optimiser, at the end of warm-up
    weight_decay: float = 0.1  # of the default optimiser; see `parameter_groups`
    betas: tuple[float, float] = (0.9, 0.98)  # of the default optimiser
    eps: float = 1e-6  # of the default optimiser
    warmup_ratio: float = 0.05  # share of all steps
    min_lr_ratio: float = 0.01  # of the learning rate, at the last step
    decay_ratio: float = 0.2  # share of all steps, of a schedule that is constant before
    optimizer: Callable[..., torch.optim.Optimizer] | None = None  # of parameter groups; None: AdamW
    scheduler: Callable[..., Any] | None = warmup_cosine  # see `build_scheduler`; None: a constant learning rate
    gradient_clip_norm: float = 1.0  # 0: no clipping
    text_lr: float | None = None  # of the text encoder and its projection; None: that of the optimiser
    speech_lr: float | None = None  # of the speech encoder and its projection; None: that of the optimiser
    freeze: Sequence[str] = ()  # "text" or "speech": the tower that is not trained and has no dropout


def freeze(model: CLVPModel, towers: Sequence[str]) -> None:
    """Excludes these towers and their projections from training and turns their dropout off."""
    for tower in towers:
        for part in (getattr(model, f"{tower}_model"), getattr(model, f"{tower}_projection")):
            part.requires_grad_(False).eval()


def parameter_groups(module: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Returns up to two groups for each tower and for the rest. Matrices of linear layers have the optimiser's weight decay;
    norms, biases, embeddings and the logit scale have none."""
    embeddings = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        tower = next((tower for tower in TOWERS if f"{tower}_model." in name or f"{tower}_projection." in name), None)
        decays = parameter.dim() >= 2 and id(parameter) not in embeddings
        key = f"{tower or 'shared'}{'' if decays else ', no decay'}"
        group: dict[str, Any] = {"params": [], "name": key}
        lr = getattr(config, f"{tower}_lr") if tower else None
        # what is missing here, the optimiser fills in
        group |= ({} if lr is None else {"lr": lr}) | ({} if decays else {"weight_decay": 0.0})
        groups.setdefault(key, group)["params"].append(parameter)
    return list(groups.values())


def build_optimizer(module: nn.Module, config: OptimConfig, fused: bool = True) -> torch.optim.Optimizer:
    """The optimiser of the parameters that are trained.

    Args:
        module: its parameters.
        config: settings.
        fused: use the fused kernels of Adam and AdamW, unless `config.optimizer` says otherwise.
    """
    build = config.optimizer or partial(
        torch.optim.AdamW, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
    )
    is_fusible = getattr(build, "func", build) in FUSED_BY_DEFAULT
    settings = {"fused": fused} if is_fusible and "fused" not in getattr(build, "keywords", {}) else {}
    return build(parameter_groups(module, config), **settings)


def build_scheduler(optimizer: torch.optim.Optimizer, config: OptimConfig, total_steps: int) -> Any:
    """The learning rate schedule, stepped after every optimiser step; None without one.

    Schedules name the length of training differently, so each gets the arguments that it has a parameter for and that the
    config does not set: `total_steps`, `num_training_steps` (transformers) or `T_max`; `warmup_ratio` or `num_warmup_steps`;
    `num_decay_steps`; `min_lr_ratio`; `max_lr`, the learning rate of each group (OneCycleLR).
    """
    if config.scheduler is None:
        return None
    warmup = max(1, round(config.warmup_ratio * total_steps))
    known = {
        **dict.fromkeys(("total_steps", "num_training_steps", "T_max"), total_steps),
        "warmup_ratio": config.warmup_ratio,
        "num_warmup_steps": warmup,
        "num_decay_steps": min(round(config.decay_ratio * total_steps), max(0, total_steps - warmup)),
        "min_lr_ratio": config.min_lr_ratio,
        "max_lr": [group["lr"] for group in optimizer.param_groups],
    }
    accepted = inspect.signature(config.scheduler).parameters
    is_set = getattr(config.scheduler, "keywords", {})
    return config.scheduler(optimizer, **{k: v for k, v in known.items() if k in accepted and k not in is_set})
