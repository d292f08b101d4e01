"""A learning rate schedule: linear warm-up, then the inverse square root of the step.

PYTHONPATH=examples python train.py --config-dir examples/conf optim=inverse_sqrt
"""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def inverse_sqrt(optimizer: Optimizer, num_warmup_steps: int) -> LambdaLR:
    """Arguments that are called `total_steps`, `num_warmup_steps` or `max_lr` are filled in unless the config sets them."""
    warmup = max(1, num_warmup_steps)
    return LambdaLR(optimizer, lambda step: min((step + 1) / warmup, (warmup / (step + 1)) ** 0.5))
