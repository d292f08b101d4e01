"""A function of a config as a command: Hydra's, except that what a user can mend ends in one line and exit status 2."""

import difflib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clvp_train import (
    launch,
    resolvers,  # noqa: F401  every config asks for them
)
from clvp_train.errors import Stopped, UserError
from clvp_train.places import CONF
from clvp_train.resume import with_run


def command(config_name: str, run: Callable[[DictConfig], Any]) -> Callable[[], Any]:
    """What to call under `if __name__ == "__main__"`: reads the command line, composes the config and runs.

    Args:
        config_name: a file of `conf/`, which also names the run folders.
        run: gets the composed config.
    """

    def main(cfg: DictConfig) -> Any:
        return _guarded(run, cfg)

    main.__name__ = config_name
    hydra_main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(main)

    def called() -> Any:
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands over what it would print
        try:
            sys.argv[1:] = with_run(sys.argv[1:], Path("outputs", config_name))
            return hydra_main()
        except UserError as error:
            message = str(error)
        except CompactHydraException as error:
            message = str(error).split("Config search path:")[0]
        _fail(message + _close_matches(message, config_name))

    return called


def _guarded(run: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    try:
        missing = OmegaConf.missing_keys(cfg)
        if missing:
            raise UserError(f"{', '.join(sorted(missing))} must be set: add {sorted(missing)[0]}=… to the command")
        return run(cfg)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Stopped as stopped:
        folder = shlex.quote(HydraConfig.get().runtime.output_dir)
        _tell(f"{stopped}; python {Path(sys.argv[0]).name} resume={folder} goes on")
        sys.exit(128 + stopped.signal_number)
    except UserError as error:
        message = str(error)
    except (InstantiationException, OmegaConfBaseException) as error:
        cause = error.__cause__
        expected = (UserError, TypeError, ValueError, RuntimeError)
        if isinstance(error, InstantiationException) and not isinstance(cause, expected):
            raise
        message = str(cause if isinstance(cause, UserError) else error)
    _fail(message)


def _fail(message: str) -> NoReturn:
    _tell(f"error: {' '.join(message.split())}")
    sys.exit(launch.USER_ERROR)


def _tell(message: str) -> None:
    if launch.is_first_to_fail():
        print(message, file=sys.stderr, flush=True)


def _close_matches(message: str, config_name: str) -> str:
    """What a misspelt setting, which Hydra's message quotes, may stand for."""

    def names(node: Any, prefix: str = "") -> list[str]:
        children = node.items() if isinstance(node, dict) else ()
        return [name for key, child in children for name in (f"{prefix}{key}", *names(child, f"{prefix}{key}."))]

    quoted = re.match(r"Could not override '([^']+)'", message)
    if quoted is None:
        return ""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        known = names(OmegaConf.to_container(hydra.compose(config_name)))
    close = difflib.get_close_matches(quoted[1], [name for name in known if name != quoted[1]], n=1)
    return f"; did you mean {close[0]}?" if close else "; --help lists the settings"
