"""Trains a tokenizer: `python -m clvp_train.train_tokenizer` or `clvp-train-tokenizer`, each with `--help`."""

import hydra
from omegaconf import DictConfig

from clvp_train.io import CONF
from clvp_train.pipelines.command import importing, report_errors
from clvp_train.pipelines.config import validate


@report_errors
@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train_tokenizer")
@report_errors
def main(cfg: DictConfig) -> None:
    validate(cfg)
    with importing():
        from clvp_train.pipelines.train_tokenizer import train_tokenizer
    train_tokenizer(cfg)


if __name__ == "__main__":
    main()
