"""Versions of the libraries against the bounds that the package declares, and whether they can be imported."""

import importlib.util
import platform
import re
import tomllib
from importlib import metadata
from pathlib import Path

from clvp_train.doctor.loading import Loaded
from clvp_train.doctor.rows import Finding
from clvp_train.io import PACKAGE

NAME = "clvp-train"
BOUND = re.compile(r"(>=|<)\s*([\d.]+)")
# distribution -> the module to import; some libraries import the parts that break only late
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
PIPELINE = "clvp_train.pipelines.train"  # imports all of them and the rest
TWINS = ("torch", "torchaudio")  # must be of the same build
# extra -> the distribution that it installs, and what it is for
EXTRAS = {
    "demo": ("gradio", "the demo page"),
    "sweep": ("hydra-optuna-sweeper", "experiment=sweep"),
    "slurm": ("hydra-submitit-launcher", "hydra/launcher=slurm"),
    "s3": ("s3fs", "pairs in s3:// buckets"),
}


def versions(loaded: dict[str, Loaded]) -> list[Finding]:
    """Rows of Python, this package and its libraries.

    Args:
        loaded: of the values of `MODULES`, and of `PIPELINE` if all of those can be imported.
    """
    needed = requirements()
    rows = [
        Finding("python", platform.python_version()),
        Finding(NAME, _installed(NAME) or "not installed, run from its folder"),
    ]
    causes: dict[str, str] = {}  # error -> the first library that raises it
    for name, module in MODULES.items():
        version, bounds, error = _version(name), needed.get(name, ""), loaded[module].error
        reinstall = _reinstall(name, needed)
        if version is None:
            rows.append(Finding(name, "missing", _install({name: bounds})))
        elif error in causes:
            rows.append(Finding(name, f"{version}: import fails because of {causes[error]}", f"fix {causes[error]}"))
        elif error is not None:
            causes[error] = name
            rows.append(Finding(name, f"{version}: import fails: {error}", reinstall))
        elif not fits(version, bounds):
            rows.append(Finding(name, f"{version}: must be {bounds}", reinstall))
        else:
            rows.append(Finding(name, version))
    if PIPELINE in loaded and loaded[PIPELINE].error is not None:
        missing = {name: bounds for name, bounds in needed.items() if _installed(name) is None}
        rows.append(Finding("train.py", f"import fails: {loaded[PIPELINE].error}", _install(missing or needed)))
    rows.insert(4, _twins(loaded))
    return rows


def extras() -> list[Finding]:
    """Rows of the optional dependencies. A missing one is not a problem."""
    rows = []
    for extra, (name, purpose) in EXTRAS.items():
        version = _installed(name)
        needed = {name: ""} if extra == "s3" else requirements(extra)
        rows.append(Finding(extra, f"{purpose}: {f'{name} {version}' if version else _install(needed)}"))
    return rows


def requirements(extra: str | None = None) -> dict[str, str]:
    """Distributions and their bounds, as in {"torch": ">=2.11,<2.15"}, of the package or of one of its extras.

    They are parsed here, because `packaging` may be missing as well.
    """
    project = PACKAGE.parent / "pyproject.toml"
    if project.is_file():  # a clone
        declared = tomllib.loads(project.read_text())["project"]
        lines = declared["dependencies"] if extra is None else declared["optional-dependencies"][extra]
    else:
        marked = [line.partition(";") for line in metadata.requires(NAME) or ()]
        wanted = [] if extra is None else [extra]
        lines = [line for line, _, marker in marked if re.findall(r"extra == ['\"](\w+)", marker) == wanted]
    names = [re.match(r"[\w.-]+", line.strip())[0] for line in lines]  # type: ignore[index]
    bounds = [sorted(BOUND.findall(line), reverse=True) for line in lines]
    return {name: ",".join(map("".join, pairs)) for name, pairs in zip(names, bounds)}


def fits(version: str, bounds: str) -> bool:
    """Whether a version, as 2.14.1+cu130, is within bounds."""
    numbers = _numbers(version)
    return all(
        numbers >= _numbers(bound) if sign == ">=" else numbers < _numbers(bound)
        for sign, bound in BOUND.findall(bounds)
    )


def _numbers(version: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)  # type: ignore[index]
    return numbers + (0,) * (3 - len(numbers))


def _twins(loaded: dict[str, Loaded]) -> Finding:
    """The builds of torch and torchaudio; how to fix them is in their own rows."""
    builds = [(_version(name) or "").partition("+")[2] or "default build" for name in TWINS]
    works = all(loaded[MODULES[name]].error is None for name in TWINS)
    return Finding(
        "together", f"torch {builds[0]}, torchaudio {builds[1]}: {'compatible' if works else 'not compatible'}"
    )


def _version(name: str) -> str | None:
    """The version with its build, as 2.14.1+cu130, which the metadata of torch and torchaudio omit."""
    spec = importlib.util.find_spec(name) if name in TWINS else None
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    match = re.search(r"^__version__ = ['\"](.+)['\"]", file.read_text(), re.M) if file and file.is_file() else None
    return match[1] if match else _installed(name)


def _installed(name: str) -> str | None:
    """The version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _install(needed: dict[str, str], *options: str) -> str:
    """The command that installs these distributions."""
    return " ".join(["pip install", *options, *(f'"{name}{bounds}"' for name, bounds in needed.items())])


def _reinstall(name: str, needed: dict[str, str]) -> str:
    names = TWINS if name in TWINS else (name,)
    command = _install({name: needed.get(name, "") for name in names}, "--force-reinstall")
    return f"{command}  (both from one index)" if name in TWINS else command
