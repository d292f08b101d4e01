"""What `python train.py` and its like do first: a shell that completes a word gets it at once, without torch; broken libraries
end in one line."""

import importlib
import sys

import clvp_train
from clvp_train.places import CONF

BROKEN = 2  # exit status, as of a user's mistake


def enter(name: str, module: str = "clvp_train.app") -> None:
    """Runs a command.

    Args:
        name: the command's, which is also that of its file in `conf/`.
        module: where it is.
    """
    if "-sc" in sys.argv[1:]:
        import hydra

        hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(lambda cfg: None)()
        return
    try:
        found = importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        why = clvp_train.broken or error
        told = " ".join(f"{type(why).__name__}: {why}".split())
        print(f"error: a library is broken ({told}): python -m clvp_train.doctor says how to mend it", file=sys.stderr)
        sys.exit(BROKEN)
    getattr(found, name)()
