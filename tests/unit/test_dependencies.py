"""pyproject.toml and the pinned requirements against the imports of the package."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OF_EXTRAS = {"gradio": "demo", "pandas": "demo", "faster_whisper": "asr"}  # imported only where an extra is needed


def names(requirements):
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}


def imported():
    """The top-level modules that the package imports, from anywhere in its files."""
    for file in (ROOT / "clvp_train").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield node.module.partition(".")[0]


def test_what_is_imported_is_declared():
    modules = set(imported()) - set(sys.stdlib_module_names) - {"clvp_train"}
    assert {"torch", "numpy", "omegaconf", "gradio"} <= modules
    for module in modules:
        extra, own = OF_EXTRAS.get(module), names(packages_distributions()[module])
        declared = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
        assert own & names(declared), f"{module} of {own} is not declared"


def test_every_dependency_is_pinned_once_and_extras_are_for_development():
    run, dev = (
        names(line for line in (ROOT / file).read_text().splitlines() if "==" in line)
        for file in ("requirements.txt", "requirements-dev.txt")
    )
    assert names(PROJECT["dependencies"]) <= run and not run & dev
    extras = [line for name, lines in PROJECT["optional-dependencies"].items() if name != "dev" for line in lines]
    assert names(extras) <= run | dev
    assert {"playwright", "gradio", "scipy", "sphinx", "pytest"} <= dev
