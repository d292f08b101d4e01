"""Checks of a composed config, before any work."""

from omegaconf import DictConfig, OmegaConf

from clvp_train.errors import UserError


def validate(cfg: DictConfig) -> None:
    """Raises UserError if a setting that is marked ??? is not set."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{', '.join(missing)}: not set. Add {missing[0]}=… to the command.")
