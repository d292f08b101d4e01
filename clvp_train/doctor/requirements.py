"""What the package declares that it needs, read without the libraries that could read it better."""

import re
import tomllib
from importlib import metadata

from clvp_train.io import PACKAGE

NAME = "clvp-train"
BOUND = re.compile(r"(>=|<)\s*([\d.]+)")


def requirements(extra: str | None = None) -> dict[str, str]:
    """Names of distributions and their bounds, as in {"torch": ">=2.11,<2.15"}; of an extra, or of the package itself."""
    project = PACKAGE.parent / "pyproject.toml"
    if project.is_file():  # a clone
        declared = tomllib.loads(project.read_text())["project"]
        listed = declared["dependencies"] if extra is None else declared["optional-dependencies"][extra]
    else:
        marked = [line.partition(";") for line in metadata.requires(NAME) or ()]
        wanted = [] if extra is None else [extra]
        listed = [line for line, _, marker in marked if re.findall(r"extra == ['\"](\w+)", marker) == wanted]
    return dict(map(_split, listed))


def _split(line: str) -> tuple[str, str]:
    name = re.match(r"[\w.-]+", line.strip())[0]  # type: ignore[index]
    bounds = BOUND.findall(line)
    return name, ",".join("".join(bound) for bound in sorted(bounds, reverse=True))


def fits(version: str, bounds: str) -> bool:
    """Whether a version, as 2.14.1+cu130, lies within bounds."""
    found = _numbers(version)
    return all(
        found >= _numbers(bound) if sign == ">=" else found < _numbers(bound) for sign, bound in BOUND.findall(bounds)
    )


def installed(name: str) -> str | None:
    """The version of a distribution, None if it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def install(needed: dict[str, str], *options: str) -> str:
    """The command that installs these."""
    return " ".join(["pip install", *options, *(f'"{name}{bounds}"' for name, bounds in needed.items())])


def _numbers(version: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)  # type: ignore[index]
    return numbers + (0,) * (3 - len(numbers))
