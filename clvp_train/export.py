"""Exports a trained CLVP to other formats: `python -m clvp_train.export` or `clvp-export`, each with `--help`."""

import hydra
from omegaconf import DictConfig

from clvp_train.io import CONF
from clvp_train.pipelines.command import importing, report_errors
from clvp_train.pipelines.config import validate


@report_errors
@hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")
@report_errors
def main(cfg: DictConfig) -> None:
    validate(cfg)
    with importing():
        from clvp_train.pipelines.export import export
    export(cfg)


if __name__ == "__main__":
    main()
