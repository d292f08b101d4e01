"""Ranks the candidates in Parquet files: `python -m clvp_train.rerank` or `clvp-rerank`, each with `--help`."""

import hydra
from omegaconf import DictConfig

from clvp_train.io import CONF
from clvp_train.pipelines.command import importing, report_errors
from clvp_train.pipelines.config import validate


@report_errors
@hydra.main(version_base="1.3", config_path=str(CONF), config_name="rerank")
@report_errors
def main(cfg: DictConfig) -> None:
    validate(cfg)
    with importing():
        from clvp_train.pipelines.rerank import rerank
    rerank(cfg)


if __name__ == "__main__":
    main()
