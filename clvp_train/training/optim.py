"""The optimiser and its schedule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from clvp_train.errors import UserError, check_number
from clvp_train.models import CLVPModel

TOWERS = ("text", "speech")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = 1e-3  # at the end of warm-up
    min_lr_ratio: float = 0.01  # of `lr`, at the last step
    warmup_ratio: float = 0.05  # share of all steps
    weight_decay: float = 0.1  # on matrices; never on norms, biases, embeddings and the logit scale
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    gradient_clip_norm: float = 1.0  # 0 does not clip
    text_lr: float | None = None  # of the text half and its projection; None: lr
    speech_lr: float | None = None  # of the speech half and its projection; None: lr
    freeze: tuple[str, ...] = ()  # halves that stay as they are, without dropout: "text", "speech"

    def __post_init__(self) -> None:
        for name in ("lr", "min_lr_ratio", "warmup_ratio", "weight_decay", "eps", "gradient_clip_norm"):
            check_number(f"optim.{name}", getattr(self, name), 0, whole=False)
        for name in ("text_lr", "speech_lr"):
            if getattr(self, name) is not None:
                check_number(f"optim.{name}", getattr(self, name), 0, whole=False)
        try:
            fits = all(0 <= beta < 1 for beta in self.betas) and len(self.betas) == 2
        except TypeError:
            fits = False
        if not fits:
            raise UserError(f"optim.betas={self.betas}: set it to two numbers of 0 or more and less than 1")
        if isinstance(self.freeze, str) or not set(self.freeze) < set(TOWERS):
            raise UserError(f"optim.freeze={self.freeze}: set it to [], [text] or [speech]; one half must learn")


def freeze(model: CLVPModel, towers: Sequence[str]) -> None:
    """Takes these halves and their projections out of training, and their dropout away."""
    for tower in towers:
        for part in (getattr(model, f"{tower}_model"), getattr(model, f"{tower}_projection")):
            part.requires_grad_(False).eval()


def parameter_groups(module: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """One group a half and the rest, with its learning rate; in each, matrices of linear layers decay and nothing else does."""
    embeddings = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            tower = next(
                (tower for tower in TOWERS if f"{tower}_model." in name or f"{tower}_projection." in name), None
            )
            lr = getattr(config, f"{tower}_lr") if tower else None
            decays = parameter.dim() >= 2 and id(parameter) not in embeddings
            key = f"{tower or 'shared'}{'' if decays else ', no decay'}"
            group: dict[str, Any] = {"params": [], "lr": config.lr if lr is None else lr, "name": key}
            group["weight_decay"] = config.weight_decay if decays else 0.0
            groups.setdefault(key, group)["params"].append(parameter)
    return list(groups.values())


def adamw(module: nn.Module, config: OptimConfig, fused: bool = True) -> torch.optim.AdamW:
    groups = parameter_groups(module, config)
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), eps=config.eps, fused=fused
    )


def warmup_cosine(
    optimizer: torch.optim.Optimizer, config: OptimConfig, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear from 0 to `lr`, then half a cosine down to `min_lr_ratio` · `lr` at `total_steps`."""
    warmup = max(1, round(config.warmup_ratio * total_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return config.min_lr_ratio + (1 - config.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
