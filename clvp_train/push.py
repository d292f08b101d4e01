"""Publishes a trained model or pairs on the Hub: `python -m clvp_train.push` or `clvp-push`, each with `--help`."""

import hydra
from omegaconf import DictConfig

from clvp_train.io import CONF
from clvp_train.pipelines.command import importing, report_errors
from clvp_train.pipelines.config import validate


@report_errors
@hydra.main(version_base="1.3", config_path=str(CONF), config_name="push")
@report_errors
def main(cfg: DictConfig) -> None:
    validate(cfg)
    with importing():
        from clvp_train.pipelines.push import push
    push(cfg)


if __name__ == "__main__":
    main()
