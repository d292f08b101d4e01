"""Imports texts and codes of any codec: `python -m clvp_train.import_pairs` or `clvp-import-pairs`, each with `--help`."""

import hydra
from omegaconf import DictConfig

from clvp_train.io import CONF
from clvp_train.pipelines.command import importing, report_errors
from clvp_train.pipelines.config import validate
from clvp_train.pipelines.schema import ImportPairs


@report_errors
@hydra.main(version_base="1.3", config_path=str(CONF), config_name="import_pairs")
@report_errors
def main(cfg: DictConfig) -> None:
    validate(cfg, ImportPairs)
    with importing():
        from clvp_train.pipelines.import_pairs import import_pairs
    import_pairs(cfg)


if __name__ == "__main__":
    main()
