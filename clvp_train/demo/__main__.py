"""Serves the demo page: `python -m clvp_train.demo` or `clvp-demo`, each with `--help`."""

import hydra
from omegaconf import DictConfig

from clvp_train.io import CONF
from clvp_train.pipelines.command import importing, report_errors
from clvp_train.pipelines.config import validate
from clvp_train.pipelines.schema import Demo


@report_errors
@hydra.main(version_base="1.3", config_path=str(CONF), config_name="demo")
@report_errors
def main(cfg: DictConfig) -> None:
    validate(cfg, Demo)
    with importing():
        from clvp_train.demo.serving import serve
    serve(cfg)


if __name__ == "__main__":
    main()
