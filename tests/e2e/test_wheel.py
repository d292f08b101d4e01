"""The built wheel, installed outside of the repository: every console script, and a short training."""

import re
import subprocess
import sys
import tomllib

import pytest

from tests.e2e.commands import ROOT, TIMEOUT, environment
from tests.e2e.conftest import BUDGET, CORPUS
from tests.e2e.test_doctor import venv

SCRIPTS = list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the installed libraries, and this package from its wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT], check=True)
    python = venv(folder / "venv", "clvp_train", "_clvp_train", "_editable", "__editable")
    (wheel,) = folder.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    return python.parent


def start(installed, workplace, script, *arguments):
    settings = environment(workplace, PYTHONPATH="", PYTHONSAFEPATH="1")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([installed / script, *arguments], cwd=workplace, env=settings, text=True, **pipes)


def test_every_console_script_has_help(installed, tmp_path):
    started = {script: start(installed, tmp_path, script, "--help") for script in SCRIPTS}
    for script, process in started.items():
        stdout, stderr = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0 and len(stdout.splitlines()) > 3, f"{script}: {stderr}"


def test_it_trains_outside_of_the_repository(installed, workplace):
    short = [*CORPUS, *BUDGET, "trainer.max_steps=1", "test=false", "hydra.run.dir=run"]
    _, stderr = (process := start(installed, workplace, "clvp-train", *short)).communicate(timeout=TIMEOUT)
    assert process.returncode == 0, stderr
    assert (workplace / "run/model/processor_config.json").exists()
    assert not re.search(re.escape(str(ROOT)), (workplace / "run/config/config.yaml").read_text())
