"""An exponential moving average of the weights."""

from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clvp_train.errors import UserError, check_number


class EMA(WeightAveraging):
    """Validates, saves and returns the moving average of the weights, while training goes on with the weights themselves.

    Args:
        decay: share of the average that stays in a step. In step n it is at most (1 + n) / (10 + n), so that a short run does
            not average its random start.
    """

    def __init__(self, decay: float = 0.999) -> None:
        check_number("callbacks.ema.decay", decay, 0, whole=False)
        if decay >= 1:
            raise UserError(f"callbacks.ema.decay={decay}: set it to less than 1")

        def average(averaged, current, num_averaged) -> None:
            n = int(num_averaged)
            get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, num_averaged)

        super().__init__(use_buffers=False, multi_avg_fn=average)
