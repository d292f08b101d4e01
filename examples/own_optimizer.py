"""An optimiser: Lion (Chen et al. 2023, https://arxiv.org/abs/2302.06675).

PYTHONPATH=examples python train.py --config-dir examples/conf optim=lion
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class Lion(Optimizer):
    """Receives parameter groups, of which those of norms, biases and embeddings have no weight decay."""

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.1
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
        now, later = group["betas"]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(average.lerp(parameter.grad, 1 - now).sign_(), alpha=group["lr"])
        average.lerp_(parameter.grad, 1 - later)
