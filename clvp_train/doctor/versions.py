"""Versions of the libraries, and whether they load."""

import importlib.util
import platform
import re
from pathlib import Path

from clvp_train.doctor.loading import Loaded
from clvp_train.doctor.requirements import NAME, fits, install, installed, requirements
from clvp_train.doctor.rows import Row

# distribution -> what fails to load when it is broken: some load their parts late
MODULES = {
    "torch": "torch",
    "torchaudio": "torchaudio",
    "transformers": "transformers.modeling_layers",
    "lightning": "lightning.pytorch",
    "datasets": "datasets",
    "hydra-core": "hydra",
    "wandb": "wandb",
    "huggingface-hub": "huggingface_hub",
}
COMMANDS = "clvp_train.pipelines.train"  # needs all of them and the rest
TWINS = ("torch", "torchaudio")


def versions(loaded: dict[str, Loaded]) -> list[Row]:
    """Rows of Python, this package and its libraries.

    Args:
        loaded: of the values of `MODULES`, and of `COMMANDS` if those load.
    """
    needed = requirements()
    rows = [Row("python", platform.python_version()), Row(NAME, installed(NAME) or "run from its folder")]
    blamed: dict[str, str] = {}  # error -> the first library that has it
    for name, module in MODULES.items():
        version, bounds, error = _version(name), needed.get(name, ""), loaded[module].error
        again = _install_again(name, needed)
        if version is None:
            rows.append(Row(name, "missing", install({name: bounds})))
        elif error in blamed:
            rows.append(Row(name, f"{version}: does not load, as {blamed[error]} does not", f"mend {blamed[error]}"))
        elif error is not None:
            blamed[error] = name
            rows.append(Row(name, f"{version}: does not load: {error}", again))
        elif not fits(version, bounds):
            rows.append(Row(name, f"{version}: must be {bounds}", again))
        else:
            rows.append(Row(name, version))
    if COMMANDS in loaded and loaded[COMMANDS].error is not None:
        rows.append(Row("train.py", f"does not start: {loaded[COMMANDS].error}", _install_all(needed)))
    rows.insert(4, _twins(loaded))
    return rows


def _twins(loaded: dict[str, Loaded]) -> Row:
    """Whether torch and torchaudio are of one build; what else to do stands in their own rows."""
    builds = [(_version(name) or "").partition("+")[2] or "of no named build" for name in TWINS]
    load = all(loaded[MODULES[name]].error is None for name in TWINS)
    return Row("together", f"torch {builds[0]}, torchaudio {builds[1]}: they {'load' if load else 'do not load'}")


def _version(name: str) -> str | None:
    """With the build, as in 2.14.1+cu130, which the metadata of torch and torchaudio leave out."""
    spec = importlib.util.find_spec(name) if name in TWINS else None
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    told = re.search(r"^__version__ = ['\"](.+)['\"]", file.read_text(), re.M) if file and file.is_file() else None
    return told[1] if told else installed(name)


def _install_again(name: str, needed: dict[str, str]) -> str:
    names = TWINS if name in TWINS else (name,)
    command = install({name: needed.get(name, "") for name in names}, "--force-reinstall")
    return f"{command}  (both from one index)" if name in TWINS else command


def _install_all(needed: dict[str, str]) -> str:
    return install({name: bounds for name, bounds in needed.items() if installed(name) is None} or needed)
