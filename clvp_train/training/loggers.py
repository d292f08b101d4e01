"""Loggers that need more than their constructor."""

import os
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger


def wandb_logger(offline: bool | None = None, **settings: Any) -> WandbLogger:
    """A W&B logger that stays offline where no key is set, so that a run never waits for a login.

    Args:
        offline: None decides by WANDB_MODE, and where that is not set by whether a key is found.
        settings: for `WandbLogger`.
    """
    if offline is None:
        mode = os.environ.get("WANDB_MODE")
        offline = mode in ("offline", "dryrun") if mode else not wandb.login(prompt=False, verify=False)
    # `login` has fixed the settings, so that `offline` alone would come too late
    return WandbLogger(offline=offline, log_model=False, mode="offline" if offline else None, **settings)
