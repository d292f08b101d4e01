"""The optimiser and its schedule."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from clvp_train.errors import UserError, check_number


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

    def __post_init__(self) -> None:
        for name in ("lr", "min_lr_ratio", "warmup_ratio", "weight_decay", "eps", "gradient_clip_norm"):
            check_number(f"optim.{name}", getattr(self, name), 0, whole=False)
        try:
            fits = all(0 <= beta < 1 for beta in self.betas) and len(self.betas) == 2
        except TypeError:
            fits = False
        if not fits:
            raise UserError(f"optim.betas={self.betas}: set it to two numbers of 0 or more and less than 1")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices of linear layers with decay, everything else without."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.dim() >= 2 and id(parameter) not in embeddings]
    chosen = {id(parameter) for parameter in decayed}
    plain = [parameter for parameter in trained if id(parameter) not in chosen]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def adamw(model: nn.Module, config: OptimConfig, fused: bool = True) -> torch.optim.AdamW:
    groups = parameter_groups(model, config.weight_decay)
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
